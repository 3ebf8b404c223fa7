//! More requests than there is room for: some wait in the queue, the others get an error with the time to try again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{Server, eventually};

trials![
    beyond_the_line_is_a_429_and_the_line_is_served_in_order,
    a_request_waits_no_longer_than_the_queue_allows,
    a_client_that_hangs_up_leaves_the_line,
    a_burst_is_served_or_refused_and_nothing_is_lost,
    keys_take_turns_and_one_with_many_requests_delays_no_other,
    a_key_has_bounds_of_its_own,
    a_launch_keeps_its_place_when_its_client_hangs_up,
];

/// Code that takes this long and then returns the current time.
fn taking(milliseconds: u64) -> Value {
    let code = format!("import time; time.sleep({milliseconds} / 1000); time.time_ns() // 1_000_000");
    json!({"language": "python", "code": code, "timeout_ms": 600_000})
}

/// Code that keeps its place until its client hangs up.
fn endless() -> Value {
    taking(600_000)
}

fn time_of(answer: &Value) -> u64 {
    answer["results"][0].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}

async fn beyond_the_line_is_a_429_and_the_line_is_served_in_order() {
    let server = Server::start_cold(&[
        ("ONCEBOX_MAX_SANDBOXES", "2"),
        ("ONCEBOX_MAX_QUEUED", "2"),
        ("ONCEBOX_TEMPLATES__PYTHON__WARM", "2"),
    ]);
    let first = server.begin(endless());
    server.until_busy(1, 0).await;
    let second = server.begin(endless());
    server.until_busy(2, 0).await;
    let third = server.begin(taking(100));
    server.until_busy(2, 1).await;
    let fourth = server.begin(taking(100));
    server.until_busy(2, 2).await;

    let post = server.http.post(format!("{}/v1/run", server.url)).json(&taking(0));
    let began = Instant::now();
    let response = post.send().await.expect("an answer");
    assert!(began.elapsed() < Duration::from_secs(10), "a refusal takes no time");
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "1");
    let answer: Value = response.json().await.expect("a JSON answer");
    let message = "max_sandboxes = 2: all are in use, and 2 requests wait for one; try again";
    let limit = json!({"name": "max_sandboxes", "value": 2});
    assert_eq!(answer, json!({"error": {"code": "busy", "message": message, "limit": limit}}));

    // One place is free, and both requests compete for it.
    first.abort();
    let mut times = Vec::new();
    for run in [third, fourth] {
        let (status, answer) = run.await.expect("an answer");
        assert_eq!(status, 200, "{answer}");
        times.push(time_of(&answer));
    }
    assert!(times[0] < times[1], "not served in the order of the line: {times:?}");
    second.abort();
    server.until_busy(0, 0).await;
}

async fn a_request_waits_no_longer_than_the_queue_allows() {
    let server = Server::start_cold(&[("ONCEBOX_MAX_SANDBOXES", "1"), ("ONCEBOX_QUEUE_TIMEOUT_MS", "700")]);
    let first = server.begin(endless());
    server.until_busy(1, 0).await;
    let began = Instant::now();
    let (status, answer) = server.post("/v1/run", &taking(0)).await;
    let waited = began.elapsed();
    assert_eq!((status, &answer["error"]["code"]), (429, &json!("busy")), "{answer}");
    assert!((700..15_000).contains(&waited.as_millis()), "waited for {waited:?}");
    first.abort();
}

async fn a_client_that_hangs_up_leaves_the_line() {
    let server = Server::start_cold(&[("ONCEBOX_MAX_SANDBOXES", "1"), ("ONCEBOX_MAX_QUEUED", "1")]);
    let first = server.begin(endless());
    server.until_busy(1, 0).await;
    let second = server.begin(taking(0));
    server.until_busy(1, 1).await;
    second.abort();
    server.until_busy(1, 0).await;
    // The place is free again.
    let third = server.begin(taking(0));
    server.until_busy(1, 1).await;
    first.abort();
    assert_eq!(third.await.expect("an answer").0, 200);
    server.until_busy(0, 0).await;
}

