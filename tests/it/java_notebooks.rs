//! Java programs in a notebook: later code uses what they have declared.

use reqwest::Method;
use serde_json::{Value, json};

use crate::e2b::{INTERPRETER, Sandbox};
use crate::java_programs::main_of;

trials![
    what_a_program_declares_stays_in_a_notebook,
    later_code_of_a_notebook_can_redefine_what_a_program_declared,
    a_program_in_a_notebook_can_use_earlier_code,
    a_compact_source_file_stays_in_a_notebook,
    a_program_in_a_notebook_can_be_interrupted,
];

/// A context of Java that keeps what is defined.
struct Notebook(Sandbox);

impl Notebook {
    async fn new() -> Self {
        Self(Sandbox::create(json!({"templateID": "java", "timeout": 300})).await)
    }

    async fn lines(&self, code: &str) -> Vec<Value> {
        self.0.execute(&json!({"code": code, "language": "java"})).await
    }

    /// Runs code that must end well; what it printed, and its value.
    async fn run(&self, code: &str) -> String {
        let lines = self.lines(code).await;
        let text = |kind: &str| {
            lines
                .iter()
                .filter(|line| line["type"] == kind)
                .filter_map(|line| line["text"].as_str())
                .collect::<String>()
        };
        assert!(
            lines.iter().all(|line| line["type"] != "error" && line["type"] != "stderr"),
            "{code}: {}",
            json!(lines)
        );
        text("stdout") + &text("result")
    }

    /// Runs code that must fail; the name and the message of the error.
    async fn error(&self, code: &str) -> (String, String) {
        let lines = self.lines(code).await;
        let error =
            lines.iter().find(|line| line["type"] == "error").unwrap_or_else(|| panic!("{code}: {}", json!(lines)));
        let text = |member: &str| error[member].as_str().expect("text").to_owned();
        (text("name"), text("value"))
    }
}

async fn what_a_program_declares_stays_in_a_notebook() {
    let notebook = Notebook::new().await;
    let program = "package a.b;\nimport java.time.*;\n\npublic class Main {\n  static int runs;\n  static class Inner { int value = 3; }\n  \
                   public static void main(String[] args) { runs++; System.out.println(new Low(\"x\")); }\n}\n\
                   sealed interface Shape { }\nrecord Circle(int r) implements Shape { }\nrecord Square(int s) implements Shape { }\n\
                   abstract class Animal { protected String name = \"animal\"; abstract String sound(); }\n\
                   class Low extends RuntimeException { Low(String text) { super(text); } }";
    assert_eq!(notebook.run(program).await, "a.b.Low: x\n");
    // The classes are the program's own, with their state.
    assert_eq!(notebook.run("Main.runs++; Main.runs + new Main.Inner().value").await, "5");
    let area = "Shape shape = new Circle(2);\nswitch (shape) { case Circle c -> \"circle \" + c.r(); case Square s -> \"square\"; }";
    assert_eq!(notebook.run(area).await, "circle 2");
    let cow =
        "class Cow extends Animal { String sound() { return name + \" moo\"; } }\nAnimal cow = new Cow(); cow.sound()";
    assert_eq!(notebook.run(cow).await, "animal moo");
    assert_eq!(notebook.run("LocalDate.of(2024, 1, 31)").await, "2024-01-31");
    assert_eq!(notebook.run("Main.main(null); Main.runs").await, "a.b.Low: x\n3");
    assert_eq!(notebook.error("throw new Low(\"late\");").await, ("Low".to_owned(), "late".to_owned()));
    notebook.0.kill().await;
}

