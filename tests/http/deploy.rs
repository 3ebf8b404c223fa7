//! The files for Prometheus and Grafana name metrics and labels that a scrape has.

use std::collections::BTreeSet;
use std::fs;

use reqwest::Method;
use serde_json::{Value, json};

use crate::key_file::{KeyFile, send};
use crate::repository::root;

trials![alerts_and_dashboard_name_metrics_that_a_scrape_has];

/// What the metrics of this program begin with.
const PREFIXES: [&str; 2] = ["oncebox_", "http_server_"];

/// The words of an expression.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
}

/// The expressions of the panels, and the queries of the variables.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if name == "expr" || name == "definition" => found.push(text.clone()),
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

async fn alerts_and_dashboard_name_metrics_that_a_scrape_has() {
    let (file, [key]) = KeyFile::with([&["some", "--scope", "run,metrics", "--max-starts-per-minute", "1"]]);
    let server = file.serve(&[]);
    for _ in 0..2 {
        send(&server, &key, Method::POST, "/v1/run", Some(json!({"language": "python", "code": "1"}))).await;
    }
    let scraped = send(&server, &key, Method::GET, "/metrics", None).await.text();
    let samples = scraped.lines().filter(|line| !line.starts_with('#'));
    let known: BTreeSet<_> = samples.flat_map(|line| line.split(['{', ' ']).next()).collect();

    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap_or_else(|err| panic!("{path}: {err}"));
    let rules = read("deploy/prometheus/rules.yml");
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/oncebox.json")).expect("JSON");
    let mut shown = Vec::new();
    expressions(&dashboard, &mut shown);
    assert!(shown.len() > 20, "{shown:?}");
    let page = read("docs/operations.md");
    for text in shown.iter().map(String::as_str).chain(rules.lines()) {
        for word in words(text).filter(|word| PREFIXES.iter().any(|prefix| word.starts_with(prefix))) {
            // What no process engine reports: processor time and memory.
            let is_of_containers = ["oncebox_run_cpu", "oncebox_run_peak_memory", "oncebox_key_cpu"]
                .iter()
                .any(|prefix| word.starts_with(prefix));
            assert!(known.contains(word) || is_of_containers, "no scrape has `{word}`: {text}");
            let series =
                ["_bucket", "_count", "_sum"].iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(word);
            let is_listed = page.contains(&format!("`{series}`")) || series.starts_with("oncebox_pool_");
            assert!(is_listed, "docs/operations.md does not list `{series}`");
        }
    }
}
