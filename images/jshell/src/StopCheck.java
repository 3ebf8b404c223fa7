package oncebox;

import java.lang.classfile.ClassFile;
import java.lang.classfile.ClassTransform;
import java.lang.classfile.CodeBuilder;
import java.lang.classfile.CodeElement;
import java.lang.classfile.CodeTransform;
import java.lang.classfile.ClassHierarchyResolver;
import java.lang.classfile.Label;
import java.lang.classfile.instruction.BranchInstruction;
import java.lang.classfile.instruction.LabelTarget;
import java.lang.constant.ClassDesc;
import java.lang.constant.ConstantDescs;
import java.util.HashSet;
import java.util.Set;

/**
 * Makes loops that never block interruptible. Java has no way left to stop a thread from outside, so each method
 * and each backward branch of user code looks whether a stop is {@link #requested}. The class is in a package so that
 * user code may have one of this name.
 */
public final class StopCheck {
    private static final ClassDesc SELF = ClassDesc.of(StopCheck.class.getName());

    /** Read by woven code, which calls {@link #check} if it is true. */
    public static volatile boolean requested;

    private StopCheck() { }

    /**
     * Stops user code. The JVM does not require the exception to be declared; a loop that catches it gets it again.
     */
    public static void check() throws InterruptedException {
        if (requested) {
            throw new InterruptedException("the execution was interrupted");
        }
    }

    /** Adds the checks to a class, and changes it in a further way, if there is one. */
    public static byte[] weave(byte[] bytecodes, ClassLoader loader, ClassTransform further) {
        // User code may name types that cannot be found. They count as classes, as in a class file's own frames.
        var resolver = ClassHierarchyResolver.ofResourceParsing(loader).orElse(ClassHierarchyResolver.defaultResolver());
        var classFile = ClassFile.of(ClassFile.ClassHierarchyResolverOption.of(resolver));
        ClassTransform checks = ClassTransform.transformingMethodBodies(CodeTransform.ofStateful(Weaver::new));
        return classFile.transformClass(classFile.parse(bytecodes), further == null ? checks : checks.andThen(further));
    }

    private static final class Weaver implements CodeTransform {
        private final Set<Label> passed = new HashSet<>();

        @Override
        public void atStart(CodeBuilder code) {
            addCheck(code);
        }

        @Override
        public void accept(CodeBuilder code, CodeElement element) {
            switch (element) {
                case LabelTarget target -> passed.add(target.label());
                case BranchInstruction branch when passed.contains(branch.target()) -> addCheck(code);
                default -> { }
            }
            code.with(element);
        }

        private static void addCheck(CodeBuilder code) {
            // Not a call for each check: it would be the top of the stack where the stack overflows.
            code.getstatic(SELF, "requested", ConstantDescs.CD_boolean)
                .ifThen(stop -> stop.invokestatic(SELF, "check", ConstantDescs.MTD_void));
        }
    }
}
