import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;

import sun.misc.Signal;

/** Reads requests, executes them and answers. Variables live as long as this process. */
public final class Runner {
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
        new Thread(threads, () -> serve(channel, environment, threads), "main", UserThreads.STACK_BYTES).start();
    }

    private static void serve(Channel channel, Environment environment, UserThreads threads) {
        try {
            var interpreter = new Interpreter(threads);
            warmUp(interpreter);
            UserThreads.restartNumbering();
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
            "undefined",
            """
            import java.util.*;
            import java.util.stream.*;

            public class WarmUp {
                sealed interface Shape permits Circle, Square { double area(); }
                record Circle(double radius) implements Shape { public double area() { return Math.PI * radius * radius; } }
                record Square(double side) implements Shape { public double area() { return side * side; } }

                public static void main(String[] args) {
                    List<Shape> shapes = new ArrayList<>(List.of(new Circle(1), new Square(2)));
                    Map<String, Double> areas = new TreeMap<>();
                    for (Shape shape : shapes) {
                        areas.put(shape + "", switch (shape) { case Circle c -> c.area(); case Square(double side) -> side * side; });
                    }
                    System.out.println(areas.values().stream().map(String::valueOf).collect(Collectors.joining(", ")));
                }
            }""");
    }

    /** Each print is one write, so that its order relative to the output of child processes is kept. */
    private static PrintStream unbuffered(FileDescriptor descriptor) {
        return new PrintStream(new FileOutputStream(descriptor), true, StandardCharsets.UTF_8);
    }
}
