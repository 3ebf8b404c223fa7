//! Kept sandboxes under failures, above all of a container or of the engine: each failure is reported, no place stays
//! taken, and the sandbox goes on if it can.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::StatusCode;
use reqwest::Method;
use serde_json::{Value, json};

use crate::e2b::KEY;
use crate::proxy::{Calls, EngineProxy, Fate, Fault};
use crate::support::{Server, docker, eventually};

trials![
    sandboxes_whose_containers_are_gone_give_their_places_back,
    a_pause_that_the_engine_refuses_leaves_a_sandbox_that_runs,
    a_pause_that_the_engine_does_not_answer_leaves_a_sandbox_that_runs,
    a_pause_whose_client_hangs_up_is_a_pause_all_the_same,
    a_resumption_that_the_engine_does_not_answer_can_be_asked_for_again,
    a_sandbox_that_cannot_be_paused_at_its_deadline_is_tried_again,
    the_last_execution_of_a_sandbox_is_answered_to_its_end,
];

/// The server has no keys, so any key is accepted.
async fn ask(server: &Server, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let mut request = server.http.request(method, format!("{}{path}", server.url)).header("x-api-key", KEY);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or_default())
}

/// The request for a sandbox with an interpreter.
fn interpreter() -> Value {
    json!({"templateID": "code-interpreter-v1", "timeout": 600})
}

fn id_and_token(created: &Value) -> (String, String) {
    let text = |name: &str| created[name].as_str().expect("text").to_owned();
    (text("sandboxID"), text("envdAccessToken"))
}

/// Creates a sandbox; returns its id and its token.
async fn create(server: &Server) -> (String, String) {
    let (status, created) = ask(server, Method::POST, "/v2/sandboxes", Some(interpreter())).await;
    assert_eq!(status, 201, "{created}");
    id_and_token(&created)
}

async fn change(server: &Server, id: &str, what: &str) -> (u16, Value) {
    ask(server, Method::POST, &format!("/sandboxes/{id}/{what}"), Some(json!({}))).await
}

async fn listed(server: &Server) -> Vec<Value> {
    let (status, list) = ask(server, Method::GET, "/v2/sandboxes", None).await;
    assert_eq!(status, 200, "{list}");
    list.as_array().expect("a list").clone()
}

/// Checks that the sandbox runs code to an orderly end.
async fn runs(server: &Server, (id, token): &(String, String)) {
    let execute = server.http.post(format!("{}/execute", server.url)).header("e2b-sandbox-id", id);
    let execute = execute.header("e2b-sandbox-port", 49999).header("x-access-token", token);
    let answer = execute.json(&json!({"code": "6 * 7"})).send().await.expect("an answer");
    let told = answer.text().await.expect("it is not broken off");
    assert!(told.contains("\"text\":\"42\"") && told.contains("end_of_execution"), "{told}");
}

async fn sandboxes_whose_containers_are_gone_give_their_places_back() {
    let server = Server::start_cold(&[("ONCEBOX_MAX_KEPT_SANDBOXES", "2")]);
    let (running, paused) = (create(&server).await, create(&server).await);
    assert_eq!(change(&server, &paused.0, "pause").await.0, 204);
    assert_eq!(listed(&server).await.len(), 2);
    let full = ask(&server, Method::POST, "/v2/sandboxes", Some(json!({"templateID": "base"}))).await;
    assert_eq!(full.0, 429, "{}", full.1);
    for container in server.sandboxes() {
        docker(&["rm", "-f", &container]);
    }
    // The losses are noticed although no client asks for the sandboxes.
    eventually("they are listed no longer", async || listed(&server).await.is_empty()).await;
    eventually("the log has both losses", async || server.logged("lost the sandbox").len() == 2).await;
    for id in [&running.0, &paused.0] {
        let asked = server.http.get(format!("{}/files?path=a", server.url)).header("e2b-sandbox-id", id);
        let answer = asked.header("e2b-sandbox-port", 49983).send().await.expect("an answer");
        let gone: Value = answer.json().await.expect("JSON");
        let message = "The sandbox was not found: it is gone, because its container ended with exit code 137";
        assert_eq!(gone, json!({"sandboxId": id, "message": message, "code": 502}));
    }
    assert_eq!(change(&server, &paused.0, "resume").await.0, 404);
    // A place is free once its container is known to be gone.
    let mut new = Vec::new();
    eventually("both places are free", async || {
        let (status, created) = ask(&server, Method::POST, "/v2/sandboxes", Some(interpreter())).await;
        assert!([201, 429].contains(&status), "{created}");
        if status == 201 {
            new.push(id_and_token(&created));
        }
        new.len() == 2
    })
    .await;
    for sandbox in &new {
        runs(&server, sandbox).await;
    }
    assert!(server.stop());
    assert_eq!(server.containers(), Vec::<String>::new());
}

