import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.List;
import java.util.function.BiFunction;

import jdk.jshell.MethodSnippet;
import jdk.jshell.Snippet;
import jdk.jshell.Snippet.Kind;
import jdk.jshell.TypeDeclSnippet;

/**
 * Finds the call of `main` in snippets that are declarations only. Most such code is a program, and no snippets; the
 * rest uses what earlier snippets have defined, or is not quite a source file.
 */
final class MainCall {
    private MainCall() { }

    /**
     * The snippet that calls `main`; null if there is no `main`, or if the code has statements and so runs by itself.
     */
    static String of(List<Snippet> snippets, BiFunction<Snippet, String, Class<?>> classes) {
        boolean variables = false;
        for (Snippet snippet : snippets) {
            switch (snippet.kind()) {
                case IMPORT, METHOD, TYPE_DECL -> { }
                case VAR -> variables = true;
                default -> { return null; }
            }
        }
        for (Snippet snippet : snippets) {
            if (snippet instanceof MethodSnippet method && method.name().equals("main")) {
                switch (method.parameterTypes()) {
                    case "" -> { return "main();"; }
                    case "String[]", "String..." -> { return "main(new String[0]);"; }
                    default -> { }
                }
            }
            if (snippet instanceof TypeDeclSnippet type && !variables) {
                String call = of(type.name(), classes.apply(snippet, type.name()));
                if (call != null) {
                    return call;
                }
            }
        }
        return null;
    }

    private static String of(String name, Class<?> type) {
        if (type == null) {
            return null;
        }
        String call = null;
        for (Method method : type.getDeclaredMethods()) {
            boolean takesArguments = method.getParameterCount() == 1 && method.getParameterTypes()[0] == String[].class;
            if (!method.getName().equals("main") || Modifier.isPrivate(method.getModifiers())) {
                continue;
            }
            if (takesArguments || call == null && method.getParameterCount() == 0) {
                String receiver = Modifier.isStatic(method.getModifiers()) ? name : "new " + name + "()";
                call = receiver + ".main(" + (takesArguments ? "new String[0]" : "") + ");";
            }
        }
        return call;
    }
}
