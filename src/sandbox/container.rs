//! One container with the link to its agent. Both are removed when it is dropped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::admission::Permit;
use super::error::{Ending, LaunchError};
use super::template::Template;
use crate::engine::{Engine, EngineError, Freezer, InstanceId, Spec};
use crate::link::Link;
use crate::protocol::{Language, StartContext};

/// The pause between two attempts to remove a container.
const REMOVE_RETRY: Duration = Duration::from_secs(2);

/// At shutdown, the time in which at least one removal must finish for the wait to continue.
const DRAIN_STALL: Duration = Duration::from_secs(10);

/// Removes containers in the background, and waits for all removals at shutdown.
#[derive(Debug, Clone)]
pub(crate) struct Reaper {
    engine: Arc<dyn Engine>,
    removals: TaskTracker,
}

impl Reaper {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, removals: TaskTracker::new() }
    }

    /// Waits until all containers are removed, or no removal makes progress.
    pub(crate) async fn drain(&self) {
        self.removals.close();
        let mut left = usize::MAX;
        while self.removals.len() < left {
            left = self.removals.len();
            let _ = tokio::time::timeout(DRAIN_STALL, self.removals.wait()).await;
        }
    }

    /// Removes a container, and tries again while the engine fails. Drops `permit` when the container is gone.
    fn remove(&self, id: InstanceId, permit: Option<Permit>) {
        let engine = Arc::clone(&self.engine);
        self.removals.spawn(async move {
            let mut warned = false;
            while let Err(err) = engine.destroy(&id).await {
                if !warned {
                    tracing::warn!(sandbox.id = %id, error = &err as &dyn std::error::Error, "cannot remove {id} yet");
                    warned = true;
                }
                tokio::time::sleep(REMOVE_RETRY).await;
            }
            drop(permit);
        });
    }
}

/// Removes its container when it is dropped, or earlier by [`Guard::remove`].
#[derive(Debug)]
struct Guard {
    id: InstanceId,
    reaper: Reaper,
    permit: Mutex<Option<Permit>>,
    removed: AtomicBool,
}

impl Guard {
    fn remove(&self) {
        if !self.removed.swap(true, Ordering::Relaxed) {
            let permit = self.permit.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.reaper.remove(self.id.clone(), permit);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A container for one owner, with an interpreter that is ready for code. Dropping it removes the container.
#[derive(Debug)]
pub(crate) struct Container {
    // Before the guard, so that the pipe is closed before the container is removed.
    link: Link,
    guard: Guard,
    /// The id of each language's default context, by language.
    pub(crate) contexts: BTreeMap<String, String>,
    /// The languages that the image has.
    pub(crate) languages: Vec<Language>,
}

impl Container {
    /// Starts a container with `spec` and the template's interpreter. When this returns, the runner has already run
    /// code, so the sandbox is ready. Fails after `limit`.
    pub(crate) async fn launch(
        reaper: &Reaper,
        spec: &Spec,
        template: &Template,
        limit: Duration,
    ) -> Result<Self, LaunchError> {
        let launch = async {
            let launched = reaper.engine.launch(spec).await?;
            let guard = Guard {
                id: launched.id,
                reaper: reaper.clone(),
                permit: Mutex::new(None),
                removed: AtomicBool::new(false),
            };
            let (link, hello) = Link::open(launched.pipe).await?;
            let mut contexts = BTreeMap::new();
            let own = Some(&template.language).filter(|language| !language.is_empty());
            let eager = own.map(|language| (language, false)).into_iter();
            for (language, lazy) in eager.chain(template.lazy_languages.iter().map(|language| (language, true))) {
                let start = StartContext { language: language.clone(), lazy, ..StartContext::default() };
                contexts.insert(language.clone(), link.start_context(&start).await?.id);
            }
            Ok(Self { link, guard, contexts, languages: hello.languages })
        };
        tokio::time::timeout(limit, launch).await.unwrap_or(Err(LaunchError::Slow(limit)))
    }

    /// The container's name.
    pub(crate) fn id(&self) -> &InstanceId {
        &self.guard.id
    }

    /// The link to its agent.
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Holds `permit` until the container is gone.
    pub(crate) fn hold(&self, permit: Permit) {
        *self.guard.permit.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
    }

    /// Removes the container now, even if it is still referenced.
    pub(crate) fn remove(&self) {
        self.guard.remove();
    }

    /// Freezes the container.
    pub(crate) async fn pause(&self) -> Result<(), EngineError> {
        self.freezer("pause a sandbox")?.pause(&self.guard.id).await
    }

    /// Resumes the frozen container.
    pub(crate) async fn resume(&self) -> Result<(), EngineError> {
        self.freezer("resume a sandbox")?.resume(&self.guard.id).await
    }

    /// The bytes written to its file system, for a container whose whole file system is writable.
    pub(crate) async fn written_bytes(&self) -> Result<u64, EngineError> {
        let action = "measure what a sandbox has written";
        let meter = self.guard.reaper.engine.disk_meter().ok_or(EngineError::Unsupported { action })?;
        meter.written_bytes(&self.guard.id).await
    }

    fn freezer(&self, action: &'static str) -> Result<&dyn Freezer, EngineError> {
        self.guard.reaper.engine.freezer().ok_or(EngineError::Unsupported { action })
    }

    /// Checks that the engine answers.
    pub(crate) async fn ping_engine(&self) -> Result<(), EngineError> {
        self.guard.reaper.engine.ping().await
    }

    /// Finds out why the agent no longer answers, and logs the cause.
    pub(crate) async fn find_ending(&self, memory_bytes: u64) -> Ending {
        let end = self.guard.reaper.engine.end_of(&self.guard.id).await;
        let ending = match (end.out_of_memory, end.exit_code) {
            (true, _) => Ending::OutOfMemory { memory_bytes },
            (false, Some(exit_code)) => Ending::Exited { exit_code },
            (false, None) => Ending::Unreachable,
        };
        tracing::warn!(
            sandbox.id = %self.guard.id,
            exit_code = end.exit_code,
            agent_log = end.agent_log,
            error = self.link.cause().map(|err| err as &dyn std::error::Error),
            "lost the sandbox {}: {ending}",
            self.guard.id
        );
        ending
    }
}
