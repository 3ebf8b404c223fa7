//! What a kept sandbox uses, read again and again: for clients to look at, and to keep what it writes within its bounds.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::error::Ending;
use super::kept::Sandbox;
use crate::engine::EngineError;

/// How often a reading is kept, as E2B does.
const EVERY: Duration = Duration::from_secs(5);

/// How often the engine is asked what a sandbox has written to its disk, at the most.
const DISK_EVERY: Duration = Duration::from_secs(1);

/// The engine looks at every file for that. It is not to be busy with it for more than one part in so many of its time, unless it
/// would then look more seldom than so.
const DISK_SHARE: u32 = 10;
const DISK_SELDOM: Duration = Duration::from_secs(10);

/// Who has made so many files that the engine looks at them for longer would otherwise have no bound.
const DISK_LOOK_LIMIT: Duration = Duration::from_secs(10);

/// Reads until the sandbox is gone.
pub(super) async fn read(sandbox: Weak<Sandbox>) {
    while let Some(sandbox) = sandbox.upgrade() {
        // What a frozen agent is asked stays unanswered, and would be taken for its silence.
        let interrupted = sandbox.interrupted();
        if let Some(Ok(metrics)) = interrupted.run_until_cancelled(sandbox.metrics()).await {
            sandbox.readings.keep(metrics);
        }
        if ends_within(sandbox, EVERY).await {
            return;
        }
    }
}

/// Waits until a sandbox has written more to its disk than it may, or so many files that nobody can tell; `None` once it is gone.
/// There is no other bound where the whole file system is writable: what is written since the last look comes on top.
pub(super) async fn over_disk(sandbox: Weak<Sandbox>) -> Option<Ending> {
    let mut was_slow = false;
    while let Some(sandbox) = sandbox.upgrade() {
        let asked = Instant::now();
        let disk_bytes = sandbox.spec.template.disk_bytes;
        let looked = tokio::time::timeout(DISK_LOOK_LIMIT, sandbox.container.written_bytes()).await;
        let too_much = match looked {
            Ok(Ok(bytes)) => {
                sandbox.readings.set_written_bytes(bytes);
                (bytes > disk_bytes).then(|| format!("it has written {bytes} bytes and may write {disk_bytes}"))
            }
            Err(_) | Ok(Err(EngineError::Slow { .. })) => {
                // An engine in trouble says nothing, and that is not to be taken for this when it comes to.
                let is_well = sandbox.container.ping_engine().await.is_ok();
                if is_well && !was_slow {
                    was_slow = true;
                    continue;
                }
                is_well.then(|| "it has so many files that the engine cannot tell what it has written".to_owned())
            }
            Ok(Err(err)) => {
                let error = &err as &dyn std::error::Error;
                tracing::debug!(sandbox.id, error, "cannot tell what a sandbox has written");
                None
            }
        };
        was_slow = false;
        if let Some(reason) = too_much {
            tracing::warn!(sandbox.id, "sandbox {} is ended: {reason}", sandbox.id);
            return Some(Ending::DiskFull { disk_bytes });
        }
        let seldom = (asked.elapsed() * DISK_SHARE).min(DISK_SELDOM);
        if ends_within(sandbox, DISK_EVERY.max(seldom)).await {
            return None;
        }
    }
    None
}

/// Waits; whether the sandbox is gone before. Nothing holds on to it meanwhile.
async fn ends_within(sandbox: Arc<Sandbox>, time: Duration) -> bool {
    let gone = sandbox.gone.clone();
    drop(sandbox);
    tokio::time::timeout(time, gone.cancelled()).await.is_ok()
}
