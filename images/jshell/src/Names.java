import java.util.regex.Pattern;

/** JShell puts every snippet into a class of its own, which users never wrote. */
final class Names {
    private static final Pattern WRAPPER = Pattern.compile("(REPL\\.)?\\$JShell\\$\\w+[$.]?");

    private Names() { }

    static boolean isWrapped(String name) {
        return name.startsWith("REPL.$JShell$");
    }

    /** A text with all names as the user wrote them. */
    static String unwrapped(String text) {
        return WRAPPER.matcher(text).replaceAll("");
    }
}