async fn a_burst_is_served_or_refused_and_nothing_is_lost() {
    allow_many_connections();
    let server = Server::start_cold(&[
        ("ONCEBOX_MAX_SANDBOXES", "3"),
        ("ONCEBOX_MAX_QUEUED", "40"),
        ("ONCEBOX_QUEUE_TIMEOUT_MS", "120000"),
        ("ONCEBOX_TEMPLATES__PYTHON__WARM", "2"),
    ]);
    let before = server.memory_bytes();
    let run = |number: u32| server.begin(json!({"language": "python", "code": format!("print({number}); {number}")}));
    let runs: Vec<_> = (0..1000).map(run).collect();
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
    assert!(served >= 43, "{served} of 1000 were served, fewer than there is room for");
    server.until_busy(0, 0).await;
    let grown = server.memory_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "the server has {grown} bytes more than before");
    assert_eq!(server.run("python", "'after'").await["results"], json!(["'after'"]));
}

/// Each request here is one connection, with an open file at both ends.
fn allow_many_connections() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("more open files");
}

const KEYS: [&str; 2] = ["first-key-1", "second-key-2"];

/// Requests a run with one of the keys; returns the status and the answer.
fn begin_as(server: &Server, key: &str, request: &Value) -> JoinHandle<(u16, Value)> {
    let post = server.http.post(format!("{}/v1/run", server.url)).header("x-api-key", key).json(request);
    tokio::spawn(async move {
        let response = post.send().await.expect("an answer");
        (response.status().as_u16(), response.json().await.expect("a JSON answer"))
    })
}

/// The status of a server with these keys.
async fn status_of(server: &Server) -> Value {
    let get = server.http.get(format!("{}/v1/status", server.url)).header("x-api-key", KEYS[0]);
    get.send().await.expect("an answer").json().await.expect("a JSON answer")
}

