import java.util.List;

/** How user code failed, as the agent is told. */
record Failure(String name, String value, List<String> traceback, boolean outOfMemory) { }
