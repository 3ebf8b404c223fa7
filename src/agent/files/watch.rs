//! Watches on directories, by the kernel's inotify.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::Stream;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

use super::{entry, refused};
use crate::agent::answer::Refused;
use crate::agent::sys;
use crate::agent::users::{Names, User};
use crate::protocol::{WatchEvent, WatchKind, WatchQuery, Watcher};

/// Events kept for a client that does not fetch them; the oldest are given up first.
const KEPT: usize = 8192;

/// One watch on a directory.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: AsyncFd<OwnedFd>,
    user: User,
    root: PathBuf,
    recursive: bool,
    entries: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Directories under watch, relative to the root, by the kernel's number.
    directories: HashMap<i32, PathBuf>,
    /// What was found in new directories and told already: the kernel may tell it once more.
    found: HashSet<PathBuf>,
    events: VecDeque<WatchEvent>,
}

impl Watch {
    /// Begins to watch; what happens from now on is told.
    pub(crate) fn new(user: &User, query: &WatchQuery) -> Result<Self, Refused> {
        let root = user.resolve(&query.path)?;
        let refused = |err: std::io::Error| refused(&root, &err);
        if !user.act(|| std::fs::metadata(&root)).map_err(refused)?.is_dir() {
            return Err(Refused::invalid(format!("path is not a directory: {}", root.display())));
        }
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|err| refused(err.into()))?;
        let watch = Self {
            inotify: sys::readable(inotify).map_err(refused)?,
            user: user.clone(),
            root: root.clone(),
            recursive: query.recursive,
            entries: query.entries,
            state: Mutex::default(),
        };
        let mut state = watch.state();
        user.act(|| {
            watch.add(&mut state, Path::new(""))?;
            if watch.recursive {
                watch.add_below(&mut state, Path::new(""), &mut |_| {});
            }
            Ok(())
        })
        .map_err(refused)?;
        drop(state);
        Ok(watch)
    }

    /// The events, as they happen.
    pub(crate) fn into_stream(self) -> impl Stream<Item = WatchEvent> + Send + 'static {
        futures::stream::unfold(self, |watch| async move {
            loop {
                let event = watch.state().events.pop_front();
                if let Some(event) = event {
                    return Some((event, watch));
                }
                watch.wait().await?;
            }
        })
    }

    /// The events since the last time. What has happened before the call is among them.
    fn take(&self) -> Vec<WatchEvent> {
        self.read_all();
        self.state().events.drain(..).collect()
    }

    /// Waits for the kernel and takes what it has. None when there will be nothing more.
    async fn wait(&self) -> Option<()> {
        // Cleared before the kernel's queue is emptied: what comes after that raises it again.
        self.inotify.readable().await.ok()?.clear_ready();
        self.read_all();
        Some(())
    }

    fn read_all(&self) {
        let mut state = self.state();
        // What it cannot do as the user, it does not do.
        let _ = self.user.act(|| {
            self.read_events(&mut state);
            Ok::<_, std::io::Error>(())
        });
    }

    fn read_events(&self, state: &mut State) {
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut reader = inotify::Reader::new(self.inotify.get_ref(), &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsString::from_vec(name.to_bytes().to_vec()));
                    let (number, flags) = (event.wd(), event.events());
                    self.on_event(state, number, flags, name);
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        // Nothing is left in the kernel that could tell them again.
        state.found.clear();
    }

    fn on_event(&self, state: &mut State, number: i32, flags: ReadFlags, name: Option<OsString>) {
        if flags.contains(ReadFlags::IGNORED) {
            state.directories.remove(&number);
            return;
        }
        // A directory's own events are told by the one above it, with a name.
        let (Some(name), Some(directory)) = (name, state.directories.get(&number)) else { return };
        let path = directory.join(name);
        let kind = if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            WatchKind::Create
        } else if flags.contains(ReadFlags::MODIFY) {
            WatchKind::Write
        } else if flags.contains(ReadFlags::DELETE) {
            WatchKind::Remove
        } else if flags.contains(ReadFlags::MOVED_FROM) {
            WatchKind::Rename
        } else if flags.contains(ReadFlags::ATTRIB) {
            WatchKind::Chmod
        } else {
            return;
        };
        let was_found = match kind {
            WatchKind::Create | WatchKind::Remove | WatchKind::Rename => state.found.remove(&path),
            WatchKind::Write | WatchKind::Chmod => false,
        };
        if kind == WatchKind::Create && was_found {
            return;
        }
        self.push(state, kind, &path);
        if !self.recursive || !flags.contains(ReadFlags::ISDIR) {
            return;
        }
        match kind {
            WatchKind::Create => {
                if self.add(state, &path).is_ok() {
                    let mut found = Vec::new();
                    self.add_below(state, &path, &mut |path| found.push(path));
                    for path in found {
                        self.push(state, WatchKind::Create, &path);
                        state.found.insert(path);
                    }
                }
            }
            // It may live on elsewhere, where nobody asked to watch.
            WatchKind::Rename => self.forget_below(state, &path),
            WatchKind::Write | WatchKind::Remove | WatchKind::Chmod => {}
        }
    }

    fn push(&self, state: &mut State, kind: WatchKind, path: &Path) {
        let is_there = matches!(kind, WatchKind::Create | WatchKind::Write | WatchKind::Chmod);
        let entry = (self.entries && is_there).then(|| entry::entry(&self.root.join(path), &Names::read()).ok());
        if state.events.len() == KEPT {
            state.events.pop_front();
        }
        let name = path.to_string_lossy().into_owned();
        state.events.push_back(WatchEvent { kind, name, entry: entry.flatten() });
    }

    fn add(&self, state: &mut State, directory: &Path) -> rustix::io::Result<()> {
        let mut flags = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        // The root may be reached through a link; what is below it may not lead elsewhere.
        if directory != Path::new("") {
            flags |= WatchFlags::DONT_FOLLOW;
        }
        let number = inotify::add_watch(self.inotify.get_ref(), self.root.join(directory), flags)?;
        state.directories.insert(number, directory.to_owned());
        Ok(())
    }

    /// Watches all directories below one, and tells `found` of everything that is there.
    fn add_below(&self, state: &mut State, directory: &Path, found: &mut impl FnMut(PathBuf)) {
        let Ok(entries) = std::fs::read_dir(self.root.join(directory)) else { return };
        let mut below = vec![entries];
        while let Some(entries) = below.last_mut() {
            let Some(Ok(entry)) = entries.next() else {
                below.pop();
                continue;
            };
            let path = entry.path();
            let relative = path.strip_prefix(&self.root).expect("it is below the root").to_owned();
            found(relative.clone());
            // Watched before it is read, so that nothing is made in between unseen.
            if entry.file_type().is_ok_and(|kind| kind.is_dir())
                && self.add(state, &relative).is_ok()
                && let Ok(entries) = std::fs::read_dir(&path)
            {
                below.push(entries);
            }
        }
    }

    fn forget_below(&self, state: &mut State, directory: &Path) {
        let gone: Vec<_> = state
            .directories
            .iter()
            .filter(|(_, path)| path.starts_with(directory))
            .map(|(number, _)| *number)
            .collect();
        for number in gone {
            state.directories.remove(&number);
            let _ = inotify::remove_watch(self.inotify.get_ref(), number);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches whose events are fetched now and then.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    made: AtomicU64,
    kept: Mutex<BTreeMap<String, Kept>>,
}

/// Ends with its reader.
#[derive(Debug)]
struct Kept {
    watch: Arc<Watch>,
    reader: AbortHandle,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Watches {
    /// Keeps a watch under an id.
    pub(crate) fn keep(&self, watch: Watch) -> Watcher {
        let watch = Arc::new(watch);
        let reader = Arc::clone(&watch);
        // New directories must be watched when they are made, not when somebody asks.
        let reader = tokio::spawn(async move { while reader.wait().await.is_some() {} }).abort_handle();
        let id = self.made.fetch_add(1, Ordering::Relaxed).to_string();
        self.kept().insert(id.clone(), Kept { watch, reader });
        Watcher { id }
    }

    /// Its events since the last time, up to now.
    pub(crate) fn take(&self, id: &str) -> Result<Vec<WatchEvent>, Refused> {
        self.kept().get(id).map(|kept| kept.watch.take()).ok_or_else(|| unknown(id))
    }

    /// Ends one.
    pub(crate) fn remove(&self, id: &str) -> Result<(), Refused> {
        self.kept().remove(id).map(|_| ()).ok_or_else(|| unknown(id))
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(id: &str) -> Refused {
    Refused::not_found(format!("watcher with id {id} not found"))
}
