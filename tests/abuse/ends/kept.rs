//! The same by the door of E2B's interpreters, in sandboxes that are kept: the error is named, and the next execution is answered.

use std::time::Duration;

use libtest_mimic::Trial;
use reqwest::Method;
use serde_json::{Value, json};

use super::printing_first;
use crate::case;
use crate::e2b::{INTERPRETER, Sandbox};

/// The language, the code, and the name and some of the value of the error. Bash knows statuses only.
const ERRORS: [(&str, &str, &str, &str, &str); 8] = [
    ("one big allocation", "python", "block = b'x' * (2 << 30)", "OutOfMemory", "memory_bytes = 1073741824"),
    (
        "many small allocations",
        "js",
        "const all = []; while (true) all.push(Buffer.alloc(1 << 20, 1))",
        "OutOfMemory",
        "memory_bytes = 1073741824",
    ),
    ("the memory of a child", "bash", "tail /dev/zero", "", "137"),
    ("endless output", "python", "while True: print('x' * 1000)", "OutputLimit", "output_bytes = 33554432"),
    ("an exit", "python", "import os; os._exit(3)", "SystemExit", "3"),
    ("an exit", "js", "process.exit(3)", "SystemExit", "3"),
    ("an exit of a child", "bash", "bash -c 'exit 3'", "", "3"),
    ("an interpreter that is killed", "python", "import os; os.kill(os.getpid(), 9)", "ContextRestarting", "signal 9 "),
];

pub(super) fn trials() -> Vec<Trial> {
    let errors = ERRORS.into_iter().map(|(what, language, code, name, value)| {
        let title = format!("{language}::{what}, by /execute");
        case("ends", &title, move || is_named(language, code, name, value))
    });
    let timeouts = [("python", "while True: pass"), ("bash", "while true; do :; done")].map(|(language, code)| {
        let title = format!("{language}::the sandbox's time, by /execute");
        case("ends", &title, move || is_broken_off(language, code))
    });
    errors.chain(timeouts).chain([case("ends", "bash::an exit, by /execute", shell_is_restarted)]).collect()
}

/// One with all languages and the limits of single runs.
async fn sandbox(timeout: u64) -> Sandbox {
    Sandbox::create(json!({"templateID": "python", "timeout": timeout})).await
}

async fn execute(sandbox: &Sandbox, language: &str, code: &str) -> Vec<Value> {
    let code = match language {
        "bash" => format!("echo before\n{code}"),
        _ => printing_first(language, code),
    };
    sandbox.execute(&json!({"language": language, "code": code})).await
}

fn printed(lines: &[Value]) -> String {
    lines.iter().filter(|line| line["type"] == "stdout").filter_map(|line| line["text"].as_str()).collect()
}

async fn goes_on(sandbox: &Sandbox, language: &str) {
    let lines = execute(sandbox, language, "").await;
    let kinds: Vec<_> = lines.iter().map(|line| line["type"].as_str().expect("a type")).collect();
    assert_eq!(kinds, ["number_of_executions", "stdout", "end_of_execution"], "{lines:?}");
    assert_eq!(printed(&lines), "before\n");
}

async fn is_named(language: &str, code: &str, name: &str, value: &str) {
    let sandbox = sandbox(600).await;
    let lines = execute(&sandbox, language, code).await;
    let told = format!("{:.2000}", json!(lines).to_string());
    assert!(printed(&lines).starts_with("before\n"), "what was printed before is lost: {told}");
    let errors: Vec<_> = lines.iter().filter(|line| line["type"] == "error").collect();
    assert_eq!(errors.len(), 1, "{told}");
    assert_eq!(errors[0]["name"], name, "{}", errors[0]);
    assert!(errors[0]["value"].as_str().expect("text").contains(value), "{}", errors[0]);
    assert_eq!(lines.last(), Some(&json!({"type": "end_of_execution"})), "{told}");
    goes_on(&sandbox, language).await;
    sandbox.kill().await;
}

/// An execution has no time of its own here: it ends with the sandbox, and not as if it were a success.
async fn is_broken_off(language: &str, code: &str) {
    let sandbox = sandbox(5).await;
    let body = json!({"language": language, "code": code});
    let response = sandbox.at(INTERPRETER, Method::POST, "/execute").json(&body).send().await.expect("an answer");
    let told = tokio::time::timeout(Duration::from_secs(60), response.text()).await.expect("it goes on for ever");
    assert!(told.is_err(), "an orderly end: {told:?}");
}

/// A shell says it, as the vendor's does.
async fn shell_is_restarted() {
    let sandbox = sandbox(600).await;
    let lines = execute(&sandbox, "bash", "exit 3").await;
    assert_eq!(printed(&lines), "before\nexit\nRestarting Bash\n", "{lines:?}");
    goes_on(&sandbox, "bash").await;
    sandbox.kill().await;
}
