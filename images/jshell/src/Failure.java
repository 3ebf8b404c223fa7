import java.util.List;

/** A failure of user code, as reported to the agent; {@code cause} is the limit that caused it, or null. */
record Failure(String name, String value, List<String> traceback, String cause) { }
