//! The state of the sandboxes when the metrics are read.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::TemplateLabel;
use crate::sandbox::{Sandboxes, ShelfStatus};

/// Reads the state, and what does not change.
#[derive(Debug)]
pub(super) struct SandboxState(pub(super) Sandboxes);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SandboxLabels {
    kind: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

impl Collector for SandboxState {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        // Not the type `info`, which the text format of Prometheus itself lacks.
        let version = [([("version", env!("CARGO_PKG_VERSION"))], 1)];
        gauges(&mut encoder, "oncebox_build_info", "The program", version)?;
        let status = self.0.status();
        let all = self.0.all();
        let paused = all.iter().filter(|sandbox| sandbox.life().paused).count();
        let sandboxes = |kind, state, number| (SandboxLabels { kind, state }, number);
        gauges(
            &mut encoder,
            "oncebox_sandboxes",
            "Sandboxes in use",
            [
                sandboxes("single", "running", status.running),
                sandboxes("kept", "running", all.len() - paused),
                sandboxes("kept", "paused", paused),
            ],
        )?;
        let limits = [
            (KindLabel { kind: "single" }, status.config.max_sandboxes),
            (KindLabel { kind: "kept" }, status.config.max_kept_sandboxes),
        ];
        gauges(&mut encoder, "oncebox_sandboxes_limit", "The most sandboxes in use at the same time", limits)?;
        let help = "Requests that wait for a place";
        gauges(&mut encoder, "oncebox_queue_length", help, [([("", ""); 0], status.queued)])?;
        let help = "The most requests that wait for a place";
        gauges(&mut encoder, "oncebox_queue_limit", help, [([("", ""); 0], status.config.max_queued)])?;
        let shelves = |read: fn(&ShelfStatus) -> usize| {
            let shelf =
                move |shelf: &ShelfStatus| (TemplateLabel { template: shelf.template.name.clone() }, read(shelf));
            status.shelves.iter().map(shelf).collect::<Vec<_>>()
        };
        gauges(&mut encoder, "oncebox_pool_idle", "Warm sandboxes that are ready", shelves(|shelf| shelf.idle))?;
        let help = "Warm sandboxes that are to be kept ready";
        gauges(&mut encoder, "oncebox_pool_target", help, shelves(|shelf| shelf.template.warm))?;
        let help = "Sandboxes that are being started";
        gauges(&mut encoder, "oncebox_pool_launching", help, shelves(|shelf| shelf.launching))?;
        let help = "Whether the last start of a sandbox failed";
        gauges(&mut encoder, "oncebox_pool_failing", help, shelves(|shelf| shelf.failing.into()))
    }
}

/// Writes a gauge with a value for each set of labels.
fn gauges<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, usize)>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value as u64).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
