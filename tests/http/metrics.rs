//! `GET /metrics`: what is counted, and that the sums are those of the audit log. Also that no label is made up by a client.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::json;

use crate::key_file::{KeyFile, send};
use crate::runs::lines;
use crate::support::{Server, eventually};

trials![
    the_sums_equal_the_lines_of_the_audit_log,
    the_state_of_the_pool_and_of_the_sandboxes_is_shown,
    refusals_are_counted_by_their_reason,
    requests_are_counted_by_routes_and_never_by_paths,
    a_sandbox_keeps_its_own_metrics_path,
];

/// The samples of a scrape: name and labels to value.
type Samples = BTreeMap<String, f64>;

async fn scrape(server: &Server, key: &str) -> Samples {
    let scraped = send(server, key, Method::GET, "/metrics", None).await;
    assert_eq!(scraped.status, 200, "{}", scraped.text());
    let kind = scraped.headers["content-type"].to_str().expect("text").to_owned();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    let text = scraped.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            (name.to_owned(), value.parse().unwrap_or_else(|err| panic!("{line}: {err}")))
        })
        .collect()
}

/// The sum of all samples of this name with these labels.
fn sum(samples: &Samples, name: &str, labels: &[&str]) -> f64 {
    let is_named =
        |sample: &str| sample.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
    let found =
        samples.iter().filter(|(sample, _)| is_named(sample) && labels.iter().all(|label| sample.contains(label)));
    found.map(|(_, value)| value).sum()
}

async fn run(server: &Server, key: &str, code: &str) {
    let body = json!({"language": "python", "code": code, "timeout_ms": 60_000});
    assert_eq!(send(server, key, Method::POST, "/v1/run", Some(body)).await.status, 200);
}

const SCOPES: &str = "run,sandboxes,metrics";

async fn the_sums_equal_the_lines_of_the_audit_log() {
    let (file, [first, second]) = KeyFile::with([&["first", "--scope", SCOPES], &["second", "--scope", SCOPES]]);
    let log = file.path().with_file_name("audit.jsonl");
    let server = file.serve(&[("ONCEBOX_AUDIT_LOG", log.to_str().expect("text"))]);
    for (key, code) in [(&first, "1"), (&first, "1 / 0"), (&first, "print('abc')"), (&second, "raise SystemExit(3)")] {
        run(&server, key, code).await;
    }
    eventually("every run has a line", async || lines(&log).len() == 4).await;
    let (samples, lines) = (scrape(&server, &first).await, lines(&log));
    for outcome in ["ok", "exception", "exit"] {
        let audited = lines.iter().filter(|line| line["outcome"] == outcome).count();
        let labels = [format!("outcome=\"{outcome}\""), "door=\"run\"".to_owned(), "template=\"python\"".to_owned()];
        let labels = labels.each_ref().map(String::as_str);
        assert_eq!(sum(&samples, "oncebox_runs_total", &labels), audited as f64, "{outcome}: {samples:?}");
    }
    assert_eq!(sum(&samples, "oncebox_runs_total", &[]), lines.len() as f64);
    let total = |field: &str| lines.iter().map(|line| line[field].as_f64().unwrap_or(0.0)).sum::<f64>();
    assert_eq!(sum(&samples, "oncebox_output_bytes_total", &[]), total("output_bytes"));
    let close = |name: &str, millis: f64| {
        let seconds = sum(&samples, name, &[]);
        assert!((seconds - millis / 1000.0).abs() < 1e-6, "{name} is {seconds}, and {millis} ms were audited");
    };
    close("oncebox_run_duration_seconds_sum", total("wall_ms"));
    close("oncebox_run_wait_seconds_sum", total("wait_ms"));
    close("oncebox_run_cpu_seconds_total", total("cpu_ms"));
    close("oncebox_key_cpu_seconds_total", total("cpu_ms"));
    assert_eq!(sum(&samples, "oncebox_run_duration_seconds_count", &[]), 4.0);
    assert_eq!(sum(&samples, "oncebox_run_wait_seconds_count", &["warm=\"false\""]), 4.0);
    assert_eq!(sum(&samples, "oncebox_key_runs_total", &["key=\"first\""]), 3.0);
    assert_eq!(sum(&samples, "oncebox_key_runs_total", &["key=\"second\""]), 1.0);
}

