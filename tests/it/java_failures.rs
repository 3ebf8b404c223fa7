//! Java programs that exit, throw exceptions or do not compile.

use serde_json::json;

use crate::java_programs::{main_of, ok, printed};
use crate::support::{run, stderr, stdout};

trials![
    an_exit_runs_shutdown_hooks_and_waits_for_no_thread,
    an_exception_of_main_is_the_programs_failure,
    handlers_of_uncaught_exceptions_are_called,
    a_printed_stack_trace_has_the_programs_lines_and_nothing_of_the_runner,
    a_stack_that_overflows_ends_in_the_programs_method,
    all_compile_errors_are_reported_as_javac_does,
    syntax_errors_are_reported_as_javac_does,
];

async fn an_exit_runs_shutdown_hooks_and_waits_for_no_thread() {
    let code = main_of(
        "Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println(\"hook\")));\n\
         new Thread(() -> { try { Thread.sleep(60_000); } catch (InterruptedException e) { } }).start();\n\
         try { System.out.println(\"main\"); EXIT } finally { System.out.println(\"finally\"); }",
    );
    let exit = run("java", &code.replace("EXIT", "if (args.length == 0) System.exit(3);")).await;
    assert_eq!((&exit["outcome"]["kind"], stdout(&exit).as_str()), (&json!("exit"), "main\nhook\n"), "{exit}");
    assert_eq!(exit["error"], "the code exited with status 3");
    let end = code.replace("EXIT", "").replace("60_000", "100");
    assert_eq!(printed(&end).await, "main\nfinally\nhook\n");
}

async fn an_exception_of_main_is_the_programs_failure() {
    let code = "class Own extends Exception { Own(String text, Throwable cause) { super(text, cause); } }\n\npublic class Main {\n  \
                static void work(int n) throws Own {\n    try { Integer.parseInt(\"x\"); } catch (NumberFormatException e) {\n      \
                throw new Own(\"outer\", e);\n    }\n  }\n  public static void main(String[] args) throws Own {\n    \
                Runnable last = () -> System.out.println(\"before\");\n    last.run();\n    work(1);\n  }\n}";
    let answer = run("java", code).await;
    assert_eq!(
        (&answer["exception"]["name"], &answer["exception"]["value"]),
        (&json!("Own"), &json!("outer")),
        "{answer}"
    );
    assert_eq!((stdout(&answer).as_str(), stderr(&answer).as_str()), ("before\n", ""));
    let error = answer["error"].as_str().expect("text");
    assert!(error.starts_with("Own: outer\n\tat Main.work (line 6)\n\tat Main.main (line 12)\nCaused by: "), "{error}");
    assert!(error.ends_with("\tat Main.work (line 5)\n\tat Main.main (line 12)"), "{error}");
    for (code, name) in [
        (
            "class Main { static int x = 1 / 0; public static void main(String[] args) { } }",
            "java.lang.ExceptionInInitializerError",
        ),
        (
            "class Main { Main() { throw new IllegalStateException(); } void main() { } }",
            "java.lang.IllegalStateException",
        ),
        ("class Main { Main(int x) { } void main() { } }", "java.lang.NoSuchMethodException"),
    ] {
        assert_eq!(run("java", code).await["exception"]["name"], name, "{code}");
    }
}

async fn handlers_of_uncaught_exceptions_are_called() {
    let handled = main_of(
        "Thread.setDefaultUncaughtExceptionHandler((t, e) -> System.out.println(t.getName() + \" \" + e.getMessage()));\n\
         var thread = new Thread(() -> { throw new IllegalStateException(\"other\"); }); thread.start(); thread.join();\n\
         throw new IllegalStateException(\"own\");",
    );
    let answer = run("java", &handled).await;
    assert_eq!((stdout(&answer).as_str(), stderr(&answer).as_str()), ("Thread-0 other\nmain own\n", ""), "{answer}");
    assert_eq!(answer["exception"]["value"], "own");
    let printed = main_of(
        "var thread = new Thread(() -> { throw new IllegalStateException(\"no\"); }); thread.start(); thread.join();",
    );
    let expected = "Exception in thread \"Thread-0\" java.lang.IllegalStateException: no\n\tat Main.lambda$main$0(Main.java:3)\n\
                    \tat java.base/java.lang.Thread.run(";
    let answer = ok(&printed).await;
    assert!(stderr(&answer).starts_with(expected), "{answer}");
}

