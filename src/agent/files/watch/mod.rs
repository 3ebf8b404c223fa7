//! Watches on directories. All watches share one inotify instance, because the kernel counts instances per user on the
//! whole host.

mod events;
mod shared;
mod walk;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use futures::Stream;
use rustix::fs::inotify::{self, CreateFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::refused;
use crate::agent::answer::Refused;
use crate::agent::sys;
use crate::agent::users::{User, Users};
use crate::protocol::{Code, WatchQuery, Watcher};
use shared::Shared;

/// The most concurrent watches in one sandbox.
const MAX_WATCHES: usize = 512;

/// The most steps that a request for events waits for. By then all earlier events are read, because the kernel queues
/// at most 16,384 events of an instance.
const MAX_SETTLE_STEPS: usize = 32_768;

/// The watches of a sandbox.
#[derive(Debug)]
pub(crate) struct Watches {
    shared: Arc<Mutex<Shared>>,
    /// The account that owns the inotify instance.
    owner: User,
    instance: OnceLock<Instance>,
    /// The watches whose events the client fetches from time to time, by id.
    fetched: Mutex<BTreeMap<String, Watch>>,
}

/// The inotify instance. Dropping it aborts the task that reads the instance.
#[derive(Debug)]
struct Instance {
    reader: AbortHandle,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Watches {
    /// Creates a set without watches. The first watch makes the inotify instance.
    pub(crate) fn new(users: &Users) -> Self {
        Self {
            shared: Arc::default(),
            // The kernel counts an instance for the account that makes it, and root's count is shared with the host.
            owner: User { confined: true, ..users.default.clone() },
            instance: OnceLock::new(),
            fetched: Mutex::default(),
        }
    }

    /// Begins a watch. It reports everything that happens from now on.
    ///
    /// # Errors
    ///
    /// [`Code::Exhausted`] if the sandbox has as many watches or watched directories as it may have.
    pub(crate) async fn watch(&self, user: User, query: WatchQuery) -> Result<Watch, Refused> {
        let root = user.resolve(&query.path)?;
        let not_watched = |err: io::Error| refused(&root, &err);
        if !user.with_rights(|| std::fs::metadata(&root)).map_err(not_watched)?.is_dir() {
            return Err(Refused::invalid(format!("path is not a directory: {}", root.display())));
        }
        self.make_instance()?;
        // Earlier events are handled first, so that the new watch does not get them.
        settle(&self.shared).await;
        let watch = {
            let mut shared = lock(&self.shared);
            if shared.len() == MAX_WATCHES {
                return Err(too_many(format!("a sandbox has at most {MAX_WATCHES} watches at once")));
            }
            let new_event = Arc::new(Notify::new());
            let id = shared.begin(user, root.clone(), &query, Arc::clone(&new_event))?;
            Watch { id, new_event, shared: Arc::clone(&self.shared) }
        };
        while !lock(&self.shared).is_complete(watch.id)? {
            settle(&self.shared).await;
        }
        Ok(watch)
    }

    fn make_instance(&self) -> Result<(), Refused> {
        if self.instance.get().is_some() {
            return Ok(());
        }
        let made =
            self.owner.with_rights(|| Ok::<_, io::Error>(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?));
        let inotify = made.map_err(|err| Refused::io("cannot watch: no inotify instance can be made", &err))?;
        let inotify = Arc::new(sys::readable(inotify)?);
        lock(&self.shared).inotify = Some(Arc::clone(&inotify));
        // Read continuously, because new directories must be watched as soon as they are made, not when a client
        // fetches events.
        let reader = tokio::spawn(read(inotify, Arc::clone(&self.shared))).abort_handle();
        let _ = self.instance.set(Instance { reader });
        Ok(())
    }

    /// Keeps a watch under an id, for a client that fetches its events.
    pub(crate) fn keep(&self, watch: Watch) -> Watcher {
        let id = watch.id.to_string();
        self.fetched().insert(id.clone(), watch);
        Watcher { id }
    }

    /// Takes the events of a watch since the last call, one line of JSON each.
    pub(crate) async fn take(&self, id: &str) -> Result<Vec<Bytes>, Refused> {
        settle(&self.shared).await;
        self.fetched().get(id).map(Watch::take).ok_or_else(|| unknown(id))
    }

    /// Ends a watch.
    pub(crate) fn remove(&self, id: &str) -> Result<(), Refused> {
        self.fetched().remove(id).map(|_| ()).ok_or_else(|| unknown(id))
    }

    fn fetched(&self) -> MutexGuard<'_, BTreeMap<String, Watch>> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One watch on a directory. Dropping it ends the watch.
#[derive(Debug)]
pub(crate) struct Watch {
    id: u64,
    /// Notified of each event.
    new_event: Arc<Notify>,
    shared: Arc<Mutex<Shared>>,
}

impl Watch {
    /// Streams the events as they happen, one line of JSON each.
    pub(crate) fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        futures::stream::unfold(self, |watch| async move {
            loop {
                let event = lock(&watch.shared).next(watch.id);
                if let Some(event) = event {
                    return Some((Ok(event), watch));
                }
                watch.new_event.notified().await;
            }
        })
    }

    fn take(&self) -> Vec<Bytes> {
        let mut shared = lock(&self.shared);
        std::iter::from_fn(|| shared.next(self.id)).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.shared).end(self.id);
    }
}

/// Reads the kernel's events as long as the instance exists.
async fn read(inotify: Arc<AsyncFd<std::os::fd::OwnedFd>>, shared: Arc<Mutex<Shared>>) {
    while let Ok(mut ready) = inotify.readable().await {
        // Cleared before the kernel's queue is emptied, so that an event that comes afterwards sets it again.
        ready.clear_ready();
        while lock(&shared).step() {
            tokio::task::yield_now().await;
        }
    }
}

/// Handles all events up to now. Other requests are answered meanwhile.
async fn settle(shared: &Mutex<Shared>) {
    for _ in 0..MAX_SETTLE_STEPS {
        if !lock(shared).step() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unknown(id: &str) -> Refused {
    Refused::not_found(format!("watcher with id {id} not found"))
}

fn too_many(message: impl Into<String>) -> Refused {
    Refused::new(Code::Exhausted, message)
}

/// A path relative to the root of a watch.
type Relative = PathBuf;
