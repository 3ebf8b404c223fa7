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
 * and each backward branch of user code calls {@link #check}.
 */
public final class StopCheck {
    private static final ClassDesc SELF = ClassDesc.of(StopCheck.class.getName());

    static volatile boolean requested;

    private StopCheck() { }

    /**
     * Called by woven code. The JVM does not require the exception to be declared; a loop that catches it gets it
     * again.
     */
    public static void check() throws InterruptedException {
        if (requested) {
            throw new InterruptedException("the execution was interrupted");
        }
    }

    /** Adds the checks to a class. */
    static byte[] weave(byte[] bytecodes, ClassLoader loader) {
        // User code may name types that cannot be found. They count as classes, as in a class file's own frames.
        var resolver = ClassHierarchyResolver.ofResourceParsing(loader).orElse(ClassHierarchyResolver.defaultResolver());
        var classFile = ClassFile.of(ClassFile.ClassHierarchyResolverOption.of(resolver));
        return classFile.transformClass(classFile.parse(bytecodes),
            ClassTransform.transformingMethodBodies(CodeTransform.ofStateful(Weaver::new)));
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
            code.invokestatic(SELF, "check", ConstantDescs.MTD_void);
        }
    }
}
