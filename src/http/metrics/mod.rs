//! `GET /metrics`: figures of the server for Prometheus, in the OpenMetrics text format.
//!
//! Labels are bounded: templates, doors and kinds of ends are few, and the names of keys are the operator's. No id, path or
//! address is ever one. Source of the format: prometheus/OpenMetrics, `specification/OpenMetrics.md`.

mod requests;
mod state;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use serde::Serialize;

use super::AppState;
use crate::keys::Keys;
use crate::sandbox::{Observer, Refusal, RunRecord, Sandboxes};
use requests::Requests;
use state::SandboxState;

pub(super) use requests::{RouteName, measure, name_route};

/// The media type of the answer.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The longest time in which the engine must answer a scrape to count as up.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(2);

const RUN_SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Powers of 4 from 4 MiB to 16 GiB.
const MEMORY_BYTES: [f64; 7] =
    [4_194_304.0, 16_777_216.0, 67_108_864.0, 268_435_456.0, 1_073_741_824.0, 4_294_967_296.0, 17_179_869_184.0];

/// Counts seconds or bytes.
type Sum = Counter<f64, AtomicU64>;

/// A histogram with fixed buckets for each set of labels.
type Histograms<L> = Family<L, Histogram, Buckets>;

/// The upper bounds of the buckets of a histogram.
#[derive(Debug, Clone, Copy)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RunLabels {
    template: String,
    door: &'static str,
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DoorLabels {
    template: String,
    door: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WaitLabels {
    template: String,
    warm: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TemplateLabel {
    template: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyLabel {
    key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// What is counted while the server runs. A clone counts the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    keys: Keys,
    runs: Family<RunLabels, Counter>,
    run_duration: Histograms<DoorLabels>,
    run_wait: Histograms<WaitLabels>,
    run_cpu: Family<TemplateLabel, Sum>,
    run_peak_memory: Histograms<TemplateLabel>,
    output: Family<TemplateLabel, Counter>,
    key_runs: Family<KeyLabel, Counter>,
    key_cpu: Family<KeyLabel, Sum>,
    refused: Family<ReasonLabel, Counter>,
    engine_up: Gauge,
    requests: Requests,
}

impl Metrics {
    /// Nothing is counted yet. `keys` have the names of owners.
    pub fn new(keys: Keys) -> Self {
        Self {
            keys,
            runs: Family::default(),
            run_duration: Family::new_with_constructor(Buckets(&RUN_SECONDS)),
            run_wait: Family::new_with_constructor(Buckets(&RUN_SECONDS)),
            run_cpu: Family::default(),
            run_peak_memory: Family::new_with_constructor(Buckets(&MEMORY_BYTES)),
            output: Family::default(),
            key_runs: Family::default(),
            key_cpu: Family::default(),
            refused: Family::default(),
            engine_up: Gauge::default(),
            requests: Requests::default(),
        }
    }

    /// Everything that a scrape shows: what is counted, and the state of the sandboxes at that time.
    pub(super) fn registry(&self, sandboxes: Sandboxes) -> Registry {
        let mut registry = Registry::default();
        let own = registry.sub_registry_with_prefix("oncebox");
        own.register("runs", "Runs that have ended", self.runs.clone());
        let help = "The time from the start of a run to its end";
        own.register_with_unit("run_duration", help, Unit::Seconds, self.run_duration.clone());
        let help = "The time from a request for a single run until it has a sandbox";
        own.register_with_unit("run_wait", help, Unit::Seconds, self.run_wait.clone());
        let help = "The processor time of runs, as far as it is known";
        own.register_with_unit("run_cpu", help, Unit::Seconds, self.run_cpu.clone());
        let help = "The peak memory of the sandboxes of runs, as far as it is known";
        own.register_with_unit("run_peak_memory", help, Unit::Bytes, self.run_peak_memory.clone());
        let help = "What runs have printed and returned";
        own.register_with_unit("output", help, Unit::Bytes, self.output.clone());
        own.register("key_runs", "Runs of an API key that have ended", self.key_runs.clone());
        let help = "The processor time of the runs of an API key";
        own.register_with_unit("key_cpu", help, Unit::Seconds, self.key_cpu.clone());
        own.register("refused", "Runs and kept sandboxes that were refused for want of a place", self.refused.clone());
        own.register("engine_up", "Whether the engine answers", self.engine_up.clone());
        self.requests.register(&mut registry);
        registry.register_collector(Box::new(SandboxState(sandboxes)));
        registry
    }
}

impl Observer for Metrics {
    fn run_ended(&self, record: &RunRecord) {
        let template = || record.template.clone();
        let door = DoorLabels { template: template(), door: record.door };
        let outcome = record.outcome.map_or_else(|| "unknown".to_owned(), |outcome| name(&outcome));
        self.runs.get_or_create(&RunLabels { template: template(), door: record.door, outcome }).inc();
        self.run_duration.get_or_create(&door).observe(seconds(record.wall_ms));
        if let (Some(wait_ms), Some(warm)) = (record.wait_ms, record.warm) {
            let labels = WaitLabels { template: template(), warm: if warm { "true" } else { "false" } };
            self.run_wait.get_or_create(&labels).observe(seconds(wait_ms));
        }
        let key = KeyLabel { key: self.keys.name(record.owner) };
        if let Some(cpu_ms) = record.cpu_ms {
            self.run_cpu.get_or_create(&TemplateLabel { template: template() }).inc_by(seconds(cpu_ms));
            self.key_cpu.get_or_create(&key).inc_by(seconds(cpu_ms));
        }
        if let Some(peak) = record.peak_memory_bytes {
            self.run_peak_memory.get_or_create(&TemplateLabel { template: template() }).observe(peak as f64);
        }
        self.output.get_or_create(&TemplateLabel { template: template() }).inc_by(record.output_bytes);
        self.key_runs.get_or_create(&key).inc();
    }

    fn refused(&self, reason: Refusal) {
        self.refused.get_or_create(&ReasonLabel { reason: reason.name() }).inc();
    }
}

fn seconds(millis: u64) -> f64 {
    Duration::from_millis(millis).as_secs_f64()
}

/// The name of a kind, as it is in JSON.
fn name(kind: &impl Serialize) -> String {
    let name = serde_json::to_value(kind).ok();
    name.as_ref().and_then(|name| name.as_str()).unwrap_or_default().to_owned()
}

/// Returns all metrics.
pub(super) async fn scrape(state: &AppState) -> Response {
    let answers = tokio::time::timeout(ENGINE_TIMEOUT, state.sandboxes.engine_answers()).await;
    state.metrics.engine_up.set(answers.unwrap_or(false).into());
    render(&state.registry)
}

fn render(registry: &Arc<Registry>) -> Response {
    let mut body = String::new();
    match text::encode(&mut body, registry) {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response(),
        Err(err) => {
            tracing::error!(error = &err as &dyn std::error::Error, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
