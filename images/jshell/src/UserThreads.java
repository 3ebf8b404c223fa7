import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandleProxies;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import java.lang.reflect.Field;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

import oncebox.StopCheck;

/** The threads of user code: the main thread and all threads that are started from it. */
final class UserThreads extends ThreadGroup {
    /** Deep recursion is common in user code; the pages are only committed when used. */
    static final long STACK_BYTES = 16L << 20;

    /** How long the threads of an interrupted execution may take to end. */
    private static final long STOP_NANOS = 2_000_000_000;

    private Tracebacks tracebacks;
    private Set<Thread> older = Set.of();
    private boolean executing;
    private boolean inUserCode;

    UserThreads() {
        super("main");
    }

    /** Names unnamed threads from `Thread-0` on again, which the libraries of the runner have used up. */
    static void restartNumbering() throws ReflectiveOperationException {
        Field next = Class.forName("java.lang.Thread$ThreadNumbering").getDeclaredField("next");
        next.setAccessible(true); // `jvm.options` opens the package
        next.setInt(null, 0);
    }

    interface Code<T> {
        T run() throws Throwable;
    }

    /** Begins an execution on the calling thread; {@code tracebacks} formats the exceptions of other threads. */
    synchronized void begin(Tracebacks tracebacks) {
        this.tracebacks = tracebacks;
        older = new HashSet<>(alive());
        executing = true;
        StopCheck.requested = false;
    }

    /**
     * Ends the execution. If it was interrupted, waits a while for its threads: the next execution resets the request
     * to stop.
     */
    void end() {
        long deadline = System.nanoTime() + STOP_NANOS;
        for (Thread left; StopCheck.requested && (left = left(true)) != null && System.nanoTime() < deadline; ) {
            try {
                left.join(10);
            } catch (InterruptedException again) {
                // The execution is being stopped already.
            }
        }
        synchronized (this) {
            executing = false;
        }
    }

    /** Interrupts the execution, if there is one: user code at once, the runner's own code before the next snippet. */
    synchronized void cancel() {
        if (!executing) {
            return;
        }
        StopCheck.requested = true;
        if (inUserCode) {
            interrupt();
        }
    }

    /** Runs code that may be interrupted. The compiler and the runner itself never run on an interrupted thread. */
    <T> T call(Code<T> code) throws Throwable {
        enter();
        try {
            return code.run();
        } finally {
            leave();
        }
    }

    /**
     * Runs the {@code main} of a program on a thread of its own, so that the runner's methods are not in the program's
     * stack traces. Returns what it threw, or null.
     */
    Throwable runMain(MethodHandle main, ClassLoader classes) throws Throwable {
        var thrown = new Thrown();
        return call(() -> {
            // Neither method handles nor their proxies show in a stack trace.
            var body = MethodHandles.catchException(main, Throwable.class, Thrown.CATCH.bindTo(thrown));
            var thread = new Thread(new ProgramThreads(), MethodHandleProxies.asInterfaceInstance(Runnable.class, body), "main", STACK_BYTES);
            thread.setContextClassLoader(classes);
            thread.start();
            while (thread.isAlive()) {
                try {
                    thread.join();
                } catch (InterruptedException stopping) {
                    // The program has been interrupted too, and ends.
                }
            }
            return thrown.caught;
        });
    }

    private static final class Thrown {
        static final MethodHandle CATCH = find();
        private Throwable caught;

        private static MethodHandle find() {
            try {
                return MethodHandles.lookup().findVirtual(Thrown.class, "end", MethodType.methodType(void.class, Throwable.class));
            } catch (ReflectiveOperationException impossible) {
                throw new IllegalStateException(impossible);
            }
        }

        /** What a handler of the program's own is called with, as {@code java} does. The runner reports it otherwise. */
        void end(Throwable thrown) {
            caught = thrown;
            Thread thread = Thread.currentThread();
            var handler = thread.getUncaughtExceptionHandler();
            if (handler == thread.getThreadGroup()) {
                handler = Thread.getDefaultUncaughtExceptionHandler();
            }
            if (handler == null || isStopped(thrown)) {
                return;
            }
            try {
                handler.uncaughtException(thread, thrown);
            } catch (Throwable ignored) {
                // The JVM ignores what a handler throws.
            }
        }
    }

    private synchronized void enter() throws InterruptedException {
        StopCheck.check();
        inUserCode = true;
    }

    private synchronized void leave() {
        inUserCode = false;
        Thread.interrupted();
    }

    /** Waits for the threads this execution has left behind, as `java` waits for them after `main`. */
    void drain() throws InterruptedException {
        // Idle twice in a row, because a thread may have given work to an idle worker just before it ended.
        for (int idle = 0; idle < 2; ) {
            Thread busy = left(false);
            if (busy == null) {
                idle++;
            } else {
                busy.join(10);
                idle = 0;
            }
        }
        StopCheck.check(); // the threads may have ended only because they were stopped
    }

    /** Finds a busy thread that this execution has left behind. */
    private Thread left(boolean daemons) {
        for (Thread thread : alive()) {
            boolean counts = daemons || !thread.isDaemon();
            if (counts && thread != Thread.currentThread() && !older.contains(thread) && !isIdleWorker(thread)) {
                return thread;
            }
        }
        return null;
    }

    /**
     * Whether a thread is an idle worker: a pool that was not shut down must not keep a finished execution from ending.
     */
    private static boolean isIdleWorker(Thread thread) {
        boolean takesWork = false;
        for (StackTraceElement frame : thread.getStackTrace()) {
            if (frame.getClassName().contains("DelayedWorkQueue")) {
                return false;
            }
            takesWork |= frame.getClassName().equals("java.util.concurrent.ThreadPoolExecutor")
                && frame.getMethodName().equals("getTask");
        }
        return takesWork;
    }

    private List<Thread> alive() {
        var threads = new Thread[activeCount() + 16];
        return Arrays.asList(threads).subList(0, enumerate(threads));
    }

    /** The threads of a program. What they throw is printed as {@code java} prints it. */
    private final class ProgramThreads extends ThreadGroup {
        ProgramThreads() {
            super(UserThreads.this, "main");
        }

        @Override
        public void uncaughtException(Thread thread, Throwable thrown) {
            if (!isStopped(thrown)) {
                UserThreads.this.getParent().uncaughtException(thread, thrown);
            }
        }
    }

    private static boolean isStopped(Throwable thrown) {
        return StopCheck.requested && thrown instanceof InterruptedException;
    }

    @Override
    public void uncaughtException(Thread thread, Throwable thrown) {
        if (isStopped(thrown)) {
            return;
        }
        var handler = Thread.getDefaultUncaughtExceptionHandler();
        if (handler != null) {
            handler.uncaughtException(thread, thrown);
            return;
        }
        System.err.println("Exception in thread \"" + thread.getName() + "\" " + String.join("\n", tracebacks.of(thrown)));
    }
}
