//! `Accept: text/event-stream`: the events of a run as they happen, and clients that hang up.

use serde_json::{Value, json};

use crate::support::{Server, ServerEvent, eventually, server};

trials![
    events_come_in_order_and_as_they_happen,
    an_exception_is_an_error_before_the_end,
    a_limit_is_an_error_before_the_end,
    a_request_that_cannot_be_met_is_json_all_the_same,
    a_client_that_hangs_up_cancels_its_run_and_the_container_goes,
];

async fn events_come_in_order_and_as_they_happen() {
    let code = r#"
import sys, time
from IPython.display import display
print("one", flush=True)
time.sleep(5)
print("two", file=sys.stderr, flush=True)
time.sleep(0.3)
display("shown")
time.sleep(0.3)
print("three", end="")
6 * 7
"#;
    let mut stream = server().stream(json!({"language": "python", "code": code})).await;
    let mut events: Vec<ServerEvent> = Vec::new();
    while let Some(event) = stream.next().await {
        match events.last_mut() {
            // A text may arrive in several pieces.
            Some(last) if last.name == event.name && last.data.get("text").is_some() => {
                let text = |data: &Value| data["text"].as_str().expect("text").to_owned();
                last.data["text"] = json!(text(&last.data) + &text(&event.data));
            }
            _ => events.push(event),
        }
    }
    let seen: Vec<_> = events.iter().map(|event| (event.name.as_str(), event.data.clone())).collect();
    let (end, before) = seen.split_last().expect("events");
    assert_eq!(
        before,
        [
            ("stdout", json!({"text": "one\n"})),
            ("stderr", json!({"text": "two\n"})),
            ("output", json!({"text/plain": "'shown'", "main": false})),
            ("stdout", json!({"text": "three"})),
            ("output", json!({"text/plain": "42", "main": true})),
        ]
    );
    assert_eq!(end.0, "end");
    assert_eq!(end.1["outcome"], json!({"kind": "ok", "message": "the code ran to its end"}));
    assert!(end.1["usage"]["wall_ms"].as_u64() >= Some(5600), "{}", end.1);
    assert_eq!(end.1["sandbox"]["template"], "python");
    let gap = events[1].at - events[0].at;
    assert!(gap.as_millis() > 1000, "the first event came {gap:?} before the second");
}

async fn an_exception_is_an_error_before_the_end() {
    let names = |events: &[(String, Value)]| events.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let events = all(json!({"language": "js", "code": "console.log(1); null.x"})).await;
    assert_eq!(names(&events), ["stdout", "error", "end"]);
    let error = &events[1].1;
    assert_eq!(error["exception"]["name"], "TypeError");
    assert_eq!(error["error"], error["exception"]["traceback"]);
    assert_eq!(events[2].1["outcome"]["kind"], "exception");
}

async fn a_limit_is_an_error_before_the_end() {
    let events = all(json!({"language": "js", "code": "for (;;);", "timeout_ms": 500})).await;
    let outcome = &events[1].1["outcome"];
    assert_eq!((events[0].0.as_str(), events[1].0.as_str(), events.len()), ("error", "end", 2));
    assert_eq!(events[0].1, json!({"error": outcome["message"], "exception": null}));
    assert_eq!(outcome["limit"], json!({"name": "timeout_ms", "value": 500}));
}

async fn all(request: Value) -> Vec<(String, Value)> {
    let mut stream = server().stream(request).await;
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push((event.name, event.data));
    }
    events
}

async fn a_request_that_cannot_be_met_is_json_all_the_same() {
    let post = server().http.post(format!("{}/v1/run", server().url)).header("accept", "text/event-stream");
    let response = post.json(&json!({"language": "cobol", "code": ""})).send().await.expect("an answer");
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["content-type"], "application/json");
    let answer: Value = response.json().await.expect("a JSON answer");
    assert_eq!(answer["error"]["code"], "invalid_request");
}

async fn a_client_that_hangs_up_cancels_its_run_and_the_container_goes() {
    let server = Server::start_cold(&[]);
    let request = json!({
        "language": "js", "code": "console.log('begun'); void setTimeout(() => {}, 600_000)", "timeout_ms": 600_000,
    });
    let gone = async || {
        server.until_busy(0, 0).await;
        eventually("the container goes", async || server.sandboxes().is_empty()).await;
    };

    let mut stream = server.stream(request.clone()).await;
    assert_eq!(stream.next().await.expect("an event").data, json!({"text": "begun\n"}));
    assert_eq!(server.sandboxes().len(), 1);
    drop(stream);
    gone().await;

    // A client that waits for the whole answer, and hangs up while the code runs.
    let run = server.begin(request.clone());
    server.until_busy(1, 0).await;
    eventually("the container is there", async || server.sandboxes().len() == 1).await;
    run.abort();
    gone().await;

    // A client that hangs up before there is a container.
    let run = server.begin(request);
    server.until_busy(1, 0).await;
    run.abort();
    gone().await;
    assert_eq!(server.run("js", "1 + 1").await["results"], json!(["2"]));
}
