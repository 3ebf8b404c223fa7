//! Kept sandboxes by id, each with its deadline.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use subtle::ConstantTimeEq;

use super::error::Ending;
use super::kept::{OnTimeout, Sandbox};
use super::supervise;

/// How many sandboxes are remembered after their end.
const REMEMBERED: usize = 1024;

/// Sandboxes that are kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    sandboxes: BTreeMap<String, Arc<Sandbox>>,
    /// The last that ended, so that a client that still names one learns that, and not that its token is wrong.
    ended: VecDeque<Ended>,
}

/// A sandbox that is no more.
#[derive(Debug)]
struct Ended {
    token: String,
    id: String,
    /// Why, if nobody asked for it.
    ending: Option<Ending>,
}

impl Registry {
    /// Keeps a sandbox until its deadline.
    pub(crate) fn insert(&self, sandbox: Arc<Sandbox>) {
        // First: what ends it looks for it here.
        self.lock().sandboxes.insert(sandbox.id.clone(), Arc::clone(&sandbox));
        tokio::spawn(keep_time(self.clone(), Arc::downgrade(&sandbox)));
        tokio::spawn(supervise::read(Arc::downgrade(&sandbox)));
        if sandbox.spec.template.writable_root {
            tokio::spawn(bound_disk(self.clone(), sandbox.id.clone(), Arc::downgrade(&sandbox)));
        }
    }

    /// The sandbox of that id. One whose container is gone is gone too.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Sandbox>> {
        // One that is lost is removed as soon as it is known why.
        self.lock().sandboxes.get(id).filter(|sandbox| !sandbox.is_lost()).cloned()
    }

    /// The sandbox of that token.
    pub(crate) fn by_token(&self, token: &str) -> Option<Arc<Sandbox>> {
        let kept = self.lock();
        let own = kept.sandboxes.values().map(|sandbox| (sandbox.token.as_str(), sandbox));
        find_token(own, token).cloned()
    }

    /// The id of the sandbox of that token, if it ended not long ago.
    pub(crate) fn ended_by_token(&self, token: &str) -> Option<String> {
        find_token(self.lock().ended.iter().map(|ended| (ended.token.as_str(), &ended.id)), token).cloned()
    }

    /// Why the sandbox of that id ended, if nobody asked for that and it was not long ago.
    pub(crate) fn ending(&self, id: &str) -> Option<Ending> {
        self.lock().ended.iter().find(|ended| ended.id == id)?.ending.clone()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Sandbox>> {
        self.lock().sandboxes.values().filter(|sandbox| !sandbox.is_lost()).cloned().collect()
    }

    /// Removes a sandbox. False if there is none.
    pub(crate) fn kill(&self, id: &str) -> bool {
        self.end(id, None)
    }

    /// The same; `ending` is why, if nobody asked for it.
    pub(crate) fn end(&self, id: &str, ending: Option<Ending>) -> bool {
        let mut kept = self.lock();
        let Some(sandbox) = kept.sandboxes.remove(id) else { return false };
        kept.ended.truncate(REMEMBERED - 1);
        kept.ended.push_front(Ended { token: sandbox.token.clone(), id: sandbox.id.clone(), ending });
        drop(kept);
        sandbox.kill();
        true
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What belongs to a token. All are compared, each in constant time.
fn find_token<'a, T>(owners: impl Iterator<Item = (&'a str, T)>, token: &str) -> Option<T> {
    owners.fold(None, |found, (own, owner)| {
        let equal = bool::from(own.as_bytes().ct_eq(token.as_bytes()));
        if equal { Some(owner) } else { found }
    })
}

/// Ends a sandbox that has written too much.
async fn bound_disk(registry: Registry, id: String, sandbox: Weak<Sandbox>) {
    if let Some(ending) = supervise::over_disk(sandbox).await {
        registry.end(&id, Some(ending));
    }
}

/// Ends a sandbox at its deadline, which may move, or when its container is gone.
async fn keep_time(registry: Registry, sandbox: Weak<Sandbox>) {
    let Some(kept) = sandbox.upgrade() else { return };
    let (id, mut changes, gone) = (kept.id.clone(), kept.life.subscribe(), kept.gone.clone());
    let lost = kept.link().ended();
    drop(kept);
    let mut tries = 0;
    loop {
        let life = *changes.borrow_and_update();
        let left = life.end.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
        tokio::select! {
            biased;
            // First: who is killed loses the container too.
            () = gone.cancelled() => return,
            () = tokio::time::sleep(left), if !life.paused => {
                let Some(sandbox) = sandbox.upgrade() else { return };
                tries += 1;
                match expire(&registry, &sandbox, tries).await {
                    Expired::Paused => tries = 0,
                    Expired::NotYet => {}
                    Expired::Removed => return,
                }
            }
            changed = changes.changed() => if changed.is_err() { return },
            () = lost.cancelled() => {
                let Some(sandbox) = sandbox.upgrade() else { return };
                let ending = sandbox.container.find_ending(sandbox.spec.template.memory_bytes).await;
                registry.end(&id, Some(ending));
                return;
            }
        }
    }
}

/// How often a sandbox that is to be paused is tried to be, and how long apart: an engine that is restarted costs nobody's work.
const PAUSE_TRIES: u32 = 5;
const PAUSE_RETRY: Duration = Duration::from_secs(15);

/// What became of a sandbox at its deadline.
enum Expired {
    Paused,
    /// It could not be paused, and has a little longer.
    NotYet,
    Removed,
}

async fn expire(registry: &Registry, sandbox: &Arc<Sandbox>, tries: u32) -> Expired {
    if sandbox.spec.on_timeout == OnTimeout::Pause {
        let Err(err) = sandbox.pause().await else { return Expired::Paused };
        let error = &err as &dyn std::error::Error;
        if tries < PAUSE_TRIES {
            tracing::warn!(sandbox.id, error, "cannot pause a sandbox at its deadline; trying again");
            sandbox.extend(PAUSE_RETRY);
            return Expired::NotYet;
        }
        tracing::error!(sandbox.id, error, "cannot pause a sandbox at its deadline; removing it");
    }
    tracing::info!(sandbox.id, "sandbox {} reached its deadline", sandbox.id);
    registry.kill(&sandbox.id);
    Expired::Removed
}
