import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.net.URI;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.regex.Pattern;

import javax.lang.model.SourceVersion;
import javax.tools.Diagnostic;
import javax.tools.DiagnosticListener;
import javax.tools.FileObject;
import javax.tools.ForwardingJavaFileManager;
import javax.tools.JavaFileManager;
import javax.tools.JavaFileObject;
import javax.tools.SimpleJavaFileObject;
import javax.tools.ToolProvider;

import com.sun.source.tree.CompilationUnitTree;
import com.sun.source.util.JavacTask;
import com.sun.source.util.Trees;
import com.sun.tools.javac.api.BasicJavacTask;
import com.sun.tools.javac.api.ClientCodeWrapper.DiagnosticSourceUnwrapper;
import com.sun.tools.javac.api.JavacTaskPool;
import com.sun.tools.javac.code.ClassFinder;
import com.sun.tools.javac.code.Symbol.ClassSymbol;
import com.sun.tools.javac.code.Symbol.PackageSymbol;
import com.sun.tools.javac.code.Symtab;
import com.sun.tools.javac.tree.JCTree.JCCompilationUnit;
import com.sun.tools.javac.util.Context;
import com.sun.tools.javac.util.JCDiagnostic;
import com.sun.tools.javac.util.Log;

/** Compiles programs in memory with the JDK's compiler, which keeps what it has read of the JDK. */
final class ProgramCompiler {
    private static final String FILE = "Main.java";
    private static final List<String> OPTIONS = List.of("-proc:none", "-nowarn");
    private static final Pattern MAIN = Pattern.compile("\\bmain\\b");

    private final JavacTaskPool pool = new JavacTaskPool(1);
    /** One for all: parts of the compiler that are kept also keep the file manager. */
    private final Classes classes = new Classes(ToolProvider.getSystemJavaCompiler().getStandardFileManager(null, null, null));
    private final List<String> imports;

    /** {@code imports} are what a program that does not compile without them may lack. */
    ProgramCompiler(List<String> imports) {
        this.imports = imports;
    }

    /** Compiles the code; null if it is not a program. */
    Program compile(String code) throws IOException {
        if (!MAIN.matcher(code).find()) {
            return null;
        }
        Program program = compileAsSent(code.startsWith("#!") ? "//" + code.substring(2) : code);
        if (program == null || program.errors().stream().allMatch(error -> error.missing() == null)) {
            return program;
        }
        Program completed = compileAsSent(program.outline().withImports(program.code(), imports));
        return completed != null && completed.errors().isEmpty() ? completed : program;
    }

    /** Compiles the program of a compact source file with static members only; null if this is not possible. */
    Program withStaticMembers(Program program) throws IOException {
        Program changed = compile(program.outline().withStaticMembers(program.code()));
        return changed != null && changed.errors().isEmpty() ? changed : null;
    }

    private Program compileAsSent(String code) {
        var errors = new Errors();
        classes.take(); // what a crash has left
        return pool.getTask(null, classes, errors, OPTIONS, null, List.of(new Code(code)), task -> {
            errors.context = ((BasicJavacTask) task).getContext();
            try {
                CompilationUnitTree unit = task.parse().iterator().next();
                Program program = compile(task, unit, code, errors.found);
                forget(((JCCompilationUnit) unit).packge, errors.context);
                return program;
            } catch (IOException impossible) {
                throw new IllegalStateException(impossible); // all is in memory
            }
        });
    }

    private Program compile(JavacTask task, CompilationUnitTree unit, String code, List<Program.CompileError> errors) throws IOException {
        Outline outline = Outline.of(code, unit, Trees.instance(task).getSourcePositions());
        if (outline == null) {
            return null;
        }
        if (errors.isEmpty()) {
            task.generate();
        }
        return new Program(code, outline, classes.take(), errors);
    }

    /** Forgets the classes of a package: the pool itself finds no nested classes once their code has been generated. */
    private static void forget(PackageSymbol symbol, Context context) {
        if (symbol == null) {
            return; // only parsed
        }
        Symtab symbols = Symtab.instance(context);
        for (ClassSymbol type : symbols.getAllClasses()) {
            if (type.packge() == symbol) {
                symbols.removeClass(symbol.modle, type.flatName());
            }
        }
        symbol.members_field = null;
        symbol.completer = ClassFinder.instance(context).getCompleter();
    }

    private static final class Code extends SimpleJavaFileObject {
        private final String code;

        Code(String code) {
            super(URI.create("string:///" + FILE), Kind.SOURCE);
            this.code = code;
        }

        @Override
        public String getName() {
            return FILE;
        }

        /** A source file that is launched may have the name of none of its types. */
        @Override
        public boolean isNameCompatible(String simpleName, Kind kind) {
            return kind == Kind.SOURCE && SourceVersion.isIdentifier(simpleName);
        }

        @Override
        public CharSequence getCharContent(boolean ignoreEncodingErrors) {
            return code;
        }
    }

    private static final class Classes extends ForwardingJavaFileManager<JavaFileManager> {
        private final Map<String, ByteArrayOutputStream> written = new HashMap<>();

        Classes(JavaFileManager files) {
            super(files);
        }

        /** Returns what has been compiled, by binary names, and forgets it. */
        Map<String, byte[]> take() {
            var bytecodes = new HashMap<String, byte[]>();
            written.forEach((name, bytes) -> bytecodes.put(name, bytes.toByteArray()));
            written.clear();
            return bytecodes;
        }

        @Override
        public JavaFileObject getJavaFileForOutput(Location location, String name, JavaFileObject.Kind kind, FileObject sibling) {
            return new SimpleJavaFileObject(URI.create("memory:///" + name.replace('.', '/') + kind.extension), kind) {
                @Override
                public OutputStream openOutputStream() {
                    var bytes = new ByteArrayOutputStream();
                    written.put(name, bytes);
                    return bytes;
                }
            };
        }

        @Override
        public boolean isSameFile(FileObject one, FileObject other) {
            return one == other;
        }
    }

    /** Formats errors in the way of `javac`, which names types as the code does. The compiler's public interface does not. */
    private static final class Errors implements DiagnosticListener<JavaFileObject> {
        private final List<Program.CompileError> found = new ArrayList<>();
        private Context context;

        @Override
        public void report(Diagnostic<? extends JavaFileObject> reported) {
            if (reported.getKind() != Diagnostic.Kind.ERROR) {
                return;
            }
            JCDiagnostic error = ((DiagnosticSourceUnwrapper) reported).d;
            var formatter = Log.instance(context).getDiagnosticFormatter();
            String text = formatter.format(error, Locale.ROOT).replaceFirst("^" + Pattern.quote(FILE + ":"), "line ");
            found.add(new Program.CompileError(text, formatter.formatMessage(error, Locale.ROOT), missing(error)));
        }

        private static String missing(JCDiagnostic error) {
            boolean isMissing = error.getCode().startsWith("compiler.err.cant.resolve") && error.getArgs().length > 1;
            return isMissing ? String.valueOf(error.getArgs()[1]) : null;
        }
    }
}
