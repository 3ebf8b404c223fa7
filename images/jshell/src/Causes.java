import java.io.IOException;
import java.nio.file.FileSystemException;
import java.util.regex.Pattern;

/**
 * Finds the limit of the sandbox that caused an exception. The message alone never decides: the place of creation
 * counts too.
 */
final class Causes {
    private static final int MAX_DEPTH = 100;

    /**
     * The C library's messages, for which Java has no class. They are the end of a message about a file, in brackets or
     * not.
     */
    private static final Pattern FULL =
        Pattern.compile("(.* \\()?(No space left on device|Disk quota exceeded)\\)?", Pattern.DOTALL);

    private Causes() { }

    /**
     * Returns {@code memory} or {@code disk} if the exception or one of its causes reports that it is used up; null
     * otherwise.
     */
    static String limitBehind(Throwable thrown) {
        try {
            Throwable current = thrown;
            for (int depth = 0; current != null && depth < MAX_DEPTH; depth++) {
                if (current instanceof OutOfMemoryError && isHeapExhaustion(current)) {
                    return "memory";
                }
                if (current instanceof IOException && isCreatedInJdk(current) && FULL.matcher(reason(current)).matches()) {
                    return "disk";
                }
                current = current.getCause();
            }
        } catch (Throwable broken) {
            // The user's own exceptions may override the methods called here, and these may throw.
        }
        return null;
    }

    private static boolean isHeapExhaustion(Throwable thrown) {
        // An error without a message is a thread pool's copy of another thread's error, which is its cause. A thread
        // that cannot be created throws the same class, but the processes are used up then, not the memory.
        String message = thrown.getMessage();
        return isPreallocated(thrown) || isCreatedInJdk(thrown) && message != null && !message.contains("native thread");
    }

    /**
     * Whether no constructor has run. The JVM allocates some exceptions in advance, for when there is no memory to
     * create one. Only these refuse a cause although they have none.
     */
    private static boolean isPreallocated(Throwable thrown) {
        try {
            thrown.initCause(thrown);
        } catch (IllegalArgumentException itself) {
            return false;
        } catch (IllegalStateException tooLate) {
            return thrown.getCause() == null;
        }
        return false;
    }

    /** Whether the exception was created in one of the JDK's own modules. */
    private static boolean isCreatedInJdk(Throwable thrown) {
        StackTraceElement[] stack = thrown.getStackTrace();
        return stack.length > 0 && stack[0].getModuleName() != null;
    }

    /** The message, without the name of the file if the exception holds that separately. */
    private static String reason(Throwable thrown) {
        String reason = thrown instanceof FileSystemException file ? file.getReason() : thrown.getMessage();
        return reason == null ? "" : reason;
    }
}
