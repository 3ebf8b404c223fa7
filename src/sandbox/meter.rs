//! What a kept sandbox uses, read again and again: for clients to look at, and to keep what it writes within its bounds.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::error::Ending;
use super::handle::Sandbox;
use super::registry::Registry;
use crate::engine::EngineError;
use crate::protocol::Metrics;

/// How often a reading is kept, as E2B does.
const EVERY: Duration = Duration::from_secs(5);

/// Readings that are kept: six hours.
const KEPT: usize = 6 * 60 * 60 / 5;

/// How often the engine is asked what a sandbox has written to its disk, at the most.
const DISK_EVERY: Duration = Duration::from_secs(1);

/// The engine looks at every file for that. It is not to be busy with it for more than one part in so many of its time, unless it
/// would then look more seldom than so.
const DISK_SHARE: u32 = 10;
const DISK_SELDOM: Duration = Duration::from_secs(10);

/// Who has made so many files that the engine looks at them for longer would otherwise have no bound.
const DISK_LOOK_LIMIT: Duration = Duration::from_secs(10);

/// What a sandbox used at a time.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// When.
    pub at: SystemTime,
    /// What.
    pub metrics: Metrics,
}

/// The readings of one sandbox, and what the engine last said of its disk.
#[derive(Debug, Default)]
pub(super) struct Meter {
    readings: Mutex<VecDeque<Reading>>,
    written_bytes: AtomicU64,
}

impl Meter {
    /// The readings, oldest first.
    pub(super) fn readings(&self) -> Vec<Reading> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    fn keep(&self, metrics: Metrics) {
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        if readings.len() == KEPT {
            readings.pop_front();
        }
        readings.push_back(Reading { at: SystemTime::now(), metrics });
    }

    /// What is written to the disk, bytes, where the engine is asked for that.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }
}

/// Reads until the sandbox is gone.
pub(super) async fn read(sandbox: Weak<Sandbox>) {
    while let Some(sandbox) = sandbox.upgrade() {
        // What a frozen agent is asked stays unanswered, and would be taken for its silence.
        let interrupted = sandbox.interrupted();
        if let Some(Ok(metrics)) = interrupted.run_until_cancelled(sandbox.metrics()).await {
            sandbox.meter.keep(metrics);
        }
        if ends_within(sandbox, EVERY).await {
            return;
        }
    }
}

/// Ends a sandbox that has written more to its disk than it may, or so many files that nobody can tell, until it is gone. There is
/// no other bound where the whole file system is writable: what is written since the last look comes on top.
pub(super) async fn bound_disk(registry: Registry, sandbox: Weak<Sandbox>) {
    let mut was_slow = false;
    while let Some(sandbox) = sandbox.upgrade() {
        let asked = Instant::now();
        let disk_bytes = sandbox.spec.template.disk_bytes;
        let looked = tokio::time::timeout(DISK_LOOK_LIMIT, sandbox.instance.written_bytes()).await;
        let too_much = match looked {
            Ok(Ok(bytes)) => {
                sandbox.meter.written_bytes.store(bytes, Ordering::Relaxed);
                (bytes > disk_bytes).then(|| format!("it has written {bytes} bytes and may write {disk_bytes}"))
            }
            Err(_) | Ok(Err(EngineError::Slow { .. })) => {
                // An engine in trouble says nothing, and that is not to be taken for this when it comes to.
                let is_well = sandbox.instance.ping_engine().await.is_ok();
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
            registry.end(&sandbox.id, Some(Ending::DiskFull { disk_bytes }));
            return;
        }
        let seldom = (asked.elapsed() * DISK_SHARE).min(DISK_SELDOM);
        if ends_within(sandbox, DISK_EVERY.max(seldom)).await {
            return;
        }
    }
}

/// Waits; whether the sandbox is gone before. Nothing holds on to it meanwhile.
async fn ends_within(sandbox: Arc<Sandbox>, time: Duration) -> bool {
    let gone = sandbox.gone.clone();
    drop(sandbox);
    tokio::time::timeout(time, gone.cancelled()).await.is_ok()
}
