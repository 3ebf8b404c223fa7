//! Java programs: code that `java Main.java` runs. `java_failures.rs` has those that fail, `java_notebooks.rs` those of a
//! notebook.

use serde_json::{Value, json};

use crate::support::{run, run_with, stderr, stdout};

trials![
    a_class_with_main_is_run,
    a_main_without_a_class_is_run,
    a_main_is_found_where_java_finds_it,
    code_that_is_no_source_file_is_snippets,
    declarations_need_no_order,
    every_kind_of_class_works,
    imports_are_those_of_the_program_or_else_the_usual_ones,
    branches_may_meet_at_a_class_of_the_program,
    names_are_those_of_the_program,
    a_class_may_have_any_name,
    standard_input_is_read_in_each_way,
    threads_have_the_names_that_java_gives,
    virtual_threads_and_executors_work,
];

/// Runs a program that must end well.
pub(crate) async fn ok(code: &str) -> Value {
    let answer = run("java", code).await;
    assert_eq!(answer["outcome"]["kind"], "ok", "{answer}");
    answer
}

/// Runs a program that must end well and print nothing on standard error; what it printed.
pub(crate) async fn printed(code: &str) -> String {
    let answer = ok(code).await;
    assert_eq!((stderr(&answer).as_str(), &answer["results"]), ("", &json!([])), "{answer}");
    stdout(&answer)
}

/// A class `Main` with this body of `main`.
pub(crate) fn main_of(body: &str) -> String {
    format!("public class Main {{\n  public static void main(String[] args) throws Exception {{\n{body}\n  }}\n}}")
}

async fn a_class_with_main_is_run() {
    let code = "package some.where;\n\nimport java.util.*;\n\npublic class Main {\n  \
                static final List<Integer> numbers = new ArrayList<>();\n  \
                static class Inner { int value = 3; }\n\n  \
                public static void main(String[] args) {\n    numbers.add(new Inner().value);\n    \
                System.out.println(numbers + \" \" + args.length);\n    System.err.println(\"err\");\n  }\n}\n";
    let answer = ok(code).await;
    assert_eq!(stdout(&answer), "[3] 0\n");
    assert_eq!(stderr(&answer), "err\n");
    assert_eq!(answer["results"], json!([]));
    let code = "class Helper { int value() { return 3; } }\n\
                class Main {\n  public static void main(String[] args) throws Exception {\n    System.out.println(new Helper().value());\n    \
                throw new Exception(\"from main\");\n  }\n}";
    let answer = run("java", code).await;
    assert_eq!(stdout(&answer), "3\n");
    assert_eq!(answer["error"], "java.lang.Exception: from main\n\tat Main.main (line 5)");
}

async fn a_main_without_a_class_is_run() {
    assert_eq!(
        stdout(&ok("String who() { return \"you\"; }\nvoid main() { IO.println(\"hello \" + who()); }").await),
        "hello you\n"
    );
    // Code with statements runs by itself.
    assert_eq!(
        stdout(&ok("void main() { System.out.println(\"main\"); }\nSystem.out.println(\"statement\");").await),
        "statement\n"
    );
}

async fn a_main_is_found_where_java_finds_it() {
    let say = |text: &str| format!("{{ System.out.println(\"{text}\"); }}");
    let main = |text: &str| format!("public static void main(String[] args) {}", say(text));
    for code in [
        // The first type, whatever the others have.
        format!("class First {{ {} }}\npublic class Main {{ {} }}", main("right"), main("wrong")),
        // Else one that may have named the file.
        format!("class Helper {{ }}\nclass Demo {{ {} }}\npublic class App {{ {} }}", main("wrong"), main("right")),
        format!("class Helper {{ }}\nclass Demo {{ {} }}\nclass Main {{ {} }}", main("wrong"), main("right")),
        format!("public class One {{ }}\npublic class Two {{ {} }}\npublic record Three() {{ }}", main("right")),
        format!("class Helper {{ }}\nclass Other {{ {} }}", main("right")),
        // Every form of `main`.
        format!("class Main {{ void main() {} }}", say("right")),
        format!("class Main {{ private Main() {{ }} protected void main(String... args) {} }}", say("right")),
        format!(
            "class Main {{ static void main() {} static void main(String args[]) {} }}",
            say("wrong"),
            say("right")
        ),
        format!("interface Main {{ static void main(String[] args) {} }}", say("right")),
        format!("enum Main {{ A; {} }}", main("right")),
        format!("record Main(int x) {{ {} }}", main("right")),
        format!("class Main extends Base {{ }}\nclass Base {{ {} }}", main("right")),
        format!(
            "#!/usr/bin/env -S java --source 25\n/** main */ package a.b;\n;\npublic class C {{ {} }};",
            main("right")
        ),
    ] {
        assert_eq!(printed(&code).await, "right\n", "{code}");
    }
}

