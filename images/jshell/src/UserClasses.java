import java.io.File;
import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import jdk.jshell.execution.LoaderDelegate;
import jdk.jshell.spi.ExecutionControl.ClassBytecodes;

/** Loads the classes of snippets. They see the JDK's classes and the class path's, but not the runner's. */
final class UserClasses extends URLClassLoader implements LoaderDelegate {
    private final Map<String, byte[]> bytecodes = new HashMap<>();

    UserClasses() {
        super(urls(System.getProperty("java.class.path")), getPlatformClassLoader());
    }

    private static URL[] urls(String classPath) {
        List<URL> urls = new ArrayList<>();
        for (String entry : classPath.split(File.pathSeparator)) {
            try {
                urls.add(new File(entry).toURI().toURL());
            } catch (MalformedURLException notAFile) {
                throw new IllegalArgumentException(notAFile);
            }
        }
        return urls.toArray(URL[]::new);
    }

    @Override
    public void load(ClassBytecodes[] classes) {
        for (ClassBytecodes added : classes) {
            bytecodes.put(added.name(), added.bytecodes());
        }
    }

    @Override
    public void classesRedefined(ClassBytecodes[] classes) {
        throw new UnsupportedOperationException("a class is replaced, never redefined");
    }

    @Override
    public Class<?> findClass(String name) throws ClassNotFoundException {
        Class<?> loaded = findLoadedClass(name); // JShell calls this method, not `loadClass`
        if (loaded != null) {
            return loaded;
        }
        if (name.equals(StopCheck.class.getName())) {
            return StopCheck.class;
        }
        byte[] found = bytecodes.get(name);
        if (found == null) {
            return super.findClass(name);
        }
        byte[] woven = StopCheck.weave(found, this);
        return defineClass(name, woven, 0, woven.length);
    }

    @Override
    public void addToClasspath(String path) {
        for (URL url : urls(path)) {
            addURL(url);
        }
    }
}
