//! More requests than there is room for: some wait in line, the rest are told to come back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Server;

trials![
    beyond_the_line_is_a_429_and_the_line_is_served_in_order,
    a_request_waits_no_longer_than_the_queue_allows,
    a_client_that_hangs_up_leaves_the_line,
    a_burst_is_served_or_refused_and_nothing_is_lost,
];

/// Code that takes so long and then gives the time of day.
fn taking(milliseconds: u64) -> Value {
    let code = format!("await new Promise(done => setTimeout(done, {milliseconds})); Date.now()");
    json!({"language": "js", "code": code})
}

fn time_of(answer: &Value) -> u64 {
    answer["results"][0].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}

async fn beyond_the_line_is_a_429_and_the_line_is_served_in_order() {
    let server = Server::start_cold(&[
        ("ONCEBOX_MAX_SANDBOXES", "2"),
        ("ONCEBOX_MAX_QUEUED", "2"),
        ("ONCEBOX_TEMPLATES__NODE__WARM", "2"),
    ]);
    let first = server.begin(taking(4000));
    server.until_busy(1, 0).await;
    let second = server.begin(taking(6000));
    server.until_busy(2, 0).await;
    let third = server.begin(taking(100));
    server.until_busy(2, 1).await;
    let fourth = server.begin(taking(100));
    server.until_busy(2, 2).await;

    let post = server.http.post(format!("{}/v1/run", server.url)).json(&taking(0));
    let began = Instant::now();
    let response = post.send().await.expect("an answer");
    assert!(began.elapsed() < Duration::from_secs(1), "a refusal takes no time");
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "1");
    let answer: Value = response.json().await.expect("a JSON answer");
    let message = "all 2 sandboxes are in use and 2 requests wait for one; try again";
    assert_eq!(answer, json!({"error": {"code": "busy", "message": message}}));

    let mut times = Vec::new();
    for run in [first, third, fourth, second] {
        let (status, answer) = run.await.expect("an answer");
        assert_eq!(status, 200, "{answer}");
        times.push(time_of(&answer));
    }
    assert!(times[0] < times[1] && times[1] < times[2], "not served in the order of the line: {times:?}");
    server.until_busy(0, 0).await;
}

async fn a_request_waits_no_longer_than_the_queue_allows() {
    let server = Server::start_cold(&[("ONCEBOX_MAX_SANDBOXES", "1"), ("ONCEBOX_QUEUE_TIMEOUT_MS", "700")]);
    let first = server.begin(taking(5000));
    server.until_busy(1, 0).await;
    let began = Instant::now();
    let (status, answer) = server.post("/v1/run", &taking(0)).await;
    let waited = began.elapsed();
    assert_eq!((status, &answer["error"]["code"]), (429, &json!("busy")), "{answer}");
    assert!((700..3000).contains(&waited.as_millis()), "waited for {waited:?}");
    assert_eq!(first.await.expect("an answer").0, 200);
}

async fn a_client_that_hangs_up_leaves_the_line() {
    let server = Server::start_cold(&[("ONCEBOX_MAX_SANDBOXES", "1"), ("ONCEBOX_MAX_QUEUED", "1")]);
    let first = server.begin(taking(600_000));
    server.until_busy(1, 0).await;
    let second = server.begin(taking(0));
    server.until_busy(1, 1).await;
    second.abort();
    server.until_busy(1, 0).await;
    // Its place is free again.
    let third = server.begin(taking(0));
    server.until_busy(1, 1).await;
    first.abort();
    assert_eq!(third.await.expect("an answer").0, 200);
    server.until_busy(0, 0).await;
}

async fn a_burst_is_served_or_refused_and_nothing_is_lost() {
    let server = Server::start_cold(&[
        ("ONCEBOX_MAX_SANDBOXES", "3"),
        ("ONCEBOX_MAX_QUEUED", "20"),
        ("ONCEBOX_QUEUE_TIMEOUT_MS", "120000"),
        ("ONCEBOX_TEMPLATES__NODE__WARM", "2"),
    ]);
    let run = |number: u32| server.begin(json!({"language": "js", "code": format!("console.log({number}); {number}")}));
    let runs: Vec<_> = (0..100).map(run).collect();
    let mut statuses = Vec::new();
    for (number, run) in runs.into_iter().enumerate() {
        let (status, answer) = run.await.expect("an answer");
        match status {
            200 => assert_eq!(
                (&answer["results"], &answer["logs"]["stdout"]),
                (&json!([number.to_string()]), &json!([format!("{number}\n")])),
            ),
            _ => assert_eq!((status, &answer["error"]["code"]), (429, &json!("busy")), "{answer}"),
        }
        statuses.push(status);
    }
    assert_eq!(statuses.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([200, 429]));
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert!(served >= 23, "{served} of 100 were served, fewer than there is room for");
    server.until_busy(0, 0).await;
    assert_eq!(server.run("js", "'after'").await["results"], json!(["'after'"]));
}
