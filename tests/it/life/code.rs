//! Executions that finish, that are interrupted by a client that hangs up, or that are cancelled at once; and contexts
//! that are created and removed.

use reqwest::Method;
use serde_json::{Value, json};

use super::kept::Kept;
use crate::e2b::{INTERPRETER, answer};

fn has(lines: &[Value], kind: &str, text: &str) {
    assert!(lines.iter().any(|line| line["type"] == kind && line["text"] == text), "{kind} {text}: {lines:?}");
    assert_eq!(lines.last().map(|line| &line["type"]), Some(&json!("end_of_execution")), "{lines:?}");
}

pub(super) async fn finished(kept: &Kept, number: u64) {
    match number % 4 {
        3 => {
            let lines = kept.execute(&json!({"code": "1/0"})).await;
            assert!(lines.iter().any(|line| line["name"] == "ZeroDivisionError"), "{lines:?}");
        }
        _ => {
            let lines = kept.execute(&json!({"code": format!("print('{number}')\n{number} + 1")})).await;
            has(&lines, "stdout", &format!("{number}\n"));
            has(&lines, "result", &(number + 1).to_string());
        }
    }
}

async fn context(kept: &Kept) -> String {
    let created = answer(kept.at(INTERPRETER, Method::POST, "/contexts").json(&json!({"language": "python"}))).await;
    assert_eq!(created.status, 200, "{}", created.text());
    created.json()["id"].as_str().expect("an id").to_owned()
}

/// The client hangs up: at once, when the code has begun, or without reading the output.
pub(super) async fn interrupted(kept: &Kept, number: u64) {
    let context = kept.context.get_or_init(|| context(kept)).await;
    let execution = |code: &str| json!({"code": code, "context_id": context}).to_string();
    let head = kept.head(INTERPRETER, "POST", "/execute");
    let request = |code: &str| {
        let body = execution(code);
        format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    match number % 3 {
        0 => kept.send_and_leave(request("while True: pass").as_bytes()).await,
        1 => {
            let body = execution("print('begun', flush=True)\nwhile True: pass").into_bytes();
            let mut unread = kept.unread(INTERPRETER, Method::POST, "/execute", "application/json", body).await;
            unread.take(20).await;
        }
        _ => {
            let body = execution("while True: print('x' * 1000)").into_bytes();
            let mut unread = kept.unread(INTERPRETER, Method::POST, "/execute", "application/json", body).await;
            unread.take(10_000).await;
        }
    }
    let lines = kept.execute(&json!({"code": format!("{number} + 1"), "context_id": context})).await;
    has(&lines, "result", &(number + 1).to_string());
}

pub(super) async fn in_contexts_of_its_own(kept: &Kept, number: u64) {
    let id = context(kept).await;
    let lines = kept.execute(&json!({"code": format!("x = {number}\nx"), "context_id": id})).await;
    has(&lines, "result", &number.to_string());
    let restarted = answer(kept.at(INTERPRETER, Method::POST, &format!("/contexts/{id}/restart"))).await;
    assert_eq!((restarted.status, restarted.text().as_str()), (200, "null"));
    let lines = kept.execute(&json!({"code": "x", "context_id": id})).await;
    assert!(lines.iter().any(|line| line["name"] == "NameError"), "{lines:?}");
    let removed = answer(kept.at(INTERPRETER, Method::DELETE, &format!("/contexts/{id}"))).await;
    assert_eq!((removed.status, removed.text().as_str()), (200, "null"));
}