async fn a_printed_stack_trace_has_the_programs_lines_and_nothing_of_the_runner() {
    let code = "public class Main {\n  static void fail() { throw new IllegalStateException(\"no\"); }\n\n  \
                public static void main(String[] args) {\n    try {\n      fail();\n    } catch (IllegalStateException e) {\n      \
                e.printStackTrace();\n    }\n  }\n}";
    let trace = stderr(&ok(code).await);
    let lines: Vec<_> = trace.lines().collect();
    assert_eq!(
        lines[..3],
        ["java.lang.IllegalStateException: no", "\tat Main.fail(Main.java:2)", "\tat Main.main(Main.java:6)"]
    );
    assert!(lines[3..].iter().all(|line| line.starts_with("\tat java.base/java.lang.Thread.")), "{trace}");
}

async fn a_stack_that_overflows_ends_in_the_programs_method() {
    let code = "public class Main {\n  static int depth(int n) { return depth(n + 1) + 1; }\n  public static void main(String[] args) {\n    \
                try { depth(0); } catch (StackOverflowError e) { System.out.println(e.getStackTrace()[0]); }\n    depth(0);\n  }\n}";
    let answer = run("java", code).await;
    assert_eq!(stdout(&answer), "Main.depth(Main.java:2)\n");
    assert_eq!(answer["exception"]["name"], "java.lang.StackOverflowError");
}

async fn all_compile_errors_are_reported_as_javac_does() {
    let code = "import java.util.*;\n\nclass Helper {\n\tint twice(int n) {\n\t\treturn \"two\" * n;\n\t}\n}\n\npublic class Main {\n  \
                public static void main(String[] args) {\n    System.out.println(\"never\");\n    int x = unknown;\n    \
                List<String> list = List.of(1);\n  }\n}";
    let answer = run("java", code).await;
    let error = "line 5: error: bad operand types for binary operator '*'\n\t\treturn \"two\" * n;\n\t\t             ^\n  \
                 first type:  String\n  second type: int\n\
                 line 12: error: cannot find symbol\n    int x = unknown;\n            ^\n  symbol:   variable unknown\n  location: class Main\n\
                 line 13: error: incompatible types: inference variable E has incompatible bounds\n    \
                 List<String> list = List.of(1);\n                               ^\n    equality constraints: String\n    \
                 lower bounds: Integer\n  where E is a type-variable:\n    E extends Object declared in method <E>of(E)";
    assert_eq!(answer["error"], error);
    assert_eq!((&answer["exception"]["name"], stdout(&answer).as_str()), (&json!("CompileError"), ""));
    let value = "bad operand types for binary operator '*'\n  first type:  String\n  second type: int";
    assert_eq!(answer["exception"]["value"], value);
    // Errors that the compiler looks for later.
    let flow = "sealed interface S { }\nrecord X() implements S { }\nrecord Y() implements S { }\n\
                class Main {\n int f(boolean b) { if (b) return 1; }\n int g(S s) { return switch (s) { case X x -> 1; }; }\n \
                void main() { throw new Exception(); }\n}";
    let answer = run("java", flow).await;
    let error = answer["error"].as_str().expect("text");
    for line in [
        "line 5: error: missing return statement",
        "line 6: error: the switch expression does not cover all possible input values",
        "line 7: error: unreported exception Exception",
    ] {
        assert!(error.contains(line), "{error}");
    }
    for package in ["org.apache.commons.lang3", "com.google.gson"] {
        let answer = run("java", &format!("import {package}.*;\nclass Main {{ void main() {{ }} }}")).await;
        assert_eq!(answer["exception"]["value"], format!("package {package} does not exist"));
    }
}

async fn syntax_errors_are_reported_as_javac_does() {
    let code = "public class Main {\n  public static void main(String[] args) {\n    System.out.println(\"a\")\n    int x = (1;\n  }\n";
    let error = "line 3: error: ';' expected\n    System.out.println(\"a\")\n                           ^\n\
                 line 4: error: ')' expected\n    int x = (1;\n              ^\n\
                 line 5: error: reached end of file while parsing\n  }\n   ^";
    let answer = run("java", code).await;
    assert_eq!((&answer["error"], &answer["exception"]["value"]), (&json!(error), &json!("';' expected")));
    let brace = format!("{}\n}}", main_of("System.out.println(1);"));
    let answer = run("java", &brace).await;
    assert!(
        answer["error"].as_str().is_some_and(|text| text.starts_with("line 6: error: class, interface, ")),
        "{answer}"
    );
    assert_eq!(stdout(&answer), "");
}
