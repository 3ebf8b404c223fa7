import java.lang.reflect.Field;
import java.util.HashMap;
import java.util.Map;

/** What one execution sees of its surroundings: environment variables and the working directory. */
final class Environment {
    /** The map behind {@link System#getenv}, which child processes inherit too; the JDK offers no way to change it. */
    private final Map<String, String> variables;
    private final Map<String, String> variablesBefore = new HashMap<>();
    private final Map<String, String> propertiesBefore = new HashMap<>();

    @SuppressWarnings("unchecked")
    Environment() throws ReflectiveOperationException {
        Field backing = System.getenv().getClass().getDeclaredField("m");
        backing.setAccessible(true); // opened to us by `Add-Opens` in the jar's manifest
        variables = (Map<String, String>) backing.get(System.getenv());
    }

    /** Takes a variable out of what user code and its child processes see. */
    String remove(String name) {
        return variables.remove(name);
    }

    /** Makes the variables system properties too, as those of an execution will be. The JVM's own are left as they are. */
    void becomeProperties() {
        variables.forEach((name, value) -> System.getProperties().putIfAbsent(name, value));
    }

    /** Sets the variables of one execution, as environment variables and as system properties, and the directory. */
    void enter(Map<String, String> env, String cwd) {
        if (cwd != null) {
            System.setProperty("user.dir", cwd); // the most that a running JVM can do: files are opened where it started
        }
        env.forEach((name, value) -> {
            variablesBefore.put(name, variables.put(name, value));
            propertiesBefore.put(name, System.setProperty(name, value));
        });
    }

    /** Gives both back the values they had; what else the code changed stays changed. */
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
