import java.util.List;
import java.util.Map;

/** A compiled program: its classes by their binary names, which are of no use if there are errors. */
record Program(String code, Outline outline, Map<String, byte[]> classes, List<CompileError> errors) {
    /** An error as {@code javac} prints it, its message alone, and the name that could not be found, or null. */
    record CompileError(String text, String message, String missing) { }
}
