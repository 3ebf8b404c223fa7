import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;

import jdk.jshell.execution.DirectExecutionControl;
import jdk.jshell.spi.SPIResolutionException;

/** Runs compiled snippets in this JVM and keeps their value or the exception that they threw. */
final class UserCode extends DirectExecutionControl {
    private final UserThreads threads;
    private Object value;
    private Throwable thrown;

    UserCode(UserThreads threads, UserClasses classes) {
        super(classes);
        this.threads = threads;
    }

    /** Runs a snippet without rendering its value: JShell would render every value, also those that are not shown. */
    @Override
    protected String invoke(Method snippet) throws Exception {
        value = null;
        thrown = null;
        try {
            value = threads.call(() -> snippet.invoke(null));
            return "";
        } catch (Throwable failure) {
            thrown = failure instanceof InvocationTargetException ? failure.getCause() : failure;
            if (thrown instanceof SPIResolutionException unresolved) {
                thrown = null;
                throw unresolved;
            }
            throw new StoppedException(); // JShell's own description of an exception has less detail than the exception
        }
    }

    /** Returns the exception that the last snippet threw, once; null if it threw none. */
    Throwable takeThrown() {
        Throwable taken = thrown;
        thrown = null;
        return taken;
    }

    /** Renders the last snippet's value as JShell shows it, which calls the user's {@code toString}. */
    String renderValue() throws Throwable {
        Object rendered = value;
        value = null;
        return Names.unwrapped(threads.call(() -> String.valueOf(valueString(rendered))));
    }

    @Override
    protected Class<?> findClass(String name) throws ClassNotFoundException {
        return super.findClass(name);
    }
}
