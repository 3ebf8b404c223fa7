import java.io.IOException;
import java.nio.file.FileSystemException;
import java.util.regex.Pattern;

/** Which limit of the sandbox, if any, is behind an exception: by where it was made, never by its words alone. */
final class Causes {
    private static final int MAX_DEPTH = 100;

    /** The C library's words, for which Java has no class. They end what is said of a file, in brackets or not. */
    private static final Pattern FULL =
        Pattern.compile("(.* \\()?(No space left on device|Disk quota exceeded)\\)?", Pattern.DOTALL);

    private Causes() { }

    /** {@code memory} or {@code disk}, if the exception, or one that caused it, reports that there is no more; null otherwise. */
    static String limitBehind(Throwable thrown) {
        try {
            Throwable one = thrown;
            for (int depth = 0; one != null && depth < MAX_DEPTH; depth++) {
                if (one instanceof OutOfMemoryError && isOfTheHeap(one)) {
                    return "memory";
                }
                if (one instanceof IOException && isOfTheJdk(one) && FULL.matcher(reason(one)).matches()) {
                    return "disk";
                }
                one = one.getCause();
            }
        } catch (Throwable broken) {
            // The user's own exceptions may override all that is asked here, and badly.
        }
        return null;
    }

    private static boolean isOfTheHeap(Throwable thrown) {
        // Without words it is a pool's copy of another thread's, which is its cause. A thread that cannot be made is told with the
        // same class, but for want of processes, not of memory.
        String message = thrown.getMessage();
        return isOfTheJvm(thrown) || isOfTheJdk(thrown) && message != null && !message.contains("native thread");
    }

    /**
     * Whether no constructor has run: the JVM keeps some exceptions ready for when there is no memory to make one. Only those
     * have lost their chance of a cause without having one.
     */
    private static boolean isOfTheJvm(Throwable thrown) {
        try {
            thrown.initCause(thrown);
        } catch (IllegalArgumentException itself) {
            return false;
        } catch (IllegalStateException tooLate) {
            return thrown.getCause() == null;
        }
        return false;
    }

    /** Whether it was made in one of the JDK's own modules. */
    private static boolean isOfTheJdk(Throwable thrown) {
        StackTraceElement[] stack = thrown.getStackTrace();
        return stack.length > 0 && stack[0].getModuleName() != null;
    }

    /** The message, without the name of a file where that can be told apart. */
    private static String reason(Throwable thrown) {
        String reason = thrown instanceof FileSystemException file ? file.getReason() : thrown.getMessage();
        return reason == null ? "" : reason;
    }
}
