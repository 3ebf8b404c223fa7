import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

import jdk.jshell.DeclarationSnippet;
import jdk.jshell.JShell;
import jdk.jshell.Snippet;
import jdk.jshell.Snippet.Kind;
import jdk.jshell.Snippet.Status;
import jdk.jshell.Snippet.SubKind;
import jdk.jshell.SnippetEvent;
import jdk.jshell.SourceCodeAnalysis;
import jdk.jshell.SourceCodeAnalysis.CompletionInfo;
import jdk.jshell.SourceCodeAnalysis.Completeness;
import jdk.jshell.UnresolvedReferenceException;
import jdk.jshell.VarSnippet;
import jdk.jshell.spi.ExecutionControl;
import jdk.jshell.spi.ExecutionControlProvider;
import jdk.jshell.spi.ExecutionEnv;

/** One JShell instance: splits code into snippets, runs them in order and stops at the first failure. */
final class Interpreter {
    /** The packages that the `jshell` command imports. */
    private static final List<String> IMPORTS = List.of(
        "java.io.*", "java.math.*", "java.net.*", "java.nio.file.*", "java.util.*", "java.util.concurrent.*",
        "java.util.function.*", "java.util.prefs.*", "java.util.regex.*", "java.util.stream.*");

    private static final Pattern PACKAGE = Pattern.compile("(?m)^\\s*package\\s+[\\w.]+\\s*;");

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

    private record Part(String code, Source source, boolean complete) { }

    private final UserThreads threads;
    private final UserCode userCode;
    private final JShell jshell;
    private final SourceCodeAnalysis analysis;
    private final Map<Snippet, Source> sources = new LinkedHashMap<>();
    private final Tracebacks tracebacks;
    private final ShutdownHooks hooks = new ShutdownHooks();
    private int executions;
    private int unnamedValues;

    Interpreter(UserThreads threads) {
        this.threads = threads;
        var classes = new UserClasses();
        Thread.currentThread().setContextClassLoader(classes);
        userCode = new UserCode(threads, classes);
        jshell = JShell.builder().executionEngine(inThisProcess(userCode), Map.of())
            .tempVariableNameGenerator(() -> "$" + ++unnamedValues).build();
        analysis = jshell.sourceCodeAnalysis();
        tracebacks = new Tracebacks(analysis, sources);
        IMPORTS.forEach(name -> jshell.eval("import " + name + ";"));
    }

    /** Runs examples in the same way as user code, then forgets them. */
    void warmUp(String... examples) throws IOException {
        for (String code : examples) {
            execute(code, "warm-up", NO_REPORTS);
        }
        sources.keySet().forEach(jshell::drop);
        sources.clear();
        executions = 0;
        unnamedValues = 0;
    }

    private static ExecutionControlProvider inThisProcess(ExecutionControl control) {
        return new ExecutionControlProvider() {
            @Override
            public String name() {
                return "runner";
            }

            @Override
            public ExecutionControl generate(ExecutionEnv env, Map<String, String> parameters) {
                return control;
            }
        };
    }

    /**
     * Runs the code; returns null if it did not fail. A {@code script} ends as a program does: its threads are waited
     * for, then its shutdown hooks run. A {@code notebook} ends at its last line.
     */
    Failure execute(String code, String mode, Reports reports) throws IOException {
        tracebacks.begin(++executions);
        threads.begin(tracebacks);
        Failure failure = null;
        try {
            failure = run(code, reports);
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

    private Failure run(String code, Reports reports) throws Throwable {
        List<Part> parts = split(withoutPackage(code));
        for (Part part : parts) {
            if (isMalformed(part)) {
                return failure(jshell.eval(part.code()).getFirst(), part.source()); // nothing has been run yet
            }
        }
        List<Snippet> snippets = new ArrayList<>();
        for (Part part : parts) {
            boolean last = part == parts.getLast();
            for (SnippetEvent event : jshell.eval(part.code())) {
                if (event.causeSnippet() != null) {
                    continue; // an earlier snippet, updated because of this one
                }
                sources.put(event.snippet(), part.source());
                Failure failure = failure(event, part.source());
                if (failure != null) {
                    return failure;
                }
                snippets.add(event.snippet());
                if (last && hasValue(event.snippet())) {
                    reports.result(userCode.renderValue());
                }
            }
        }
        for (Snippet snippet : snippets) {
            if (jshell.status(snippet) == Status.RECOVERABLE_NOT_DEFINED) {
                return unresolved((DeclarationSnippet) snippet);
            }
        }
        String main = Programs.callOfMain(snippets, this::loadedClass);
        return main == null ? null : failure(jshell.eval(main).getFirst(), new Source(executions, code, 0));
    }

    private String withoutPackage(String code) {
        Matcher declaration = PACKAGE.matcher(code);
        boolean first = declaration.find() && isBlank(code.substring(0, declaration.start()));
        return first ? declaration.replaceFirst(found -> found.group().replaceAll("\\S", " ")) : code;
    }

    private boolean isBlank(String code) {
        return analysis.analyzeCompletion(code).completeness() == Completeness.EMPTY;
    }

    private List<Part> split(String code) {
        List<Part> parts = new ArrayList<>();
        for (String rest = code; !rest.isEmpty(); ) {
            rest = rest.stripLeading();
            CompletionInfo info = analysis.analyzeCompletion(rest);
            if (info.completeness() == Completeness.EMPTY) {
                break;
            }
            var source = new Source(executions, code, code.length() - rest.length());
            boolean whole = info.completeness().isComplete();
            parts.add(new Part(whole ? info.source() : rest, source, whole));
            rest = whole ? info.remaining() : "";
        }
        return parts;
    }

    /**
     * Whether a part is not valid Java. Only the last part can be incomplete, and an incomplete part is seldom valid.
     */
    private boolean isMalformed(Part part) {
        return !part.complete() && analysis.sourceToSnippets(part.code()).stream().anyMatch(s -> s.kind() == Kind.ERRONEOUS);
    }

    /** The failure of an event's snippet; null if the snippet was defined and ran to its end. */
    private Failure failure(SnippetEvent event, Source source) {
        Throwable thrown = userCode.takeThrown();
        if (thrown != null) {
            return tracebacks.failure(thrown);
        }
        Snippet snippet = event.snippet();
        if (event.exception() instanceof UnresolvedReferenceException unresolved) {
            return unresolved(unresolved.getSnippet());
        }
        return switch (event.status()) {
            case VALID -> null;
            // Later code may define the names that a method or a type lacks. A variable needs its value now.
            case RECOVERABLE_DEFINED, RECOVERABLE_NOT_DEFINED ->
                snippet instanceof VarSnippet variable ? unresolved(variable) : null;
            default -> CompileErrors.failure(jshell.diagnostics(snippet).toList(), source);
        };
    }

    /** The code used undefined names; JShell remembers the names, but not their positions. */
    private Failure unresolved(DeclarationSnippet snippet) {
        return CompileErrors.unresolved(jshell.unresolvedDependencies(snippet).toList(), snippet.source(), sources.get(snippet));
    }

    private static boolean hasValue(Snippet snippet) {
        return snippet.kind() == Kind.EXPRESSION || snippet.subKind() == SubKind.TEMP_VAR_EXPRESSION_SUBKIND;
    }

    private Class<?> loadedClass(Snippet snippet, String name) {
        try {
            return userCode.findClass(analysis.wrapper(snippet).fullClassName() + "$" + name);
        } catch (ClassNotFoundException notDefinedYet) {
            return null;
        }
    }
}
