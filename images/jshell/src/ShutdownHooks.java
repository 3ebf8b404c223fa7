import java.lang.reflect.Field;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** The shutdown hooks of user code. The JVM goes on after a program's end, so that they are run by hand. */
final class ShutdownHooks {
    /** Those of the libraries that the runner uses. */
    private final Set<Thread> own = new HashSet<>(registered());

    /** Runs all hooks at once and waits for them, as the JVM does. Each runs once. */
    void run() throws InterruptedException {
        List<Thread> hooks = registered();
        hooks.removeAll(own);
        hooks.removeIf(hook -> !Runtime.getRuntime().removeShutdownHook(hook));
        hooks.forEach(Thread::start);
        for (Thread hook : hooks) {
            hook.join();
        }
    }

    /** There is no other way to ask for them; `jvm.options` opens the package. */
    private static List<Thread> registered() {
        try {
            Field hooks = Class.forName("java.lang.ApplicationShutdownHooks").getDeclaredField("hooks");
            hooks.setAccessible(true);
            return new ArrayList<>(((Map<Thread, ?>) hooks.get(null)).keySet().stream().map(hook -> (Thread) hook).toList());
        } catch (ReflectiveOperationException err) {
            throw new IllegalStateException(err);
        }
    }
}
