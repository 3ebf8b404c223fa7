import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.Stream;

import javax.lang.model.element.Modifier;
import javax.lang.model.type.TypeKind;

import com.sun.source.tree.ArrayTypeTree;
import com.sun.source.tree.ClassTree;
import com.sun.source.tree.CompilationUnitTree;
import com.sun.source.tree.MethodTree;
import com.sun.source.tree.ModifiersTree;
import com.sun.source.tree.PrimitiveTypeTree;
import com.sun.source.tree.Tree;
import com.sun.source.tree.Tree.Kind;
import com.sun.source.tree.VariableTree;
import com.sun.source.util.SourcePositions;
import com.sun.tools.javac.code.Flags;
import com.sun.tools.javac.tree.JCTree.JCClassDecl;
import com.sun.tools.javac.tree.JCTree.JCVariableDecl;

/**
 * The top level of a program: its types or, in a compact source file, the members of its one class. The package prefix
 * is empty or ends with a dot.
 */
record Outline(boolean isCompact, String packagePrefix, int importsStart, List<String> imports,
               List<Declaration> declarations, List<String> launchOrder) {
    /** A declaration at the top level, where it starts in the code, and the same declaration as a snippet. */
    record Declaration(String name, boolean isType, boolean isStatic, int start, String snippet) { }

    private static final Set<String> STRING = Set.of("String", "java.lang.String");

    /**
     * Returns the outline of a program; null if the code is none. A program has only a package, imports, types, methods
     * and fields at its top level, and among them a {@code main} that the {@code java} command can launch. It may have
     * syntax errors within its declarations.
     */
    static Outline of(String code, CompilationUnitTree unit, SourcePositions positions) {
        return new Reader(code, unit, positions).read();
    }

    /** The code with further imports, which move no line. */
    String withImports(String code, List<String> names) {
        String added = String.join("", names.stream().map(name -> "import " + name + ";").toList());
        return new StringBuilder(code).insert(importsStart, added).toString();
    }

    /** The code with all members of the compact source file made static, which moves no line. */
    String withStaticMembers(String code) {
        // Several fields may share one start.
        var starts = new TreeSet<Integer>();
        declarations.stream().filter(member -> !member.isStatic()).forEach(member -> starts.add(member.start()));
        var changed = new StringBuilder(code);
        starts.descendingSet().forEach(start -> changed.insert(start, "static "));
        return changed.toString();
    }

    private static final class Reader {
        private final String code;
        private final CompilationUnitTree unit;
        private final SourcePositions positions;

        Reader(String code, CompilationUnitTree unit, SourcePositions positions) {
            this.code = code;
            this.unit = unit;
            this.positions = positions;
        }

        Outline read() {
            var types = new ArrayList<ClassTree>();
            for (Tree tree : unit.getTypeDecls()) {
                if (tree instanceof ClassTree type) {
                    types.add(type);
                } else if (tree.getKind() != Kind.EMPTY_STATEMENT && !isStrayBrace(tree)) {
                    return null;
                }
            }
            if (types.stream().noneMatch(Reader::hasMain)) {
                return null;
            }
            ClassTree implicit = types.stream().filter(Reader::isImplicit).findFirst().orElse(null);
            if (implicit != null && !implicit.getMembers().stream().allMatch(this::isMember)) {
                return null;
            }
            String prefix = unit.getPackage() == null ? "" : unit.getPackageName() + ".";
            return new Outline(implicit != null, prefix, unit.getPackage() == null ? 0 : end(unit.getPackage()),
                unit.getImports().stream().map(this::text).toList(),
                declarations(implicit == null ? types : implicit.getMembers()),
                launchOrder(types).stream().map(prefix::concat).toList());
        }

        /**
         * Whether the class of a compact source file, which is named {@code Main}, may contain this. The parser takes a
         * call for a method without a type.
         */
        private boolean isMember(Tree tree) {
            return switch (tree) {
                case MethodTree method -> method.getReturnType() != null;
                case JCVariableDecl field -> !field.declaredUsingVar();
                case ClassTree type -> !type.getSimpleName().contentEquals("Main");
                default -> isStrayBrace(tree);
            };
        }

        /** Whether this is a closing brace too many. */
        private boolean isStrayBrace(Tree tree) {
            int start = start(tree);
            return tree.getKind() == Kind.ERRONEOUS && start < code.length() && code.charAt(start) == '}';
        }

        private static boolean isImplicit(ClassTree type) {
            return (((JCClassDecl) type).mods.flags & Flags.IMPLICIT_CLASS) != 0;
        }

        private static boolean hasMain(ClassTree type) {
            return type.getMembers().stream().anyMatch(member -> member instanceof MethodTree method && isMain(method));
        }

        private static boolean isMain(MethodTree method) {
            return method.getName().contentEquals("main")
                && method.getReturnType() instanceof PrimitiveTypeTree type && type.getPrimitiveTypeKind() == TypeKind.VOID
                && !has(method.getModifiers(), Modifier.PRIVATE)
                && method.getParameters().size() <= 1
                && method.getParameters().stream().allMatch(Reader::takesArguments);
        }

        private static boolean takesArguments(VariableTree parameter) {
            return parameter.getType() instanceof ArrayTypeTree array && STRING.contains(array.getType().toString());
        }

        private static boolean has(ModifiersTree modifiers, Modifier modifier) {
            return modifiers.getFlags().contains(modifier);
        }

        /**
         * The types in the order in which a {@code main} is looked for: the first type, then one that may have named the
         * file, then the others.
         */
        private static Set<String> launchOrder(List<ClassTree> types) {
            var names = new LinkedHashSet<String>();
            Stream.of(
                types.stream().limit(1),
                types.stream().filter(type -> has(type.getModifiers(), Modifier.PUBLIC)),
                types.stream().filter(type -> type.getSimpleName().contentEquals("Main")),
                types.stream()
            ).flatMap(some -> some).forEach(type -> names.add(type.getSimpleName().toString()));
            return names;
        }

        private List<Declaration> declarations(List<? extends Tree> trees) {
            List<ClassTree> types = trees.stream().filter(ClassTree.class::isInstance).map(ClassTree.class::cast).toList();
            var declarations = new ArrayList<Declaration>();
            for (Tree tree : trees) {
                switch (tree) {
                    case ClassTree type ->
                        declarations.add(declaration(tree, type.getSimpleName(), true, type.getModifiers(), snippet(type, types)));
                    case MethodTree method ->
                        declarations.add(declaration(tree, method.getName(), false, method.getModifiers(), text(tree)));
                    // Without the value, which the program has computed.
                    case VariableTree field ->
                        declarations.add(declaration(tree, field.getName(), false, field.getModifiers(), field.getType() + " " + field.getName() + ";"));
                    default -> { } // a syntax error
                }
            }
            return declarations;
        }

        private Declaration declaration(Tree tree, CharSequence name, boolean isType, ModifiersTree modifiers, String snippet) {
            return new Declaration(name.toString(), isType, has(modifiers, Modifier.STATIC), start(tree), snippet);
        }

        /** The text of a type. One that is sealed names its subtypes, of which a snippet does not know otherwise. */
        private String snippet(ClassTree type, List<ClassTree> types) {
            String subtypes = types.stream().filter(other -> extendsOrImplements(other, type.getSimpleName()))
                .map(ClassTree::getSimpleName).collect(Collectors.joining(", "));
            if (!has(type.getModifiers(), Modifier.SEALED) || !type.getPermitsClause().isEmpty() || subtypes.isEmpty()) {
                return text(type);
            }
            int headEnd = Stream.of(List.of(type.getModifiers()), type.getTypeParameters(), type.getImplementsClause())
                .flatMap(List::stream).mapToInt(this::end).max().getAsInt();
            headEnd = type.getExtendsClause() == null ? headEnd : Math.max(headEnd, end(type.getExtendsClause()));
            int body = code.indexOf('{', headEnd);
            return code.substring(start(type), body) + "permits " + subtypes + " " + code.substring(body, end(type));
        }

        private static boolean extendsOrImplements(ClassTree type, CharSequence name) {
            return Stream.concat(Stream.ofNullable(type.getExtendsClause()), type.getImplementsClause().stream())
                .anyMatch(named -> named.toString().replaceFirst("<.*", "").contentEquals(name));
        }

        private String text(Tree tree) {
            return code.substring(start(tree), end(tree));
        }

        private int start(Tree tree) {
            return (int) positions.getStartPosition(unit, tree);
        }

        private int end(Tree tree) {
            return (int) positions.getEndPosition(unit, tree);
        }
    }
}
