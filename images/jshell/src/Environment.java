import java.lang.reflect.Field;
import java.util.HashMap;
import java.util.Map;

/** The environment of an execution: environment variables and the working directory. */
final class Environment {
    /**
     * The map behind {@link System#getenv}, which child processes inherit too. The JDK offers no public way to change
     * it.
     */
    private final Map<String, String> variables;
    private final Map<String, String> variablesBefore = new HashMap<>();
    private final Map<String, String> propertiesBefore = new HashMap<>();

    @SuppressWarnings("unchecked")
    Environment() throws ReflectiveOperationException {
        Field backing = System.getenv().getClass().getDeclaredField("m");
        backing.setAccessible(true); // allowed by `Add-Opens` in the jar's manifest
        variables = (Map<String, String>) backing.get(System.getenv());
    }

    /** Removes a variable, for user code and its child processes too, and returns its value. */
    String remove(String name) {
        return variables.remove(name);
    }

    /**
     * Sets a system property for each variable, as for the variables of an execution. Existing properties stay as they
     * are.
     */
    void becomeProperties() {
        variables.forEach((name, value) -> System.getProperties().putIfAbsent(name, value));
    }

    /**
     * Sets the variables of one execution, both as environment variables and as system properties, and its directory.
     */
    void enter(Map<String, String> env, String cwd) {
        if (cwd != null) {
            System.setProperty("user.dir", cwd); // a running JVM can do no more: it still opens files where it started
        }
        env.forEach((name, value) -> {
            variablesBefore.put(name, variables.put(name, value));
            propertiesBefore.put(name, System.setProperty(name, value));
        });
    }

    /** Restores these variables and properties; other changes by the code stay. */
    void leave() {
        restore(variablesBefore, variables);
        restore(propertiesBefore, System.getProperties());
    }

    private static void restore(Map<String, String> before, Map<? super String, ? super String> now) {
        before.forEach((name, value) -> {
            if (value == null) {
                now.remove(name);
            } else {
                now.put(name, value);
            }
        });
        before.clear();
    }
}
