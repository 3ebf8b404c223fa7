//! Checks whether the networks of sandboxes can be filtered, by a trial on a network of the check's own.

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bollard::Docker;
use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder};

use super::{Report, innermost};
use crate::engine::docker::DockerEngine;
use crate::engine::docker::daemon::{self, OWNER_LABEL};
use crate::engine::{Engine, EngineError, Network};

/// The prefix of a check's owner. After it come the second in which the check began, and its process id. A server's
/// owner has no dot.
const OWNER_PREFIX: &str = "doctor.";

/// No check takes this long. Older containers and networks are left over from a check that was killed.
const MAX_AGE: Duration = Duration::from_secs(600);

/// How long the engine is watched after a call that it did not answer in time: it may still carry out the call.
const WATCH: Duration = Duration::from_secs(5);
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// Starts a network namespace with a filter that blocks everything. Removes it, and all that earlier checks left.
pub(super) async fn check(report: &mut Report, docker: Docker, engine_timeout: Duration) {
    let engine = DockerEngine::new(docker.clone(), owner(), engine_timeout, Vec::new(), None);
    let trial = match engine.namespaces.take(&Network::Allowlist(Vec::new())).await {
        Ok(namespace) => {
            engine.namespaces.discard(namespace).await;
            Ok(())
        }
        Err(err) => Err(err),
    };
    let watch = if matches!(trial, Err(EngineError::Slow { .. })) { WATCH } else { Duration::ZERO };
    let removed = sweep(&engine, watch).await;
    finding(report, trial.and(removed));
    for owner in leftover_owners(&docker, since_epoch()).await {
        let _ =
            sweep(&DockerEngine::new(docker.clone(), &owner, engine_timeout, Vec::new(), None), Duration::ZERO).await;
    }
}

/// Removes all that this process's check has created on the engine. For a check that is interrupted.
pub async fn clean_up(engine_timeout: Duration) {
    if let Ok(docker) = daemon::connect() {
        let _ = sweep(&DockerEngine::new(docker, owner(), engine_timeout, Vec::new(), None), WATCH).await;
    }
}

/// Removes all containers and networks of the engine's owner, again and again until `watch` is over.
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
    OWN.get_or_init(|| format!("{OWNER_PREFIX}{}.{}", since_epoch().as_secs(), std::process::id()))
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The owners of containers and networks that killed checks have left.
async fn leftover_owners(docker: &Docker, now: Duration) -> BTreeSet<String> {
    let filters = HashMap::from([("label", vec![OWNER_LABEL])]);
    let containers = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let networks = ListNetworksOptionsBuilder::default().filters(&filters).build();
    let containers = docker.list_containers(Some(containers)).await.unwrap_or_default();
    let networks = docker.list_networks(Some(networks)).await.unwrap_or_default();
    let labels = containers.into_iter().map(|found| found.labels).chain(networks.into_iter().map(|found| found.labels));
    let owners = labels.flatten().filter_map(|mut labels| labels.remove(OWNER_LABEL));
    owners.filter(|owner| is_leftover(owner, now)).collect()
}

fn is_leftover(owner: &str, now: Duration) -> bool {
    let began = owner.strip_prefix(OWNER_PREFIX).and_then(|rest| rest.split('.').next()?.parse().ok());
    began.is_some_and(|began| Duration::from_secs(began) + MAX_AGE < now)
}

fn finding(report: &mut Report, trial: Result<(), EngineError>) {
    const SUBJECT: &str = "network filter";
    match trial {
        Ok(()) => report.ok(SUBJECT, "works: sandboxes reach what their template allows, and nothing else"),
        Err(EngineError::NoImage(image)) => {
            let finding = format!("not tried, because the image {image} is missing");
            report.warning(SUBJECT, finding, "run `oncebox images build`, then this again");
        }
        Err(EngineError::Network(reason)) => report.failure(
            SUBJECT,
            reason,
            "without it no sandbox with a network starts; the kernel needs `sch_ingress` and `cls_bpf` (`modprobe cls_bpf`)",
        ),
        Err(err @ EngineError::Slow { .. }) => {
            report.failure(SUBJECT, format!("not tried: {err}"), "find out why the engine is slow, or raise `engine_timeout_ms`");
        }
        Err(EngineError::InUse(reason)) => report.warning(
            SUBJECT,
            format!("works, but the engine does not remove the network of the trial: {reason}"),
            "the next `oncebox doctor` tries to remove it; if that fails, restart the engine",
        ),
        Err(err @ (EngineError::Refused { .. } | EngineError::Unreachable(_) | EngineError::NoUserId(_) | EngineError::Unsupported { .. } | EngineError::NotIsolated(_))) => {
            let finding = format!("not tried: {err}: {}", innermost(&err));
            report.failure(SUBJECT, finding, "no sandbox can start; the cause may be in the engine's log");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::docker::report::tests::lines;

    #[test]
    fn networks_that_cannot_be_filtered_are_a_failure_with_the_kernels_error() {
        let shown = |trial| lines(|report| finding(report, trial));
        assert!(shown(Ok(())).starts_with("ok   network filter: "));
        let reason = "it cannot hook into the interface (kernel module `sch_ingress`): Operation not permitted";
        let failed = shown(Err(EngineError::Network(reason.to_owned())));
        assert!(failed.starts_with(&format!("FAIL network filter: {reason}\n     -> without it")), "{failed}");
        let missing = shown(Err(EngineError::NoImage("oncebox/agent".to_owned())));
        assert!(missing.starts_with("warn network filter: not tried, because the image oncebox/agent"), "{missing}");
        let refused =
            EngineError::Refused { action: "start a network namespace", source: "no space left on device".into() };
        let refused = shown(Err(refused));
        let expected = "FAIL network filter: not tried: the engine refused to start a network namespace: \
                        no space left on device\n";
        assert!(refused.starts_with(expected), "{refused}");
    }

    #[test]
    fn leftovers_are_distinguished_from_running_checks_and_from_servers() {
        let now = Duration::from_secs(2_000_000_000);
        assert!(is_leftover("doctor.1999999000.17", now));
        for owner in ["doctor.1999999900.17", "doctor.2000000900.17", "doctor", "doctor.", "doctor-1.2", "port-3000"] {
            assert!(!is_leftover(owner, now), "{owner}");
        }
        assert!(!is_leftover(owner(), since_epoch()));
    }
}
