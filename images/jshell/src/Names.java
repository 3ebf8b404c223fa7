import java.util.regex.Pattern;

/** Hides the classes with which JShell wraps every snippet. */
final class Names {
    private static final Pattern WRAPPER = Pattern.compile("(REPL\\.)?\\$JShell\\$\\w+[$.]?");

    private Names() { }

    static boolean isWrapped(String name) {
        return name.startsWith("REPL.$JShell$");
    }

    /** The text with all names as the user wrote them. */
    static String unwrapped(String text) {
        return WRAPPER.matcher(text).replaceAll("");
    }
}
