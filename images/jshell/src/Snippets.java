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
final class Snippets {
    private static final Pattern PACKAGE = Pattern.compile("(?m)^\\s*package\\s+[\\w.]+\\s*;");

    private record Part(String code, Source source, boolean complete) { }

    private final UserCode userCode;
    private final JShell jshell;
    private final SourceCodeAnalysis analysis;
    private final Map<Snippet, Source> sources = new LinkedHashMap<>();
    private final Tracebacks tracebacks;
    private final EarlierPrograms programs;
    private int unnamedValues;

    Snippets(UserThreads threads, UserClasses classes, List<String> imports) {
        userCode = new UserCode(threads, classes);
        jshell = JShell.builder().executionEngine(inThisProcess(userCode), Map.of())
            .tempVariableNameGenerator(() -> "$" + ++unnamedValues).build();
        analysis = jshell.sourceCodeAnalysis();
        tracebacks = new Tracebacks(analysis, sources);
        programs = new EarlierPrograms(jshell, classes.shared());
        imports.forEach(name -> jshell.eval("import " + name + ";"));
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

    /** Formats the exceptions of snippets and programs. */
    Tracebacks tracebacks() {
        return tracebacks;
    }

    /** The programs whose declarations snippets can use. */
    EarlierPrograms programs() {
        return programs;
    }

    /** Whether one of the names is that of an earlier snippet, or of what an earlier program has declared. */
    boolean define(List<String> names) {
        return names.stream().anyMatch(programs.names()::contains) || jshell.snippets().anyMatch(snippet ->
            snippet instanceof DeclarationSnippet declaration && jshell.status(snippet).isActive()
                && names.contains(declaration.name()));
    }

    void drop() {
        sources.keySet().forEach(jshell::drop);
        sources.clear();
        unnamedValues = 0;
    }

    /** Runs the code; returns null if it did not fail. */
    Failure run(int execution, String code, Interpreter.Reports reports) throws Throwable {
        List<Part> parts = split(execution, withoutPackage(code));
        for (Part part : parts) {
            if (isMalformed(part)) {
                return failure(jshell.eval(part.code()).getFirst(), part.source()); // nothing has been run yet
            }
        }
        programs.show(code);
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
        String main = MainCall.of(snippets, this::loadedClass);
        return main == null ? null : failure(jshell.eval(main).getFirst(), new Source(execution, code, 0));
    }

    private String withoutPackage(String code) {
        Matcher declaration = PACKAGE.matcher(code);
        boolean first = declaration.find() && isBlank(code.substring(0, declaration.start()));
        return first ? declaration.replaceFirst(found -> found.group().replaceAll("\\S", " ")) : code;
    }

    private boolean isBlank(String code) {
        return analysis.analyzeCompletion(code).completeness() == Completeness.EMPTY;
    }

    private List<Part> split(int execution, String code) {
        List<Part> parts = new ArrayList<>();
        for (String rest = code; !rest.isEmpty(); ) {
            rest = rest.stripLeading();
            CompletionInfo info = analysis.analyzeCompletion(rest);
            if (info.completeness() == Completeness.EMPTY) {
                break;
            }
            var source = new Source(execution, code, code.length() - rest.length());
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