async fn later_code_of_a_notebook_can_redefine_what_a_program_declared() {
    let notebook = Notebook::new().await;
    let program = |n: u8| {
        format!(
            "class Helper {{ int value = {n}; }}\npublic class Main {{ static int last;\n\
             public static void main(String[] args) {{ last = new Helper().value; System.out.println(last); }} }}"
        )
    };
    for n in 1..4 {
        assert_eq!(notebook.run(&program(n)).await, format!("{n}\n"));
    }
    assert_eq!(notebook.run("Main.last + new Helper().value").await, "6");
    assert_eq!(notebook.run(&program(7)).await, "7\n");
    assert_eq!(
        notebook.run("int doubled(Helper helper) { return 2 * helper.value; }\ndoubled(new Helper())").await,
        "14"
    );
    assert_eq!(notebook.run("record Helper(int value) { }\nnew Helper(5)").await, "Helper[value=5]");
    // A class that is defined by another program alone.
    assert_eq!(
        notebook
            .run("public class App { public static void main(String[] args) { System.out.println(\"app\"); } }")
            .await,
        "app\n"
    );
    assert_eq!(
        notebook.run("class Main { static String last = \"own\"; }\nMain.last + App.class.getName()").await,
        "ownApp"
    );
    // A name that is gone from a program is no longer found in the next one.
    let gone = "class Only { public static void main(String[] args) { new Missing(); } }";
    assert_eq!(notebook.error(gone).await.0, "CompileError");
    notebook.0.kill().await;
}

async fn a_program_in_a_notebook_can_use_earlier_code() {
    let notebook = Notebook::new().await;
    assert_eq!(
        notebook
            .run("record Point(int x, int y) { }\nint scale = 3;\nint scaled(Point p) { return p.x() * scale; }")
            .await,
        ""
    );
    let uses = "class Main { public static void main(String[] args) { System.out.println(scaled(new Point(2, 0)) + scale); } }";
    assert_eq!(notebook.run(uses).await, "9\n");
    let helper =
        "class Helper { static String help() { return \"help\"; } public static void main(String[] args) { } }";
    assert_eq!(notebook.run(helper).await, "");
    let next = "class Main { public static void main(String[] args) { System.out.println(Helper.help()); } }";
    assert_eq!(notebook.run(next).await, "help\n");
    let wrong = "class Main { public static void main(String[] args) { int x = \"x\"; nowhere(); } }";
    assert_eq!(notebook.error(wrong).await.1, "incompatible types: String cannot be converted to int");
    notebook.0.kill().await;
}

async fn a_compact_source_file_stays_in_a_notebook() {
    let notebook = Notebook::new().await;
    let program = "int count = 4, limit = 10;\nfinal List<String> log = new ArrayList<>();\n\nrecord Item(String name) { }\n\
                   class Box { Item item = new Item(\"boxed\"); int twiceCount() { return twice(count); } }\n\n\
                   int twice(int n) { return 2 * n; }\n<T> T same(T value) { return value; }\n\n\
                   void main() { count++; log.add(\"ran\"); IO.println(same(new Item(\"x\")) + \" \" + new Box().twiceCount()); }";
    assert_eq!(notebook.run(program).await, "Item[name=x] 10\n");
    assert_eq!(notebook.run("count + twice(limit)").await, "25");
    assert_eq!(
        notebook.run("count = 100; log + \" \" + new Box().twiceCount() + same(new Box().item)").await,
        "[ran] 200Item[name=boxed]"
    );
    assert_eq!(
        notebook.run("int count = 1; String twice(int n) { return \"twice\"; }\ncount + twice(1) + limit").await,
        "1twice10"
    );
    notebook.0.kill().await;
}

async fn a_program_in_a_notebook_can_be_interrupted() {
    let notebook = Notebook::new().await;
    assert_eq!(notebook.run("int kept = 42;").await, "");
    for body in [
        "System.out.println(\"old\"); for (;;) { }",
        "System.out.println(\"old\"); for (;;) { try { Thread.sleep(60_000); } catch (Throwable e) { } }",
        "Thread t = new Thread(() -> { for (;;) { System.out.println(\"old\"); } }); t.start(); t.join();",
    ] {
        let code = json!({"code": main_of(body), "language": "java"});
        let request = notebook.0.at(INTERPRETER, Method::POST, "/execute").json(&code);
        let mut response = request.send().await.expect("an answer");
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains("old") {
            read.extend(response.chunk().await.expect("it goes on").expect("it prints"));
        }
        drop(response);
        assert_eq!(notebook.run("kept").await, "42", "{body}");
        assert_eq!(notebook.run(&main_of("System.out.println(\"new\");")).await, "new\n", "{body}");
    }
    notebook.0.kill().await;
}
