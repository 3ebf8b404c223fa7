import java.io.IOException;
import java.lang.invoke.MethodHandle;
import java.util.List;
import java.util.Objects;

import oncebox.StopCheck;

/** Runs code: a program as the {@code java} command runs it, everything else as snippets. */
final class Interpreter {
    /** The packages that the `jshell` command imports. */
    private static final List<String> IMPORTS = List.of(
        "java.io.*", "java.math.*", "java.net.*", "java.nio.file.*", "java.util.*", "java.util.concurrent.*",
        "java.util.function.*", "java.util.prefs.*", "java.util.regex.*", "java.util.stream.*");

    /** The reports of an execution to the agent. */
    interface Reports {
        /** A value. */
        void result(String text) throws IOException;

        /** The last line has run, or the code has failed; {@code failure} is null when it did not. */
        void ending(Failure failure) throws IOException;
    }

    private static final Reports NO_REPORTS = new Reports() {
        @Override
        public void result(String text) { }

        @Override
        public void ending(Failure failure) { }
    };

    private final UserThreads threads;
    private final UserClasses classes = new UserClasses();
    private final Snippets snippets;
    private final Tracebacks tracebacks;
    private final ProgramCompiler compiler = new ProgramCompiler(IMPORTS);
    private final ShutdownHooks hooks = new ShutdownHooks();
    private int executions;

    Interpreter(UserThreads threads) {
        this.threads = threads;
        Thread.currentThread().setContextClassLoader(classes.newest());
        snippets = new Snippets(threads, classes, IMPORTS);
        tracebacks = snippets.tracebacks();
    }

    /** Runs examples in the same way as user code, then forgets them. */
    void warmUp(String... examples) throws IOException {
        for (String code : examples) {
            execute(code, "warm-up", NO_REPORTS);
        }
        snippets.drop();
        executions = 0;
    }

    /**
     * Runs the code; returns null if it did not fail. A {@code script} ends as a program does: its threads are waited
     * for, then its shutdown hooks run. A {@code notebook} ends at its last line.
     */
    Failure execute(String code, String mode, Reports reports) throws IOException {
        tracebacks.begin(++executions);
        threads.begin(tracebacks);
        classes.shared().enable(mode.equals("notebook"));
        Failure failure = null;
        try {
            failure = run(code, mode, reports);
            if (mode.equals("script")) {
                reports.ending(failure);
            }
            if (!mode.equals("notebook") && !StopCheck.requested) {
                threads.call(() -> {
                    threads.drain();
                    if (mode.equals("script")) {
                        hooks.run();
                    }
                    return null;
                });
            }
            return failure;
        } catch (Throwable thrown) {
            // What goes wrong at the end of failed code does not hide the failure.
            return failure == null ? tracebacks.failure(thrown) : failure;
        } finally {
            threads.end();
        }
    }

    private Failure run(String code, String mode, Reports reports) throws Throwable {
        boolean isNotebook = mode.equals("notebook");
        Program program = compiler.compile(code);
        if (program == null || isNotebook && usesSnippets(program)) {
            return snippets.run(executions, code, reports);
        }
        if (!program.errors().isEmpty()) {
            return CompileErrors.failure(program.errors());
        }
        if (isNotebook && program.outline().isCompact()) {
            // Without an instance, later code can use the members too.
            program = Objects.requireNonNullElse(compiler.withStaticMembers(program), program);
        }
        Throwable thrown = launch(program);
        if (isNotebook) {
            snippets.programs().add(program);
        }
        return thrown == null ? null : tracebacks.failure(thrown);
    }

    /** Whether the program uses what earlier code has defined, so that it is no program by itself. */
    private boolean usesSnippets(Program program) {
        return snippets.define(program.errors().stream().map(Program.CompileError::missing).toList());
    }

    private Throwable launch(Program program) throws Throwable {
        tracebacks.beginProgram(program.classes().keySet());
        ClassLoader loader = classes.begin(program.classes());
        Thread.currentThread().setContextClassLoader(loader);
        MethodHandle main = Launcher.main(program.outline().launchOrder(), loader);
        return threads.runMain(main, loader);
    }
}
