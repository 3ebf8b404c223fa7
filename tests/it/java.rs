//! Features of Java through JShell: snippets, their compile errors and stack traces. `java_programs.rs` has whole programs.

use serde_json::{Value, json};

use crate::support::{run, run_with, stderr, stdout};

trials![
    several_snippets_may_share_a_line,
    a_last_expression_needs_no_semicolon,
    imports_work_and_the_usual_ones_are_there,
    methods_may_come_in_any_order,
    records_enums_and_sealed_types_work,
    classes_and_interfaces_work,
    lambdas_and_generics_work,
    values_are_printed_as_jshell_does,
    loops_and_conditions_need_no_class,
    a_checked_exception_needs_no_catch,
    a_stack_trace_has_the_users_lines,
    causes_are_in_the_stack_trace,
    a_compile_error_names_its_line,
    a_missing_package_is_the_compilers_own_error,
    threads_end_before_the_run_does,
    an_exception_in_a_thread_is_printed,
    standard_input_can_be_scanned,
    memory_that_is_not_there_is_named,
];

async fn ok(code: &str) -> Value {
    let answer = run("java", code).await;
    assert_eq!(answer["outcome"]["kind"], "ok", "{answer}");
    answer
}

async fn value(code: &str) -> String {
    ok(code).await["results"][0].as_str().expect("a value").to_owned()
}

async fn several_snippets_may_share_a_line() {
    let answer = ok("int x = 5; int y = x * 2; System.out.println(\"y is \" + y); y + 1").await;
    assert_eq!(stdout(&answer), "y is 10\n");
    assert_eq!(answer["results"], json!(["11"]));
}

async fn a_last_expression_needs_no_semicolon() {
    for code in ["20 + 1", "20 + 1;", "1;\n20 + 1 // the last", "var x = 21; x"] {
        assert_eq!(ok(code).await["results"], json!(["21"]), "{code}");
    }
}

async fn imports_work_and_the_usual_ones_are_there() {
    assert_eq!(value("import java.time.*;\nLocalDate.of(2024, 1, 31).plusMonths(1)").await, "2024-02-29");
    let code = "import static java.lang.Math.*;\nMap<String, Integer> counts = new TreeMap<>();\n\
                for (String word : \"b a b\".split(\" \")) counts.merge(word, 1, Integer::sum);\n\
                counts + \" \" + max(1, 2) + \" \" + Stream.of(1, 2).map(n -> n * n).collect(Collectors.toList())";
    assert_eq!(value(code).await, "\"{a=1, b=2} 2 [1, 4]\"");
}

async fn methods_may_come_in_any_order() {
    assert_eq!(
        value("int outer(int n) { return inner(n) + 1; }\nint inner(int n) { return 2 * n; }\nouter(5)").await,
        "11"
    );
    assert_eq!(value("<T> T same(T value) { return value; }\nint fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }\nsame(fib(10))").await, "55");
}

async fn records_enums_and_sealed_types_work() {
    let code = "sealed interface Tree permits Leaf, Node {}\nrecord Leaf(int value) implements Tree {}\n\
                record Node(Tree left, Tree right) implements Tree {}\nenum Way { UP, DOWN }\n\
                int sum(Tree tree) {\n  return switch (tree) {\n    case Leaf(int value) -> value;\n    \
                case Node(Tree left, Tree right) -> sum(left) + sum(right);\n  };\n}\n\
                var tree = new Node(new Leaf(1), new Leaf(2));\ntree + \" \" + sum(tree) + \" \" + Way.valueOf(\"DOWN\").ordinal()";
    assert_eq!(value(code).await, "\"Node[left=Leaf[value=1], right=Leaf[value=2]] 3 1\"");
}

async fn classes_and_interfaces_work() {
    let code = "interface Shape { double area(); default String say() { return \"area \" + area(); } }\n\
                abstract class Named implements Shape { protected final String name; Named(String name) { this.name = name; } }\n\
                class Square extends Named {\n  private final double side;\n  Square(double side) { super(\"square\"); this.side = side; }\n  \
                @Override public double area() { return side * side; }\n  static Square unit() { return new Square(1); }\n  \
                @Override public String toString() { return name + \", \" + say(); }\n}\n\
                System.out.println(Square.unit());\nnew Square(2)";
    let answer = ok(code).await;
    assert_eq!(stdout(&answer), "square, area 1.0\n");
    assert_eq!(answer["results"], json!(["square, area 4.0"]));
}

async fn lambdas_and_generics_work() {
    let code = "Function<Integer, Function<Integer, Integer>> add = a -> b -> a + b;\nSupplier<String> text = () -> \"t\";\n\
                record Pair<A, B>(A first, B second) {}\nnew Pair<>(add.apply(1).apply(2), text.get())";
    assert_eq!(value(code).await, "Pair[first=3, second=t]");
}

async fn values_are_printed_as_jshell_does() {
    let values = [
        ("\"text \\\"ü\\\"\"", "\"text \\\"ü\\\"\""),
        ("'c'", "'c'"),
        ("1.0 / 3", "0.3333333333333333"),
        ("new int[] {1, 2}", "int[2] { 1, 2 }"),
        ("List.of(\"a\")", "[a]"),
        ("(Object) null", "null"),
    ];
    for (code, printed) in values {
        assert_eq!(value(code).await, printed);
    }
    assert_eq!(ok("int x = 7").await["results"], json!([]));
}

