//! Kept sandboxes by id, each with its deadline.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use subtle::ConstantTimeEq;

use super::handle::{OnTimeout, Sandbox};
use super::meter;

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
    /// Tokens and ids of the last that ended, so that who still sends one learns that, and not that it is wrong.
    ended: VecDeque<(String, String)>,
}

impl Registry {
    /// Keeps a sandbox until its deadline.
    pub(crate) fn insert(&self, sandbox: Arc<Sandbox>) {
        // First: what ends it looks for it here.
        self.lock().sandboxes.insert(sandbox.id.clone(), Arc::clone(&sandbox));
        tokio::spawn(keep_time(self.clone(), Arc::downgrade(&sandbox)));
        tokio::spawn(meter::read(Arc::downgrade(&sandbox)));
        if sandbox.spec.template.writable_root {
            tokio::spawn(meter::bound_disk(self.clone(), Arc::downgrade(&sandbox)));
        }
    }

    /// The sandbox of that id. One whose container is gone is gone too.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Sandbox>> {
        let sandbox = self.lock().sandboxes.get(id).cloned()?;
        if sandbox.is_lost() {
            self.kill(id);
            return None;
        }
        Some(sandbox)
    }

    /// The sandbox of that token.
    pub(crate) fn by_token(&self, token: &str) -> Option<Arc<Sandbox>> {
        let kept = self.lock();
        let own = kept.sandboxes.values().map(|sandbox| (sandbox.token.as_str(), sandbox));
        find_token(own, token).cloned()
    }

    /// The id of the sandbox of that token, if it ended not long ago.
    pub(crate) fn ended_by_token(&self, token: &str) -> Option<String> {
        find_token(self.lock().ended.iter().map(|(own, id)| (own.as_str(), id)), token).cloned()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Sandbox>> {
        self.lock().sandboxes.values().cloned().collect()
    }

    /// Removes a sandbox. False if there is none.
    pub(crate) fn kill(&self, id: &str) -> bool {
        let mut kept = self.lock();
        let Some(sandbox) = kept.sandboxes.remove(id) else { return false };
        kept.ended.truncate(REMEMBERED - 1);
        kept.ended.push_front((sandbox.token.clone(), sandbox.id.clone()));
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
                tracing::warn!(sandbox.id = id, "sandbox {id} has lost its container");
                registry.kill(&id);
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