async fn code_that_is_no_source_file_is_snippets() {
    let class = "class Main { public static void main(String[] args) { System.out.println(\"main\"); } }";
    for (code, output, results) in [
        (format!("{class}\nMain.main(null);\nSystem.out.println(\"statement\");"), "main\nstatement\n", json!([])),
        (format!("{class}\n6 * 7"), "", json!(["42"])),
        ("void main() { System.out.println(\"main\"); }\nmain();".to_owned(), "main\n", json!([])),
        ("var x = 5;\nvoid main() { System.out.println(x); }".to_owned(), "5\n", json!([])),
        (format!("{class}\nvoid helper() {{ }}"), "main\n", json!([])),
        ("int main = 41;\nmain + 1".to_owned(), "", json!(["42"])),
        (
            "class Main { private static void main(String[] args) { } int main() { return 42; } }\nnew Main().main()"
                .to_owned(),
            "",
            json!(["42"]),
        ),
    ] {
        let answer = ok(&code).await;
        assert_eq!((stdout(&answer).as_str(), &answer["results"]), (output, &results), "{code}");
    }
}

async fn declarations_need_no_order() {
    let code = r#"
        public class Main {
            static String describe(Shape shape) {
                return switch (shape) {
                    case Circle(double radius) when radius > 1 -> "large circle";
                    case Circle circle -> "circle " + circle.radius();
                    case Square square -> "square " + square.side();
                };
            }
            static boolean even(int n) { return n == 0 || Odd.odd(n - 1); }

            public static void main(String[] args) {
                System.out.println(describe(new Circle(2)) + ", " + describe(new Circle(1)) + ", " + describe(new Square(3)));
                System.out.println(even(10) + " " + new Box<>(new Item("b")).larger(new Item("c")) + " " + Tree.of(1).add(2));
                System.out.println(Op.valueOf("TIMES").apply(6, 7) + " " + LATER);
            }
            static final String LATER = Op.PLUS.name().toLowerCase() + new Item("x");
        }
        class Odd { static boolean odd(int n) { return n != 0 && Main.even(n - 1); } }
        class Box<T extends Item> {
            final T value;
            Box(T value) { this.value = value; }
            T larger(T other) { return value.compareTo(other) > 0 ? value : other; }
        }
        class Item implements Comparable<Item> {
            private final String name;
            Item(String name) { this.name = name; }
            public int compareTo(Item other) { return name.compareTo(other.name); }
            @Override public String toString() { return "<" + name + ">"; }
        }
        abstract class Tree extends Node {
            static Tree of(int n) { return new Leaf(n); }
            abstract int add(int n);
        }
        class Node { int value; }
        class Leaf extends Tree {
            Leaf(int n) { value = n; }
            int add(int n) { return value + n; }
        }
        sealed interface Shape { }
        record Circle(double radius) implements Shape { }
        record Square(double side) implements Shape { }
        enum Op {
            PLUS { int apply(int a, int b) { return a + b; } },
            TIMES { int apply(int a, int b) { return a * b; } };
            abstract int apply(int a, int b);
        }
    "#;
    assert_eq!(printed(code).await, "large circle, circle 1.0, square 3.0\ntrue <c> 3\n42 plus<x>\n");
}

