//! Kept sandboxes by id, each with its deadline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use subtle::ConstantTimeEq;

use super::handle::{OnTimeout, Sandbox};

/// Sandboxes that are kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    sandboxes: Arc<Mutex<BTreeMap<String, Arc<Sandbox>>>>,
}

impl Registry {
    /// Keeps a sandbox until its deadline.
    pub(crate) fn insert(&self, sandbox: Arc<Sandbox>) {
        tokio::spawn(keep_time(self.clone(), Arc::downgrade(&sandbox)));
        self.lock().insert(sandbox.id.clone(), sandbox);
    }

    /// The sandbox of that id. One whose container is gone is gone too.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Sandbox>> {
        let sandbox = self.lock().get(id).cloned()?;
        if sandbox.is_lost() {
            self.kill(id);
            return None;
        }
        Some(sandbox)
    }

    /// The sandbox of that token. All are compared, each in constant time.
    pub(crate) fn by_token(&self, token: &str) -> Option<Arc<Sandbox>> {
        self.lock().values().fold(None, |found, sandbox| {
            let equal = bool::from(sandbox.token.as_bytes().ct_eq(token.as_bytes()));
            if equal { Some(Arc::clone(sandbox)) } else { found }
        })
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Sandbox>> {
        self.lock().values().cloned().collect()
    }

    /// Removes a sandbox. False if there is none.
    pub(crate) fn kill(&self, id: &str) -> bool {
        let removed = self.lock().remove(id);
        if let Some(sandbox) = &removed {
            sandbox.kill();
        }
        removed.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Sandbox>>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a sandbox at its deadline, which may move.
async fn keep_time(registry: Registry, sandbox: Weak<Sandbox>) {
    let Some((mut changes, gone)) = sandbox.upgrade().map(|sandbox| (sandbox.life.subscribe(), sandbox.gone.clone()))
    else {
        return;
    };
    loop {
        let life = *changes.borrow_and_update();
        let left = life.end.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
        tokio::select! {
            () = tokio::time::sleep(left), if !life.paused => {
                let Some(sandbox) = sandbox.upgrade() else { return };
                if !expire(&registry, &sandbox).await {
                    return;
                }
            }
            changed = changes.changed() => if changed.is_err() { return },
            () = gone.cancelled() => return,
        }
    }
}

/// False when the sandbox is gone.
async fn expire(registry: &Registry, sandbox: &Sandbox) -> bool {
    if sandbox.spec.on_timeout == OnTimeout::Pause {
        match sandbox.pause().await {
            Ok(_) => return true,
            Err(err) => {
                let error = &err as &dyn std::error::Error;
                tracing::error!(sandbox.id, error, "cannot pause a sandbox at its deadline; removing it");
            }
        }
    }
    tracing::info!(sandbox.id, "sandbox {} reached its deadline", sandbox.id);
    registry.kill(&sandbox.id);
    false
}
