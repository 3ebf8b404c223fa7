//! Whether the networks of sandboxes can be filtered. It is tried, on a network of this program's own.

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bollard::Docker;
use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder};

use super::{Report, innermost};
use crate::engine::docker::DockerEngine;
use crate::engine::docker::daemon::{self, OWNER_LABEL};
use crate::engine::{Engine, EngineError, Network};

/// The owner of what a check makes begins with it, then come the second in which it began and its process. A server's
/// owner has no dot.
const OWNER: &str = "doctor.";

/// No check takes so long. What is older was left by one that was killed.
const LEFT: Duration = Duration::from_secs(600);

/// How long the engine is watched after a call that it did not answer: it may still do what it was asked.
const WATCH: Duration = Duration::from_secs(5);
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// Starts what would hold a sandbox's network, with a filter that lets nothing through. Removes it, and what earlier
/// checks left.
pub(super) async fn check(report: &mut Report, docker: Docker, engine_timeout: Duration) {
    let engine = DockerEngine::new(docker.clone(), owner(), engine_timeout, Vec::new(), None);
    let held = match engine.namespaces.take(&Network::Allowlist(Vec::new())).await {
        Ok(namespace) => {
            engine.namespaces.discard(namespace).await;
            Ok(())
        }
        Err(err) => Err(err),
    };
    let watch = if matches!(held, Err(EngineError::Slow { .. })) { WATCH } else { Duration::ZERO };
    let removed = sweep(&engine, watch).await;
    finding(report, held.and(removed));
    for owner in left(&docker, since_epoch()).await {
        let _ =
            sweep(&DockerEngine::new(docker.clone(), &owner, engine_timeout, Vec::new(), None), Duration::ZERO).await;
    }
}

/// Removes what a check of this process has made on the engine, when it is ended before its end.
pub async fn clear_up(engine_timeout: Duration) {
    if let Ok(docker) = daemon::connect() {
        let _ = sweep(&DockerEngine::new(docker, owner(), engine_timeout, Vec::new(), None), WATCH).await;
    }
}

/// Removes all that is the owner's, and goes on for so long.
async fn sweep(engine: &DockerEngine, watch: Duration) -> Result<(), EngineError> {
    let began = Instant::now();
    loop {
        let swept = engine.sweep().await.map(|_| ());
        if swept.is_err() || began.elapsed() >= watch {
            return swept;
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

fn owner() -> &'static str {
    static OWN: OnceLock<String> = OnceLock::new();
    OWN.get_or_init(|| format!("{OWNER}{}.{}", since_epoch().as_secs(), std::process::id()))
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The owners of what checks have left that were killed.
async fn left(docker: &Docker, now: Duration) -> BTreeSet<String> {
    let filters = HashMap::from([("label", vec![OWNER_LABEL])]);
    let containers = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let networks = ListNetworksOptionsBuilder::default().filters(&filters).build();
    let containers = docker.list_containers(Some(containers)).await.unwrap_or_default();
    let networks = docker.list_networks(Some(networks)).await.unwrap_or_default();
    let labels = containers.into_iter().map(|found| found.labels).chain(networks.into_iter().map(|found| found.labels));
    let owners = labels.flatten().filter_map(|mut labels| labels.remove(OWNER_LABEL));
    owners.filter(|owner| is_left(owner, now)).collect()
}

fn is_left(owner: &str, now: Duration) -> bool {
    let began = owner.strip_prefix(OWNER).and_then(|rest| rest.split('.').next()?.parse().ok());
    began.is_some_and(|began| Duration::from_secs(began) + LEFT < now)
}

fn finding(report: &mut Report, held: Result<(), EngineError>) {
    const SUBJECT: &str = "network filter";
    match held {
        Ok(()) => report.ok(SUBJECT, "can be imposed: sandboxes reach what their template says, and no more"),
        Err(EngineError::NoImage(image)) => {
            let finding = format!("not tried, because the image {image} is missing");
            report.warning(SUBJECT, finding, "run `oncebox images build`, then this again");
        }
        Err(EngineError::Network(reason)) => report.failure(
            SUBJECT,
            reason,
            "without it no sandbox with a network is started; the kernel needs `sch_ingress` and `cls_bpf` (`modprobe cls_bpf`)",
        ),
        Err(err @ EngineError::Slow { .. }) => {
            report.failure(SUBJECT, format!("not tried: {err}"), "see what keeps the engine busy, or raise `engine_timeout_ms`");
        }
        Err(EngineError::InUse(reason)) => report.warning(
            SUBJECT,
            format!("can be imposed, but the engine keeps the network that it was tried on: {reason}"),
            "a later `oncebox doctor` removes it; if it stays, restart the engine",
        ),
        Err(err @ (EngineError::Refused { .. } | EngineError::Unreachable(_) | EngineError::NoUserId(_) | EngineError::Unsupported { .. })) => {
            let finding = format!("not tried: {err}: {}", innermost(&err));
            report.failure(SUBJECT, finding, "no sandbox starts like this; the engine's log may say why");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::docker::report::tests::lines;

    #[test]
    fn where_networks_cannot_be_filtered_it_is_a_failure_with_the_kernels_words() {
        let shown = |held| lines(|report| finding(report, held));
        assert!(shown(Ok(())).starts_with("ok   network filter: "));
        let reason = "it cannot hook into the interface (kernel module `sch_ingress`): Operation not permitted";
        let failed = shown(Err(EngineError::Network(reason.to_owned())));
        assert!(failed.starts_with(&format!("FAIL network filter: {reason}\n     -> without it")), "{failed}");
        let missing = shown(Err(EngineError::NoImage("oncebox/agent".to_owned())));
        assert!(missing.starts_with("warn network filter: not tried, because the image oncebox/agent"), "{missing}");
        let refused = EngineError::Refused { action: "start a namespace", source: "no space left on device".into() };
        let refused = shown(Err(refused));
        let expected =
            "FAIL network filter: not tried: the engine refused to start a namespace: no space left on device\n";
        assert!(refused.starts_with(expected), "{refused}");
    }

    #[test]
    fn what_a_check_has_left_is_told_from_what_one_needs_now_and_from_what_a_server_has() {
        let now = Duration::from_secs(2_000_000_000);
        assert!(is_left("doctor.1999999000.17", now));
        for owner in ["doctor.1999999900.17", "doctor.2000000900.17", "doctor", "doctor.", "doctor-1.2", "port-3000"] {
            assert!(!is_left(owner, now), "{owner}");
        }
        assert!(!is_left(owner(), since_epoch()));
    }
}