async fn loops_and_conditions_need_no_class() {
    let code = "for (int i = 0; i < 3; i++) {\n  if (i == 1) continue;\n  System.out.print(i);\n}\nSystem.out.println();\n\
                if (false) System.out.println(\"then\"); else System.out.println(\"else\");\n\
                switch (3) { case 3 -> System.out.println(\"three\"); default -> {} }\n\
                try { Integer.parseInt(\"x\"); } catch (NumberFormatException e) { System.out.println(e.getMessage()); }";
    assert_eq!(stdout(&ok(code).await), "02\nelse\nthree\nFor input string: \"x\"\n");
}

async fn a_checked_exception_needs_no_catch() {
    let answer = run("java", "Files.readString(Path.of(\"/nonexistent\"))").await;
    assert_eq!(answer["exception"]["name"], "java.nio.file.NoSuchFileException");
    assert_eq!(answer["exception"]["value"], "/nonexistent");
}

async fn a_stack_trace_has_the_users_lines() {
    let code = "class Counter {\n  void down(int n) {\n    if (n == 0) throw new IllegalStateException(\"zwei\\nZeilen ü\");\n    down(n - 1);\n  }\n}\n\n\
                void start() { new Counter().down(1); }\nstart();";
    let answer = run("java", code).await;
    let trace = "java.lang.IllegalStateException: zwei\nZeilen ü\n\tat Counter.down (line 3)\n\tat Counter.down (line 4)\n\tat start (line 8)\n\tat line 9";
    assert_eq!(answer["error"], trace);
    assert_eq!(answer["exception"]["value"], "zwei\nZeilen ü");
    assert_eq!(answer["outcome"]["message"], "java.lang.IllegalStateException: zwei");
}

async fn causes_are_in_the_stack_trace() {
    let code = "class Own extends RuntimeException { Own(String text, Throwable cause) { super(text, cause); } }\n\
                try {\n  Object o = List.of(1).get(5);\n} catch (Exception e) {\n  throw new Own(\"outer\", e);\n}";
    let answer = run("java", code).await;
    assert_eq!(answer["exception"]["name"], "Own");
    let error = answer["error"].as_str().expect("text");
    assert!(error.starts_with("Own: outer\n\tat line 5\nCaused by: java.lang.IndexOutOfBoundsException: "), "{error}");
    assert!(error.ends_with("\tat line 3"), "{error}");
}

async fn a_compile_error_names_its_line() {
    let answer = run("java", "int x = 1;\n\nString s = x + 1;").await;
    let error = "line 3: error: incompatible types: int cannot be converted to java.lang.String\nString s = x + 1;\n             ^";
    assert_eq!(answer["exception"]["name"], "CompileError");
    assert_eq!(answer["error"], error);
    let answer = run("java", "System.out.println(\"a\")\nSystem.out.println(\"b\")").await;
    assert_eq!(stdout(&answer), "");
    assert!(answer["error"].as_str().is_some_and(|text| text.starts_with("line 1: error: ';' expected\n")), "{answer}");
}

async fn a_missing_package_is_the_compilers_own_error() {
    // Not even the library that the runner uses.
    for package in ["org.apache.commons.lang3", "com.google.gson"] {
        let answer = run("java", &format!("import {package}.*;")).await;
        assert_eq!(answer["exception"]["value"], format!("package {package} does not exist"));
    }
}

async fn threads_end_before_the_run_does() {
    let code = "var go = new CountDownLatch(1);\n\
                new Thread(() -> {\n  try { go.await(); Thread.sleep(300); } catch (InterruptedException e) {}\n  \
                System.out.println(\"later\");\n}).start();\n\
                var pool = Executors.newFixedThreadPool(2); var sum = pool.submit(() -> 40 + 2);\n\
                System.out.println(sum.get()); pool.shutdown(); System.out.println(\"now\"); go.countDown();";
    assert_eq!(stdout(&ok(code).await), "42\nnow\nlater\n");
}

async fn an_exception_in_a_thread_is_printed() {
    let code = "var thread = new Thread(() -> { throw new RuntimeException(\"in a thread\"); });\nthread.setName(\"other\");\n\
                thread.start();\nthread.join();";
    let expected = "Exception in thread \"other\" java.lang.RuntimeException: in a thread\n\tat lambda (line 1)\n";
    assert_eq!(stderr(&ok(code).await), expected);
}

async fn standard_input_can_be_scanned() {
    let code = "var in = new Scanner(System.in); int n = in.nextInt(); in.nextLine(); n + \" \" + in.nextLine()";
    let answer = run_with(json!({"language": "java", "code": code, "stdin": "7\nrest ü"})).await;
    assert_eq!(answer["results"], json!(["\"7 rest ü\""]));
}

async fn memory_that_is_not_there_is_named() {
    let answer = run("java", "var all = new ArrayList<byte[]>();\nwhile (true) all.add(new byte[10_000_000]);").await;
    assert_eq!(answer["outcome"]["kind"], "out_of_memory");
    assert_eq!(answer["exception"]["name"], "java.lang.OutOfMemoryError");
}