async fn keys_take_turns_and_one_with_many_requests_delays_no_other() {
    let server = Server::start_cold(&[
        ("ONCEBOX_API_KEYS", &KEYS.join(",")),
        ("ONCEBOX_MAX_SANDBOXES", "1"),
        ("ONCEBOX_MAX_QUEUED", "6"),
        ("ONCEBOX_QUEUE_TIMEOUT_MS", "120000"),
        ("ONCEBOX_TEMPLATES__PYTHON__WARM", "1"),
    ]);
    let holding = begin_as(&server, KEYS[0], &endless());
    eventually("it runs", async || status_of(&server).await["running"] == 1).await;
    let many: Vec<_> = (0..6).map(|_| begin_as(&server, KEYS[0], &taking(100))).collect();
    eventually("six wait", async || status_of(&server).await["queued"] == 6).await;
    // The queue is full, but the other key's requests get in: the last of the many is refused instead.
    let few: Vec<_> = (0..2).map(|_| begin_as(&server, KEYS[1], &taking(100))).collect();
    eventually("two are sent away", async || many.iter().filter(|run| run.is_finished()).count() == 2).await;
    holding.abort();
    let mut times = Vec::new();
    for run in few {
        let (status, answer) = run.await.expect("an answer");
        assert_eq!(status, 200, "{answer}");
        times.push(time_of(&answer));
    }
    let (mut later, mut refused) = (0, 0);
    for run in many {
        match run.await.expect("an answer") {
            (200, answer) => later += usize::from(time_of(&answer) > times[1]),
            (status, answer) => {
                assert_eq!((status, &answer["error"]["code"]), (429, &json!("busy")), "{answer}");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 2);
    assert!(later >= 2, "the other key waited for all but {later} of the 4 that were before it");
}

async fn a_key_has_bounds_of_its_own() {
    let server = Server::start_cold(&[
        ("ONCEBOX_API_KEYS", &KEYS.join(",")),
        ("ONCEBOX_MAX_QUEUED", "0"),
        ("ONCEBOX_MAX_SANDBOXES_PER_KEY", "1"),
        ("ONCEBOX_MAX_KEPT_SANDBOXES_PER_KEY", "1"),
        ("ONCEBOX_MAX_STARTS_PER_MINUTE_PER_KEY", "5"),
        // Warm, so that the five starts take less than 12 seconds, after which the rate would allow another one.
        ("ONCEBOX_TEMPLATES__BASE__WARM", "1"),
    ]);
    // Two starts: a request that runs, and one that finds no place.
    let running = begin_as(&server, KEYS[0], &endless());
    eventually("it runs", async || status_of(&server).await["running"] == 1).await;
    let (status, answer) = begin_as(&server, KEYS[0], &taking(0)).await.expect("an answer");
    let message = "max_sandboxes = 1 of this key: all are in use, and 0 requests wait for one; try again";
    let limit = json!({"name": "max_sandboxes", "value": 1});
    assert_eq!((status, answer), (429, json!({"error": {"code": "busy", "message": message, "limit": limit}})));

    let create = async |key: &str| {
        let post = server.http.post(format!("{}/sandboxes", server.url)).header("x-api-key", key);
        let response = post.json(&json!({"templateID": "base"})).send().await.expect("an answer");
        let retry_after = response.headers().get("retry-after").map(|value| value.to_str().expect("text").to_owned());
        (response.status().as_u16(), retry_after, response.json::<Value>().await.expect("a JSON answer"))
    };
    // The third and the fourth start.
    assert_eq!(create(KEYS[0]).await.0, 201);
    let (status, _, answer) = create(KEYS[0]).await;
    let message = answer["message"].as_str().expect("a message");
    assert!(status == 429 && message.starts_with("max_kept_sandboxes = 1 of this key: "), "{answer}");
    // The fifth start is the last one allowed; the next request gets the time to try again.
    assert_eq!(create(KEYS[0]).await.0, 429);
    let (status, retry_after, answer) = create(KEYS[0]).await;
    let seconds: u64 = retry_after.expect("when to come back").parse().expect("a number");
    let message = format!("max_starts_per_minute = 5 of this key: it has started as many; try again in {seconds} s");
    assert_eq!((status, answer), (429, json!({"code": 429, "message": message})));
    assert!((1..=12).contains(&seconds), "{seconds}");
    let (status, answer) = begin_as(&server, KEYS[0], &taking(0)).await.expect("an answer");
    assert_eq!((status, &answer["error"]["code"]), (429, &json!("too_often")), "{answer}");
    let (status, answer) = begin_as(&server, KEYS[1], &taking(0)).await.expect("an answer");
    assert_eq!(status, 200, "another key has its own: {answer}");
    running.abort();
}

/// A container that is started for one request alone counts until it is removed: clients that hang up meanwhile must not be able to
/// start any number of them.
async fn a_launch_keeps_its_place_when_its_client_hangs_up() {
    let languages = tempfile::tempdir().expect("a directory");
    let runner = concat!("sleep 6; exec python3 -u ", env!("CARGO_MANIFEST_DIR"), "/tests/http/runner.py");
    let language = json!({"name": "python", "command": ["/bin/sh", "-c", runner]});
    std::fs::create_dir(languages.path().join("python")).expect("a directory");
    std::fs::write(languages.path().join("python/language.json"), language.to_string()).expect("a language");
    let server = Server::start_cold(&[
        ("ONCEBOX_LANGUAGES", languages.path().to_str().expect("text")),
        ("ONCEBOX_MAX_SANDBOXES", "1"),
        ("ONCEBOX_MAX_QUEUED", "0"),
    ]);
    // Not as the template has it.
    let request = json!({"language": "python", "code": "1", "limits": {"processes": 100}});
    let began = Instant::now();
    let first = server.begin(request.clone());
    server.until_busy(1, 0).await;
    first.abort();
    while began.elapsed() < Duration::from_secs(4) {
        let (status, answer) = server.post("/v1/run", &request).await;
        assert_eq!((status, &answer["error"]["code"]), (429, &json!("busy")), "{answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // It is removed when it is there, and another has its place.
    server.until_busy(0, 0).await;
    assert_eq!(server.run_with(request).await["results"], json!(["1"]));
}
