import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;

import sun.misc.Signal;

/** Reads requests, executes them and answers. Variables live as long as this process. */
public final class Runner {
    /** Deep recursion is common in user code; the pages are only committed when used. */
    private static final long STACK_BYTES = 16L << 20;

    public static void main(String[] args) throws Exception {
        var environment = new Environment();
        var channel = new Channel(environment.remove("RUNNER_IN"), environment.remove("RUNNER_OUT"));
        environment.becomeProperties();
        // The system class path names this program; user code sees the class path that the `java` command would have
        // set.
        System.setProperty("java.class.path", System.getenv().getOrDefault("CLASSPATH", "."));

        var threads = new UserThreads();
        Signal.handle(new Signal("INT"), signal -> threads.cancel());
        // One thread for all code, so that thread-locals and locks outlive a snippet.
        new Thread(threads, () -> serve(channel, environment, threads), "main", STACK_BYTES).start();
    }

    private static void serve(Channel channel, Environment environment, UserThreads threads) {
        try {
            var interpreter = new Interpreter(threads);
            warmUp(interpreter);
            System.setOut(unbuffered(FileDescriptor.out));
            System.setErr(unbuffered(FileDescriptor.err));
            channel.ready();
            for (Channel.Request request; (request = channel.next()) != null; ) {
                environment.enter(request.env(), request.cwd());
                Failure failure = interpreter.execute(request.code(), request.mode(), channel);
                environment.leave();
                channel.done(failure);
            }
            System.exit(0);
        } catch (Throwable broken) {
            broken.printStackTrace();
            System.exit(1);
        }
    }

    private static void warmUp(Interpreter interpreter) throws IOException {
        var silent = new PrintStream(OutputStream.nullOutputStream(), true);
        System.setOut(silent);
        System.setErr(silent);
        interpreter.warmUp(
            "record P(int x) {} int twice(int n) { return 2 * n; }",
            "for (int i = 0; i < 2; i++) { System.out.println(\"warm \" + twice(i)); } var p = new P(1);",
            "Stream.of(1, 2).map(n -> n + 1).toList()",
            "List.of().get(0);",
            "undefined");
    }

    /** Each print is one write, so that its order relative to the output of child processes is kept. */
    private static PrintStream unbuffered(FileDescriptor descriptor) {
        return new PrintStream(new FileOutputStream(descriptor), true, StandardCharsets.UTF_8);
    }
}