async fn every_kind_of_class_works() {
    let code = r#"
        import java.lang.annotation.*;
        import java.util.*;
        import java.util.function.*;

        @Retention(RetentionPolicy.RUNTIME) @interface Info { String value() default "none"; int[] sizes() default {}; }

        @Info("outer")
        public class Main {
            private int field = 1;
            class Inner { int field = 2; class Deep { String all() { return Main.this.field + " " + Inner.this.field; } } }
            static class Pizza {
                private final int size;
                private Pizza(Builder builder) { size = builder.size; }
                static Builder builder() { return new Builder(); }
                static class Builder {
                    private int size;
                    Builder size(int size) { this.size = size; return this; }
                    Pizza build() { return new Pizza(this); }
                }
            }
            interface Greeter {
                String name();
                default String greet() { return hello() + name(); }
                private String hello() { return "hello "; }
                static Greeter of(String name) { return () -> name; }
            }
            static int made;
            { made++; }
            static { made = 10; }

            public static void main(String[] args) {
                System.out.println(new Main().new Inner().new Deep().all() + " " + Pizza.builder().size(14).build().size + " " + made);
                Greeter anonymous = new Greeter() {
                    final int length = 3;
                    public String name() { return "anonymous" + length; }
                };
                System.out.println(anonymous.greet() + ", " + Greeter.of("lambda").greet());
                record Pair<A, B>(A first, B second) { Pair { Objects.requireNonNull(first); } }
                enum Local { ONE, TWO }
                class Counter { int count = Local.TWO.ordinal(); int next() { return ++count; } }
                System.out.println(new Pair<>(1, "x") + " " + new Counter().next() + " " + Main.class.getAnnotation(Info.class).value());
                var object = new Object() { int hidden = 42; };
                Supplier<Supplier<String>> nested = () -> () -> "text" + object.hidden;
                System.out.println(nested.get().get() + """
                    :
                      block\tä
                    """);
            }
        }
    "#;
    assert_eq!(
        printed(code).await,
        "1 2 14 11\nhello anonymous3, hello lambda\nPair[first=1, second=x] 2 outer\ntext42:\n  block\tä\n\n"
    );
}

async fn imports_are_those_of_the_program_or_else_the_usual_ones() {
    let code = "import module java.base;\nimport static java.lang.Math.*;\nimport java.util.Map.Entry;\n\n\
                class Main { void main() { Entry<String, Double> e = Map.entry(\"k\", max(1, sqrt(4))); IO.println(e); } }";
    assert_eq!(printed(code).await, "k=2.0\n");
    // A class of the program goes before one of the usual packages.
    let own = "class List { public String toString() { return \"own\"; } }\nclass Main { void main() { System.out.println(new List()); } }";
    assert_eq!(printed(own).await, "own\n");
    let without =
        main_of("Map<String, Integer> map = new TreeMap<>(); System.out.println(map + \" \" + Stream.of(1).toList());");
    assert_eq!(printed(&without).await, "{} [1]\n");
    let packaged = format!("package a.b;\n{}", main_of("System.out.println(new ArrayList<>(List.of(1)));"));
    assert_eq!(printed(&packaged).await, "[1]\n");
}

async fn branches_may_meet_at_a_class_of_the_program() {
    let code = "abstract class Animal { abstract String sound(); }\nclass Dog extends Animal { String sound() { return \"woof\"; } }\n\
                class Cat extends Animal { String sound() { return \"meow\"; } }\nclass Main { public static void main(String[] args) {\n\
                for (int i = 0; i < 2; i++) { Animal animal; if (i == 0) animal = new Dog(); else animal = new Cat(); System.out.println(animal.sound()); }\n\
                System.out.println((args.length == 0 ? new Cat() : new Dog()).sound()); } }";
    assert_eq!(printed(code).await, "woof\nmeow\nmeow\n");
}