/// A pause meets `fate`. Running requests are broken off, and the sandbox goes on.
async fn is_not_paused(fate: Fate) {
    let fault = Fault::default();
    let proxy = EngineProxy::with_faults(&fault);
    let server = Server::start_cold(&[("ONCEBOX_ENGINE_TIMEOUT_MS", "10000"), ("DOCKER_HOST", &proxy.address())]);
    let sandbox = create(&server).await;
    runs(&server, &sandbox).await;
    fault.set(Calls::Pause, fate);
    let (status, told) = change(&server, &sandbox.0, "pause").await;
    assert_eq!(status, 500, "{told}");
    assert_eq!(listed(&server).await[0]["state"], "running");
    runs(&server, &sandbox).await;
    fault.clear();
    assert_eq!(change(&server, &sandbox.0, "pause").await.0, 204);
    assert_eq!(listed(&server).await[0]["state"], "paused");
    assert_eq!(change(&server, &sandbox.0, "resume").await.0, 201);
    runs(&server, &sandbox).await;
    assert!(server.stop());
    assert_eq!(server.containers(), Vec::<String>::new());
}

async fn a_pause_that_the_engine_refuses_leaves_a_sandbox_that_runs() {
    is_not_paused(Fate::Refuse(StatusCode::INTERNAL_SERVER_ERROR)).await;
}

async fn a_pause_that_the_engine_does_not_answer_leaves_a_sandbox_that_runs() {
    // The engine pauses the container, but never answers.
    is_not_paused(Fate::PassUnanswered).await;
    is_not_paused(Fate::Never).await;
}

async fn a_pause_whose_client_hangs_up_is_a_pause_all_the_same() {
    let asked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&asked);
    let fate = move |_: &_, path: &str| match path.ends_with("/pause") {
        true => {
            seen.store(true, Ordering::Relaxed);
            Fate::After(Duration::from_secs(5))
        }
        false => Fate::Pass,
    };
    let proxy = EngineProxy::start(fate, |_| {});
    let server = Server::start_cold(&[("DOCKER_HOST", &proxy.address())]);
    let sandbox = create(&server).await;
    let pause = server.http.post(format!("{}/sandboxes/{}/pause", server.url, sandbox.0)).header("x-api-key", KEY);
    let pause = tokio::spawn(pause.send());
    eventually("the engine is asked", async || asked.load(Ordering::Relaxed)).await;
    pause.abort();
    assert!(pause.await.is_err_and(|err| err.is_cancelled()), "it was answered before");
    eventually("it is paused", async || listed(&server).await[0]["state"] == "paused").await;
    assert_eq!(change(&server, &sandbox.0, "resume").await.0, 201);
    runs(&server, &sandbox).await;
    assert!(server.stop());
}

async fn a_resumption_that_the_engine_does_not_answer_can_be_asked_for_again() {
    let fault = Fault::default();
    let proxy = EngineProxy::with_faults(&fault);
    let server = Server::start_cold(&[("ONCEBOX_ENGINE_TIMEOUT_MS", "10000"), ("DOCKER_HOST", &proxy.address())]);
    let sandbox = create(&server).await;
    assert_eq!(change(&server, &sandbox.0, "pause").await.0, 204);
    // The engine resumes the container, but never answers any of these calls.
    fault.set(Calls::Resume, Fate::PassUnanswered);
    let (status, told) = change(&server, &sandbox.0, "resume").await;
    assert_eq!((status, listed(&server).await[0]["state"].as_str()), (201, Some("running")), "{told}");
    runs(&server, &sandbox).await;
    fault.clear();
    assert_eq!(change(&server, &sandbox.0, "pause").await.0, 204);
    fault.set(Calls::Resume, Fate::Never);
    assert_eq!(change(&server, &sandbox.0, "resume").await.0, 500);
    assert_eq!(listed(&server).await[0]["state"], "paused");
    fault.clear();
    assert_eq!(change(&server, &sandbox.0, "resume").await.0, 201);
    runs(&server, &sandbox).await;
    assert!(server.stop());
}

async fn a_sandbox_that_cannot_be_paused_at_its_deadline_is_tried_again() {
    let fault = Fault::default();
    let proxy = EngineProxy::with_faults(&fault);
    let server = Server::start_cold(&[("DOCKER_HOST", &proxy.address())]);
    let body = json!({"templateID": "code-interpreter-v1", "timeout": 2, "autoPause": true});
    fault.set(Calls::Pause, Fate::Refuse(StatusCode::INTERNAL_SERVER_ERROR));
    let (status, created) = ask(&server, Method::POST, "/v2/sandboxes", Some(body)).await;
    assert_eq!(status, 201, "{created}");
    eventually("it is tried", async || !server.logged("cannot pause a sandbox at its deadline").is_empty()).await;
    assert_eq!(listed(&server).await[0]["state"], "running");
    fault.clear();
    eventually("it is paused", async || listed(&server).await[0]["state"] == "paused").await;
    assert!(server.stop());
}

async fn the_last_execution_of_a_sandbox_is_answered_to_its_end() {
    let server = Server::start_cold(&[("ONCEBOX_LETTA_API_KEYS", KEY)]);
    for _ in 0..3 {
        let sandbox = create(&server).await;
        runs(&server, &sandbox).await;
        eventually("it is ended", async || listed(&server).await.is_empty()).await;
    }
    assert!(server.stop());
}
