//! The kept sandboxes by id. Ends each at its deadline.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use subtle::ConstantTimeEq;

use super::error::Ending;
use super::kept::{OnTimeout, Sandbox};
use super::owner::Owner;
use super::owners::Owners;
use super::supervise;

/// The number of ended sandboxes that are remembered.
const REMEMBERED: usize = 1024;

/// The kept sandboxes.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    kept: Arc<Mutex<Kept>>,
    owners: Arc<Owners>,
}

#[derive(Debug, Default)]
struct Kept {
    sandboxes: BTreeMap<String, Arc<Sandbox>>,
    /// The sandboxes that ended last, newest first: a client that still uses one learns that it ended, not that its
    /// token is wrong.
    ended: VecDeque<Ended>,
}

/// A sandbox that has ended.
#[derive(Debug)]
struct Ended {
    token: String,
    id: String,
    /// Why it ended; `None` if it was killed or reached its deadline.
    ending: Option<Ending>,
}

impl Registry {
    /// No sandbox is kept at first.
    pub(super) fn new(owners: Arc<Owners>) -> Self {
        Self { kept: Arc::default(), owners }
    }

    /// Keeps a sandbox until its deadline.
    pub(crate) fn insert(&self, sandbox: Arc<Sandbox>) {
        // Before the tasks start: they look the sandbox up here to end it.
        self.lock().sandboxes.insert(sandbox.id.clone(), Arc::clone(&sandbox));
        tokio::spawn(enforce_deadline(self.clone(), Arc::downgrade(&sandbox)));
        tokio::spawn(supervise::read(Arc::downgrade(&sandbox)));
        if sandbox.spec.template.writable_root {
            tokio::spawn(enforce_disk_limit(self.clone(), sandbox.id.clone(), Arc::downgrade(&sandbox)));
        }
    }

    /// The sandbox with this id, unless its container is gone.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Sandbox>> {
        // A lost sandbox stays registered until the cause is known.
        self.lock().sandboxes.get(id).filter(|sandbox| !sandbox.is_lost()).cloned()
    }

    /// The sandbox with this token.
    pub(crate) fn by_token(&self, token: &str) -> Option<Arc<Sandbox>> {
        let kept = self.lock();
        let own = kept.sandboxes.values().map(|sandbox| (sandbox.token.as_str(), sandbox));
        find_token(own, token).cloned()
    }

    /// The id of the sandbox that had this token, if it ended recently.
    pub(crate) fn ended_by_token(&self, token: &str) -> Option<String> {
        find_token(self.lock().ended.iter().map(|ended| (ended.token.as_str(), &ended.id)), token).cloned()
    }

    /// Why the sandbox with this id ended recently; `None` if it was killed or reached its deadline.
    pub(crate) fn ending(&self, id: &str) -> Option<Ending> {
        self.lock().ended.iter().find(|ended| ended.id == id)?.ending.clone()
    }

    /// All kept sandboxes whose containers are not gone.
    pub(crate) fn all(&self) -> Vec<Arc<Sandbox>> {
        self.lock().sandboxes.values().filter(|sandbox| !sandbox.is_lost()).cloned().collect()
    }

    /// Removes a sandbox. False if the id is unknown.
    pub(crate) fn kill(&self, id: &str) -> bool {
        self.end(id, None)
    }

    /// Removes a sandbox and remembers why it ended; `None` if it was killed or reached its deadline. False if the id
    /// is unknown.
    pub(crate) fn end(&self, id: &str, ending: Option<Ending>) -> bool {
        let mut kept = self.lock();
        let Some(sandbox) = kept.sandboxes.remove(id) else { return false };
        kept.ended.truncate(REMEMBERED - 1);
        kept.ended.push_front(Ended { token: sandbox.token.clone(), id: sandbox.id.clone(), ending });
        drop(kept);
        let allowance = self.owners.allowance(sandbox.spec.owner);
        sandbox.kill(allowance.limits.cpu_seconds_per_day.is_some());
        true
    }

    /// All sandboxes of an owner.
    pub(crate) fn all_of(&self, owner: Owner) -> Vec<Arc<Sandbox>> {
        self.lock().sandboxes.values().filter(|sandbox| sandbox.spec.owner == owner).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds the value that belongs to a token. Compares with every token, each in constant time.
fn find_token<'a, T>(owners: impl Iterator<Item = (&'a str, T)>, token: &str) -> Option<T> {
    owners.fold(None, |found, (own, owner)| {
        let equal = bool::from(own.as_bytes().ct_eq(token.as_bytes()));
        if equal { Some(owner) } else { found }
    })
}

/// Ends a sandbox that has written more to its disk than it may.
async fn enforce_disk_limit(registry: Registry, id: String, sandbox: Weak<Sandbox>) {
    if let Some(ending) = supervise::over_disk(sandbox).await {
        registry.end(&id, Some(ending));
    }
}

/// Ends a sandbox at its deadline, which may change, or when its container is gone.
async fn enforce_deadline(registry: Registry, sandbox: Weak<Sandbox>) {
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
            // First: a killed sandbox loses its container too, but must not be reported as lost.
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

/// The number of attempts to pause a sandbox at its deadline, and the time between them. With them, a sandbox survives
/// a restart of the engine.
const PAUSE_TRIES: u32 = 5;
const PAUSE_RETRY: Duration = Duration::from_secs(15);

/// The result of a sandbox's deadline.
enum Expired {
    Paused,
    /// The sandbox could not be paused. Its deadline was moved to try again.
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