async fn names_are_those_of_the_program() {
    let code = "package some.where;\n\nclass TooLow extends Exception { TooLow(String text) { super(text); } }\n\n\
                public class Main {\n  static class Inner { }\n  public static void main(String[] args) throws Exception {\n    \
                try { throw new TooLow(\"7\"); } catch (TooLow e) { System.out.println(e + \" \" + e.getStackTrace()[0]); }\n    \
                Runnable r = () -> { }; Object o = new Object() { };\n    \
                System.out.println(new Inner().getClass() + \" \" + o.getClass().getName() + \" \" + Main.class.getPackageName());\n    \
                System.out.println(Class.forName(\"some.where.Main$Inner\").getSimpleName() + \" \" + Main.class.getDeclaredConstructor().getName());\n  }\n}";
    assert_eq!(
        printed(code).await,
        "some.where.TooLow: 7 some.where.Main.main(Main.java:8)\nclass some.where.Main$Inner some.where.Main$1 some.where\n\
         Inner some.where.Main\n"
    );
}

async fn a_class_may_have_any_name() {
    // Also that of a class of the runner.
    let code = "class StopCheck { int n; }\nclass Interpreter { static int count() { int n = 0; while (n < 3) n++; return n; } }\n\
                public class Runner { public static void main(String[] args) { System.out.println(new StopCheck().n + Interpreter.count()); } }";
    assert_eq!(printed(code).await, "3\n");
}

async fn standard_input_is_read_in_each_way() {
    let scanner = "import java.util.Scanner;\n".to_owned()
        + &main_of(
            "var in = new Scanner(System.in); int n = in.nextInt(); in.nextLine(); System.out.println(n + in.nextLine() + in.hasNext());",
        );
    let reader = "import java.io.*;\n".to_owned()
        + &main_of(
            "var in = new BufferedReader(new InputStreamReader(System.in)); System.out.println(in.readLine() + in.readLine() + (in.readLine() != null));",
        );
    let simple = "void main() { IO.println(IO.readln() + IO.readln(\"\") + (IO.readln() != null)); }".to_owned();
    for code in [scanner, reader, simple] {
        let answer = run_with(json!({"language": "java", "code": code, "stdin": "7\nrest ü\n"})).await;
        assert_eq!(stdout(&answer), "7rest üfalse\n", "{answer}");
    }
}

async fn threads_have_the_names_that_java_gives() {
    let code = "import java.util.concurrent.*;\n".to_owned()
        + &main_of(
            "var thread = new Thread(() -> System.out.println(Thread.currentThread().getName()));\n\
             System.out.println(Thread.currentThread().getName() + \" \" + Thread.currentThread().getThreadGroup().getName() + \" \" + Thread.activeCount());\n\
             thread.start(); thread.join();\n\
             var pool = Executors.newFixedThreadPool(1);\n\
             pool.submit(() -> System.out.println(Thread.currentThread().getName())).get(); pool.shutdown();\n\
             new Thread(() -> { try { Thread.sleep(200); } catch (InterruptedException e) { } System.out.println(\"late\"); }).start();\n\
             System.out.println(\"main\");",
        );
    assert_eq!(printed(&code).await, "main main 1\nThread-0\npool-1-thread-1\nmain\nlate\n");
}

async fn virtual_threads_and_executors_work() {
    let code = "import java.util.*;\nimport java.util.concurrent.*;\nimport java.util.stream.*;\n".to_owned()
        + &main_of(
            "try (var executor = Executors.newVirtualThreadPerTaskExecutor()) {\n\
             List<Future<Integer>> squares = new ArrayList<>();\n\
             for (int n = 1; n <= 3; n++) { int of = n; squares.add(executor.submit(() -> { Thread.sleep(10); return of * of; })); }\n\
             for (var square : squares) System.out.println(square.get());\n}\n\
             System.out.println(CompletableFuture.supplyAsync(() -> 40).thenApply(n -> n + 2).get() + \" \" + IntStream.range(0, 100).parallel().sum());\n\
             Thread.ofVirtual().name(\"virtual\").start(() -> System.out.println(Thread.currentThread().getName())).join();",
        );
    assert_eq!(printed(&code).await, "1\n4\n9\n42 4950\nvirtual\n");
}
