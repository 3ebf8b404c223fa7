import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.InputStream;
import java.lang.classfile.ClassTransform;
import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

import jdk.jshell.execution.LoaderDelegate;
import jdk.jshell.spi.ExecutionControl.ClassBytecodes;

import oncebox.StopCheck;

/**
 * Loads the classes of snippets and programs. They see the JDK's classes and the class path's, but not the runner's.
 * Each program begins a new generation, because it may define a name again; later generations see the newest class of
 * a name.
 */
final class UserClasses implements LoaderDelegate {
    private final ClassPath classPath = new ClassPath();
    private final SharedClasses shared = new SharedClasses();
    private Generation newest = new Generation(classPath, Map.of());

    ClassLoader newest() {
        return newest;
    }

    /** What makes the classes of one execution usable by the next. */
    SharedClasses shared() {
        return shared;
    }

    /** Loads the classes of a program. */
    ClassLoader begin(Map<String, byte[]> classes) {
        newest = new Generation(newest, classes);
        return newest;
    }

    @Override
    public void load(ClassBytecodes[] classes) {
        for (ClassBytecodes added : classes) {
            newest.bytecodes.put(added.name(), added.bytecodes());
        }
    }

    @Override
    public void classesRedefined(ClassBytecodes[] classes) {
        throw new UnsupportedOperationException("a class is replaced, never redefined");
    }

    @Override
    public Class<?> findClass(String name) throws ClassNotFoundException {
        return newest.loadClass(name);
    }

    @Override
    public void addToClasspath(String path) {
        classPath.add(path);
    }

    private static final class ClassPath extends URLClassLoader {
        ClassPath() {
            super(new URL[0], getPlatformClassLoader());
            add(System.getProperty("java.class.path"));
        }

        void add(String path) {
            for (String entry : path.split(File.pathSeparator)) {
                try {
                    addURL(new File(entry).toURI().toURL());
                } catch (MalformedURLException notAFile) {
                    throw new IllegalArgumentException(notAFile);
                }
            }
        }
    }

    private final class Generation extends ClassLoader {
        private final Map<String, byte[]> bytecodes;

        Generation(ClassLoader earlier, Map<String, byte[]> classes) {
            super(earlier);
            bytecodes = new ConcurrentHashMap<>(classes);
        }

        @Override
        protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
            synchronized (getClassLoadingLock(name)) {
                if (name.equals(StopCheck.class.getName())) {
                    return StopCheck.class;
                }
                byte[] found = bytecodes.get(name);
                if (found == null) {
                    return super.loadClass(name, resolve);
                }
                Class<?> loaded = findLoadedClass(name);
                if (loaded != null) {
                    return loaded;
                }
                byte[] woven = StopCheck.weave(found, this, shared.transform());
                return defineClass(name, woven, 0, woven.length);
            }
        }

        /** The class files too, from which the types of the user's classes are known when checks are woven in. */
        @Override
        public InputStream getResourceAsStream(String name) {
            byte[] found = name.endsWith(".class") ? bytecodes.get(name.substring(0, name.length() - 6).replace('/', '.')) : null;
            return found == null ? super.getResourceAsStream(name) : new ByteArrayInputStream(found);
        }
    }
}
