import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

import jdk.jshell.Diag;

/** Reports the compiler's errors as `javac` does, with line numbers of the user's whole code. */
final class CompileErrors {
    private CompileErrors() { }

    /** The failure of a snippet that does not compile. */
    static Failure failure(List<Diag> diagnostics, Source source) {
        List<String> lines = new ArrayList<>();
        String value = "the code does not compile";
        for (Diag diagnostic : diagnostics) {
            if (!diagnostic.isError()) {
                continue;
            }
            // "location:" names the class with which JShell has wrapped the snippet.
            List<String> message = diagnostic.getMessage(Locale.ROOT).lines()
                .filter(line -> !line.strip().startsWith("location:")).toList();
            if (lines.isEmpty()) {
                value = String.join("\n", message);
            }
            lines.add("line " + source.line(diagnostic.getPosition()) + ": error: " + message.getFirst());
            lines.addAll(message.subList(1, message.size()));
            lines.addAll(List.of(source.quote(diagnostic.getPosition())));
        }
        if (lines.isEmpty()) {
            lines.add("error: " + value);
        }
        return new Failure("CompileError", value, lines, null);
    }

    /** The failure of a program that does not compile. */
    static Failure failure(List<Program.CompileError> errors) {
        List<String> lines = errors.stream().flatMap(error -> error.text().lines()).toList();
        return new Failure("CompileError", errors.getFirst().message(), lines, null);
    }

    /** Reports undefined names that a snippet uses, such as "method twice(int)". */
    static Failure unresolved(List<String> names, String snippet, Source source) {
        List<String> lines = new ArrayList<>();
        for (String name : names) {
            String identifier = name.replaceFirst("^\\w+ ", "").replaceFirst("[(<].*", "");
            Matcher use = Pattern.compile("\\b" + Pattern.quote(identifier) + "\\b").matcher(snippet);
            int offset = use.find() ? use.start() : 0;
            lines.add("line " + source.line(offset) + ": error: cannot find symbol");
            lines.add("  symbol:   " + name);
            lines.addAll(List.of(source.quote(offset)));
        }
        return new Failure("CompileError", "cannot find symbol\n  symbol:   " + String.join(", ", names), lines, null);
    }
}
