import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;

import jdk.jshell.execution.DirectExecutionControl;
import jdk.jshell.spi.SPIResolutionException;

/** Runs compiled snippets in this JVM and keeps what they gave: the value itself, and what they threw. */
final class UserCode extends DirectExecutionControl {
    private final UserThreads threads;
    private Object value;
    private Throwable thrown;

    UserCode(UserThreads threads, UserClasses classes) {
        super(classes);
        this.threads = threads;
    }

    /** JShell would have each value rendered, also those that nobody asked to see. */
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
            throw new StoppedException(); // JShell's own account of an exception knows less than the exception
        }
    }

    /** What the last snippet threw, once; null if it did not. */
    Throwable takeThrown() {
        Throwable taken = thrown;
        thrown = null;
        return taken;
    }

    /** The last snippet's value as JShell shows it. Calls the user's {@code toString}. */
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
