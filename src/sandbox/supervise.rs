//! Reads the resource usage of a kept sandbox at intervals, for its clients, and measures its disk usage, to enforce
//! the limit.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::error::Ending;
use super::kept::Sandbox;
use super::readings::INTERVAL;
use crate::engine::EngineError;

/// The least time between two measurements of a sandbox's disk.
const DISK_MIN_PAUSE: Duration = Duration::from_secs(1);

/// For a measurement the engine looks at every file. So that it does not spend more than a tenth of its time on that,
/// the pause after a measurement is this many times as long as the measurement took, up to [`DISK_MAX_PAUSE`].
const DISK_PAUSE_FACTOR: u32 = 10;
const DISK_MAX_PAUSE: Duration = Duration::from_secs(10);

/// The most time for one measurement. A sandbox with so many files that it takes longer would otherwise have no limit.
const DISK_MEASURE_LIMIT: Duration = Duration::from_secs(10);

/// Keeps a reading at each interval until the sandbox is gone.
pub(super) async fn read(sandbox: Weak<Sandbox>) {
    while let Some(sandbox) = sandbox.upgrade() {
        // A frozen agent does not answer, and the link would take that for a dead agent.
        let interrupted = sandbox.interrupted();
        if let Some(Ok(metrics)) = interrupted.run_until_cancelled(sandbox.metrics()).await {
            sandbox.readings.add(metrics);
        }
        if ends_within(sandbox, INTERVAL).await {
            return;
        }
    }
}

/// Waits until a sandbox has written more to its disk than it may, or more files than the engine can measure; `None`
/// once the sandbox is gone. If the whole file system is writable, there is no other limit: a sandbox can exceed it by
/// what it writes between two measurements.
pub(super) async fn over_disk(sandbox: Weak<Sandbox>) -> Option<Ending> {
    let mut was_slow = false;
    while let Some(sandbox) = sandbox.upgrade() {
        let began = Instant::now();
        let disk_bytes = sandbox.spec.template.disk_bytes;
        let measured = tokio::time::timeout(DISK_MEASURE_LIMIT, sandbox.container.written_bytes()).await;
        let too_much = match measured {
            Ok(Ok(bytes)) => {
                sandbox.readings.set_written_bytes(bytes);
                (bytes > disk_bytes).then(|| format!("it has written {bytes} bytes and may write {disk_bytes}"))
            }
            Err(_) | Ok(Err(EngineError::Slow { .. })) => {
                // The engine itself may be slow. The sandbox is the cause only if the engine answers a ping and is slow
                // twice.
                let is_well = sandbox.container.ping_engine().await.is_ok();
                if is_well && !was_slow {
                    was_slow = true;
                    continue;
                }
                is_well.then(|| "it has so many files that the engine cannot measure what it has written".to_owned())
            }
            Ok(Err(err)) => {
                let error = &err as &dyn std::error::Error;
                tracing::debug!(sandbox.id, error, "cannot measure what a sandbox has written");
                None
            }
        };
        was_slow = false;
        if let Some(reason) = too_much {
            tracing::warn!(sandbox.id, "sandbox {} is ended: {reason}", sandbox.id);
            return Some(Ending::DiskFull { disk_bytes });
        }
        let pause = (began.elapsed() * DISK_PAUSE_FACTOR).min(DISK_MAX_PAUSE);
        if ends_within(sandbox, DISK_MIN_PAUSE.max(pause)).await {
            return None;
        }
    }
    None
}

/// Waits, and returns whether the sandbox was killed before `time` is over. Holds no reference to the sandbox
/// meanwhile.
async fn ends_within(sandbox: Arc<Sandbox>, time: Duration) -> bool {
    let gone = sandbox.gone.clone();
    drop(sandbox);
    tokio::time::timeout(time, gone.cancelled()).await.is_ok()
}
