import java.util.List;

/** How user code failed, as the agent is told; {@code cause} is the limit behind it, or null. */
record Failure(String name, String value, List<String> traceback, String cause) { }