async fn the_state_of_the_pool_and_of_the_sandboxes_is_shown() {
    let (file, [key]) = KeyFile::with([&["some", "--scope", SCOPES]]);
    let server = file.serve(&[
        ("ONCEBOX_TEMPLATES__PYTHON__WARM", "2"),
        ("ONCEBOX_MAX_SANDBOXES", "5"),
        ("ONCEBOX_MAX_KEPT_SANDBOXES", "6"),
        ("ONCEBOX_MAX_QUEUED", "7"),
    ]);
    let python = ["template=\"python\""];
    eventually("two are warm", async || sum(&scrape(&server, &key).await, "oncebox_pool_idle", &python) == 2.0).await;
    for _ in 0..2 {
        let created = send(&server, &key, Method::POST, "/sandboxes", Some(json!({"templateID": "base"}))).await;
        assert_eq!(created.status, 201, "{}", created.text());
    }
    let samples = scrape(&server, &key).await;
    for (name, labels, value) in [
        ("oncebox_pool_target", &python[..], 2.0),
        ("oncebox_pool_launching", &python, 0.0),
        ("oncebox_pool_failing", &python, 0.0),
        ("oncebox_sandboxes", &["kind=\"kept\"", "state=\"running\""], 2.0),
        ("oncebox_sandboxes", &["kind=\"kept\"", "state=\"paused\""], 0.0),
        ("oncebox_sandboxes", &["kind=\"single\""], 0.0),
        ("oncebox_sandboxes_limit", &["kind=\"single\""], 5.0),
        ("oncebox_sandboxes_limit", &["kind=\"kept\""], 6.0),
        ("oncebox_queue_limit", &[], 7.0),
        ("oncebox_queue_length", &[], 0.0),
        ("oncebox_engine_up", &[], 1.0),
        ("oncebox_build_info", &[concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"")], 1.0),
        ("http_server_active_requests", &[], 1.0),
    ] {
        assert_eq!(sum(&samples, name, labels), value, "{name} {labels:?}: {samples:?}");
    }
}

async fn refusals_are_counted_by_their_reason() {
    let (file, [key]) =
        KeyFile::with([&["some", "--scope", SCOPES, "--max-kept-sandboxes", "1", "--max-starts-per-minute", "3"]]);
    let server = file.serve(&[]);
    let create = async || send(&server, &key, Method::POST, "/sandboxes", Some(json!({"templateID": "base"}))).await;
    assert_eq!(create().await.status, 201);
    // It counts as a start too.
    assert_eq!(create().await.json()["code"], 429);
    run(&server, &key, "1").await;
    let body = json!({"language": "python", "code": "1"});
    let refused = send(&server, &key, Method::POST, "/v1/run", Some(body)).await;
    assert_eq!(refused.json()["error"]["code"], "too_often");
    // A wrong request is no refusal.
    send(&server, &key, Method::POST, "/v1/run", Some(json!({"language": "cobol", "code": "1"}))).await;
    let samples = scrape(&server, &key).await;
    assert_eq!(sum(&samples, "oncebox_refused_total", &["reason=\"full\""]), 1.0, "{samples:?}");
    assert_eq!(sum(&samples, "oncebox_refused_total", &["reason=\"too_often\""]), 1.0, "{samples:?}");
    assert_eq!(sum(&samples, "oncebox_refused_total", &[]), 2.0, "{samples:?}");
}

async fn requests_are_counted_by_routes_and_never_by_paths() {
    let (file, [key]) = KeyFile::with([&["some", "--scope", SCOPES]]);
    let server = file.serve(&[]);
    let marker = "made-up-7c1e";
    let (paths, methods) =
        ([format!("/{marker}"), format!("/sandboxes/{marker}"), "/v1/run".to_owned()], ["GET", marker]);
    for path in &paths {
        for method in methods {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            send(&server, &key, method, path, None).await;
        }
    }
    let created = send(&server, &key, Method::POST, "/sandboxes", Some(json!({"templateID": "base"}))).await.json();
    let (id, token) = (created["sandboxID"].as_str().expect("an id"), created["envdAccessToken"].clone());
    for port in ["49983", "49999", "8000"] {
        let url = format!("{}/health", server.url);
        let call = server.http.get(url).header("e2b-sandbox-id", id).header("e2b-sandbox-port", port);
        call.header("x-access-token", token.as_str().unwrap_or_default()).send().await.expect("an answer");
    }
    let samples = scrape(&server, &key).await;
    let counted = |labels: &[&str]| sum(&samples, "http_server_request_duration_seconds_count", labels);
    let other = "http_request_method=\"_OTHER\"";
    assert_eq!(counted(&["http_route=\"other\"", "http_request_method=\"GET\"", "code=\"404\""]), 1.0, "{samples:?}");
    assert_eq!(counted(&["http_route=\"/sandboxes/{id}\"", "http_request_method=\"GET\""]), 1.0, "{samples:?}");
    assert_eq!(counted(&[other]), 3.0, "{samples:?}");
    for route in ["sandbox:envd", "sandbox:interpreter", "sandbox:port"] {
        assert_eq!(counted(&[&format!("http_route=\"{route}\"")]), 1.0, "{route}: {samples:?}");
    }
    let shown = format!("{samples:?}");
    assert!(!shown.contains(marker) && !shown.contains(id), "{shown}");
}

async fn a_sandbox_keeps_its_own_metrics_path() {
    let (file, [key]) = KeyFile::with([&["some", "--scope", SCOPES]]);
    let server = file.serve(&[]);
    let created = send(&server, &key, Method::POST, "/sandboxes", Some(json!({"templateID": "base"}))).await.json();
    let host = format!("49983-{}.localhost", created["sandboxID"].as_str().expect("an id"));
    let call = server.http.get(format!("{}/metrics", server.url)).header("host", host).header("x-api-key", &key);
    let token = created["envdAccessToken"].as_str().unwrap_or_default().to_owned();
    let text = call.header("x-access-token", token).send().await.expect("an answer").text().await.expect("a text");
    assert!(text.contains("cpu_used_pct") && !text.contains("oncebox_"), "{text}");
}
