import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.reflect.Constructor;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.List;

import jdk.internal.misc.MethodFinder;

/** Finds the {@code main} of a program in the way of the {@code java} command. */
final class Launcher {
    private Launcher() { }

    /**
     * Returns a handle that needs no arguments and returns nothing.
     *
     * @throws ReflectiveOperationException if no type has a {@code main} that can be launched
     */
    static MethodHandle main(List<String> types, ClassLoader classes) throws ReflectiveOperationException {
        for (String name : types) {
            Method main = MethodFinder.findMainMethod(Class.forName(name, false, classes));
            if (main != null) {
                return handle(main);
            }
        }
        throw new NoSuchMethodException("no type has a main method that can be launched");
    }

    private static MethodHandle handle(Method main) throws ReflectiveOperationException {
        main.setAccessible(true);
        MethodHandle handle = MethodHandles.lookup().unreflect(main);
        if (!Modifier.isStatic(main.getModifiers())) {
            Constructor<?> constructor = main.getDeclaringClass().getDeclaredConstructor();
            constructor.setAccessible(true);
            handle = MethodHandles.collectArguments(handle, 0, MethodHandles.lookup().unreflectConstructor(constructor));
        }
        return handle.type().parameterCount() == 0 ? handle : MethodHandles.insertArguments(handle, 0, (Object) new String[0]);
    }
}
