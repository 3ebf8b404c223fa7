import java.lang.classfile.AccessFlags;
import java.lang.classfile.ClassFile;
import java.lang.classfile.ClassTransform;
import java.lang.classfile.FieldModel;
import java.lang.classfile.FieldTransform;
import java.lang.classfile.MethodModel;
import java.lang.classfile.MethodTransform;
import java.lang.constant.ClassDesc;
import java.util.HashMap;
import java.util.Map;

import jdk.internal.classfile.components.ClassRemapper;

/**
 * Makes the classes of one execution usable by later ones of a notebook. JShell's snippets are in a package of their
 * own, and so are those of each generation; therefore all that is not private becomes public. JShell knows the classes
 * of a program by other names.
 */
final class SharedClasses {
    /** The classes of programs, without those nested in them: the internal names that JShell knows, and their own. */
    private final Map<String, String> names = new HashMap<>();
    private boolean enabled;

    /** Whether there will be later executions. */
    void enable(boolean enabled) {
        this.enabled = enabled;
    }

    /** What is known as one class, and those nested in it, have another name. */
    void rename(String known, String defined) {
        names.put(known.replace('.', '/'), defined.replace('.', '/'));
    }

    ClassTransform transform() {
        if (!enabled) {
            return null;
        }
        return names.isEmpty() ? widened() : widened().andThen(ClassRemapper.of(this::renamed));
    }

    private ClassDesc renamed(ClassDesc type) {
        String name = internalName(type);
        for (String known = name; !known.isEmpty(); known = known.substring(0, Math.max(known.lastIndexOf('$'), 0))) {
            String defined = names.get(known);
            if (defined != null) {
                return ClassDesc.ofDescriptor("L" + defined + name.substring(known.length()) + ";");
            }
        }
        return type;
    }

    private static String internalName(ClassDesc type) {
        return type.descriptorString().substring(1, type.descriptorString().length() - 1);
    }

    private static ClassTransform widened() {
        FieldTransform fields = (field, element) -> {
            if (element instanceof AccessFlags flags) {
                field.withFlags(widened(flags));
            } else {
                field.with(element);
            }
        };
        MethodTransform methods = (method, element) -> {
            if (element instanceof AccessFlags flags) {
                method.withFlags(widened(flags));
            } else {
                method.with(element);
            }
        };
        return (builder, element) -> {
            switch (element) {
                case AccessFlags flags -> builder.withFlags(widened(flags));
                case FieldModel field -> builder.transformField(field, fields);
                case MethodModel method -> builder.transformMethod(method, methods);
                default -> builder.with(element);
            }
        };
    }

    private static int widened(AccessFlags flags) {
        int mask = flags.flagsMask();
        return (mask & ClassFile.ACC_PRIVATE) != 0 ? mask : mask & ~ClassFile.ACC_PROTECTED | ClassFile.ACC_PUBLIC;
    }
}
