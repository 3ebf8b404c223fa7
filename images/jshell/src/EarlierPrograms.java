import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Set;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;

import jdk.jshell.JShell;
import jdk.jshell.Snippet;
import jdk.jshell.Snippet.Status;

/**
 * The programs of a notebook, whose declarations later snippets can use. JShell gets each declaration as a snippet, and
 * compiles code that uses it; {@link SharedClasses} makes that code use the program's own classes.
 */
final class EarlierPrograms {
    private static final Pattern NAME = Pattern.compile("\\p{javaJavaIdentifierStart}\\p{javaJavaIdentifierPart}*");

    private final JShell jshell;
    private final SharedClasses classes;
    /** What JShell has not got yet. */
    private final List<String> imports = new ArrayList<>();
    private final List<Program> programs = new ArrayList<>();

    EarlierPrograms(JShell jshell, SharedClasses classes) {
        this.jshell = jshell;
        this.classes = classes;
    }

    void add(Program program) {
        Set<String> names = names(program).collect(Collectors.toSet());
        programs.removeIf(earlier -> names(earlier).allMatch(names::contains));
        programs.add(program);
        imports.addAll(program.outline().imports());
    }

    /** The names that snippets do not know yet. */
    Set<String> names() {
        return programs.stream().flatMap(EarlierPrograms::names).collect(Collectors.toSet());
    }

    private static Stream<String> names(Program program) {
        return program.outline().declarations().stream().map(Outline.Declaration::name);
    }

    /** Gives JShell what the code may use. */
    void show(String code) {
        imports.forEach(jshell::eval);
        imports.clear();
        if (!programs.isEmpty() && NAME.matcher(code).results().map(MatchResult::group).anyMatch(names()::contains)) {
            programs.forEach(this::declare);
            programs.clear();
        }
    }

    private void declare(Program program) {
        Outline outline = program.outline();
        var snippets = new HashMap<Snippet, Outline.Declaration>();
        for (Outline.Declaration declaration : outline.declarations()) {
            snippets.put(jshell.eval(declaration.snippet()).getFirst().snippet(), declaration);
        }
        // Only now, because what is declared later may change the classes of what is declared earlier.
        snippets.forEach((snippet, declaration) -> {
            if (jshell.status(snippet) == Status.VALID) {
                String known = jshell.sourceCodeAnalysis().wrapper(snippet).fullClassName();
                String defined = outline.packagePrefix() + (outline.isCompact() ? "Main" : "");
                if (declaration.isType()) {
                    known += "$" + declaration.name();
                    defined += (outline.isCompact() ? "$" : "") + declaration.name();
                }
                classes.rename(known, defined);
            }
        });
    }
}
