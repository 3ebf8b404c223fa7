//! The shared state of a sandbox's watches: the inotify instance, the kernel's numbers of directories, and the space
//! for events.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::events::{Events, MAX_BYTES};
use super::walk::Walk;
use super::{Relative, refused, too_many};
use crate::agent::answer::{Refused, line};
use crate::agent::files::entry;
use crate::agent::users::{Names, User};
use crate::protocol::{WatchEvent, WatchKind, WatchQuery};

/// The most directories that are watched at once in one sandbox. A directory of two watches counts twice.
const MAX_DIRECTORIES: usize = 65_536;

/// Events or directory entries that are handled in one step.
const STEP: usize = 64;

/// The kernel's events for which a directory is watched.
const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::ONLYDIR);

/// The state of all watches.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Made by the first watch.
    pub(super) inotify: Option<Arc<AsyncFd<OwnedFd>>>,
    /// The id of the next watch.
    next_id: u64,
    watches: BTreeMap<u64, Watched>,
    /// The watches of each directory, by the kernel's number for it. The kernel gives one directory the same number
    /// every time.
    holders: HashMap<i32, Vec<u64>>,
    /// The number of directories of all watches.
    directories: usize,
    /// The bytes of events of all watches.
    bytes: usize,
    /// Events that were read but not handled yet.
    unhandled: VecDeque<Unhandled>,
    /// Directory walks in progress. Events wait for them, because the entries that a walk finds are older.
    walks: VecDeque<Walk>,
    /// The names of accounts, cached for one step.
    names: Option<Names>,
}

/// One watch.
#[derive(Debug)]
struct Watched {
    user: User,
    root: PathBuf,
    recursive: bool,
    entries: bool,
    /// Its directories, by the kernel's number.
    directories: HashMap<i32, Relative>,
    /// Paths that a walk found in new directories and reported. The kernel may report them once more.
    found: HashSet<Relative>,
    events: Events,
    new_event: Arc<Notify>,
    /// Whether all directories that existed at its beginning are watched, or the limit that prevents it.
    complete: Result<bool, Full>,
}

/// The limit because of which a directory cannot be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    /// The sandbox watches [`MAX_DIRECTORIES`].
    Sandbox,
    /// The kernel's limit for the account.
    Kernel,
}

impl From<Full> for Refused {
    fn from(full: Full) -> Self {
        too_many(match full {
            Full::Sandbox => format!("a sandbox watches at most {MAX_DIRECTORIES} directories at once"),
            Full::Kernel => "the host's `fs.inotify.max_user_watches` allows no more watched directories".to_owned(),
        })
    }
}

/// An event of the kernel.
#[derive(Debug)]
struct Unhandled {
    number: i32,
    flags: ReadFlags,
    name: Option<OsString>,
}

impl Shared {
    /// The number of watches.
    pub(super) fn len(&self) -> usize {
        self.watches.len()
    }

    /// Begins a watch and returns its id. The watch is in place once [`Shared::is_complete`] is true.
    pub(super) fn begin(
        &mut self,
        user: User,
        root: PathBuf,
        query: &WatchQuery,
        new_event: Arc<Notify>,
    ) -> Result<u64, Refused> {
        let id = self.next_id;
        self.next_id += 1;
        let watched = Watched {
            user: user.clone(),
            root: root.clone(),
            recursive: query.recursive,
            entries: query.entries,
            directories: HashMap::new(),
            found: HashSet::new(),
            events: Events::default(),
            new_event,
            complete: Ok(!query.recursive),
        };
        self.watches.insert(id, watched);
        let added = user.with_rights(|| self.add(id, Path::new("")));
        if let Err(err) = added {
            self.end(id);
            return Err(match full(&err) {
                Some(full) => full.into(),
                None => refused(&root, &err),
            });
        }
        if query.recursive {
            let walk = user.with_rights(|| Ok::<_, io::Error>(Walk::new(id, false, &root)))?;
            self.walks.push_back(walk);
        }
        Ok(id)
    }

    /// Whether all directories that existed when the watch began are watched.
    pub(super) fn is_complete(&self, id: u64) -> Result<bool, Refused> {
        Ok(self.watches[&id].complete?)
    }

    /// Ends a watch. The kernel stops watching the directories that no other watch has.
    pub(super) fn end(&mut self, id: u64) {
        let Some(watched) = self.watches.remove(&id) else { return };
        self.bytes -= watched.events.bytes();
        self.walks.retain(|walk| walk.watch != id);
        for number in watched.directories.into_keys() {
            self.release(number, id);
        }
    }

    /// Takes the oldest event of a watch.
    pub(super) fn next(&mut self, id: u64) -> Option<Bytes> {
        let event = self.watches.get_mut(&id)?.events.pop()?;
        self.bytes -= event.len();
        Some(event)
    }

    /// Handles some entries of a walk or some events. False if nothing is left to do.
    pub(super) fn step(&mut self) -> bool {
        self.names = None;
        if let Some(walk) = self.walks.pop_front() {
            self.step_walk(walk);
            return true;
        }
        if self.unhandled.is_empty() {
            self.read();
        }
        if self.unhandled.is_empty() {
            return false;
        }
        for _ in 0..STEP {
            let Some(event) = self.unhandled.pop_front() else { break };
            self.handle(&event);
            if !self.walks.is_empty() {
                break;
            }
        }
        true
    }

    /// Reads one buffer of events.
    fn read(&mut self) {
        let Some(inotify) = self.inotify.clone() else { return };
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut reader = inotify::Reader::new(inotify.get_ref(), &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsString::from_vec(name.to_bytes().to_vec()));
                    self.unhandled.push_back(Unhandled { number: event.wd(), flags: event.events(), name });
                    if reader.is_buffer_empty() {
                        return;
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        // The kernel's queue is empty, so no found path can be reported again.
        self.watches.values_mut().for_each(|watched| watched.found.clear());
    }

    fn handle(&mut self, event: &Unhandled) {
        let Some(ids) = self.holders.get(&event.number).cloned() else { return };
        if event.flags.contains(ReadFlags::IGNORED) {
            self.holders.remove(&event.number);
            for id in ids {
                self.watches.get_mut(&id).map(|watched| watched.directories.remove(&event.number));
                self.directories -= 1;
            }
            return;
        }
        // The watch on the directory above reports a directory's own events, with a name.
        let (Some(name), Some(kind)) = (&event.name, kind(event.flags)) else { return };
        for id in ids {
            let Some(directory) = self.watches.get(&id).and_then(|watched| watched.directories.get(&event.number))
            else {
                continue;
            };
            let path = directory.join(name);
            self.report(id, kind, path, event.flags.contains(ReadFlags::ISDIR));
        }
    }

    /// Reports an event at a path to one watch, and adjusts the directories of a recursive one.
    fn report(&mut self, id: u64, kind: WatchKind, path: Relative, is_directory: bool) {
        let Some(watched) = self.watches.get_mut(&id) else { return };
        let was_found = match kind {
            WatchKind::Create | WatchKind::Remove | WatchKind::Rename => watched.found.remove(&path),
            WatchKind::Write | WatchKind::Chmod => false,
        };
        if kind == WatchKind::Create && was_found {
            return;
        }
        let (recursive, user) = (watched.recursive && is_directory, watched.user.clone());
        self.push(id, kind, &path);
        match kind {
            WatchKind::Create if recursive => {
                // A directory that the user's rights do not allow to watch is left out.
                let _ = user.with_rights(|| {
                    self.add(id, &path)?;
                    let directory = self.watches[&id].root.join(&path);
                    self.walks.push_back(Walk::new(id, true, &directory));
                    Ok::<_, io::Error>(())
                });
            }
            // The directory may have moved to a place outside the watch.
            WatchKind::Rename if recursive => self.forget_below(id, &path),
            _ => {}
        }
    }

    fn push(&mut self, id: u64, kind: WatchKind, path: &Path) {
        let Some(watched) = self.watches.get_mut(&id) else { return };
        let is_there = matches!(kind, WatchKind::Create | WatchKind::Write | WatchKind::Chmod);
        let entry = (watched.entries && is_there).then(|| {
            let names = self.names.get_or_insert_with(Names::read);
            watched.user.with_rights(|| entry::entry(&watched.root.join(path), names)).ok()
        });
        let name = path.to_string_lossy().into_owned();
        self.bytes -= watched.events.bytes();
        watched.events.push(line(&WatchEvent { kind, name, entry: entry.flatten() }));
        self.bytes += watched.events.bytes();
        watched.new_event.notify_one();
        while self.bytes > MAX_BYTES {
            let fullest = self.watches.values_mut().max_by_key(|watched| watched.events.bytes());
            let Some(dropped) = fullest.and_then(|watched| watched.events.pop()) else { return };
            self.bytes -= dropped.len();
        }
    }

    /// Makes the kernel watch a directory for a watch, with the rights of the calling thread.
    fn add(&mut self, id: u64, directory: &Path) -> io::Result<()> {
        if self.directories == MAX_DIRECTORIES {
            return Err(Errno::DQUOT.into());
        }
        let inotify = self.inotify.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let watched = self.watches.get_mut(&id).ok_or(io::ErrorKind::NotConnected)?;
        // The root may be a link, but a link below it must not lead out of the root.
        let follow = if directory == Path::new("") { WatchFlags::empty() } else { WatchFlags::DONT_FOLLOW };
        let number = inotify::add_watch(inotify.get_ref(), watched.root.join(directory), EVENTS | follow)?;
        if watched.directories.insert(number, directory.to_owned()).is_none() {
            self.holders.entry(number).or_default().push(id);
            self.directories += 1;
        }
        Ok(())
    }

    /// Watches the directories that a walk finds. Reports all entries if the walk is in a new directory.
    fn step_walk(&mut self, mut walk: Walk) {
        let id = walk.watch;
        let Some((user, root)) = self.watches.get(&id).map(|watched| (watched.user.clone(), watched.root.clone()))
        else {
            return;
        };
        let mut found = Vec::new();
        let walked = user.with_rights(|| {
            for _ in 0..STEP {
                let Some(entry) = walk.next() else { return Ok(None) };
                let path = entry.path();
                let relative = path.strip_prefix(&root).map_err(io::Error::other)?.to_owned();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    match self.add(id, &relative) {
                        Ok(()) => walk.descend(path),
                        // Only for the start of a watch: in a new directory no request waits that could be refused.
                        Err(err) if !walk.reports && full(&err).is_some() => return Err(err),
                        Err(_) => {}
                    }
                }
                found.push(relative);
            }
            Ok::<_, io::Error>(Some(()))
        });
        if walk.reports {
            for path in found {
                self.push(id, WatchKind::Create, &path);
                self.watches.get_mut(&id).map(|watched| watched.found.insert(path));
            }
        }
        let Some(watched) = self.watches.get_mut(&id) else { return };
        match walked {
            Ok(Some(())) => self.walks.push_front(walk),
            Ok(None) if walk.reports => {}
            Ok(None) => watched.complete = Ok(true),
            Err(err) => watched.complete = full(&err).map_or(Ok(true), Err),
        }
    }

    /// Stops watching a directory and the directories below it for one watch.
    fn forget_below(&mut self, id: u64, directory: &Path) {
        let Some(watched) = self.watches.get_mut(&id) else { return };
        let gone: Vec<_> = watched.directories.extract_if(|_, path| path.starts_with(directory)).collect();
        for (number, _) in gone {
            self.release(number, id);
        }
    }

    /// Removes a directory from one watch. The kernel stops watching it if no other watch has it.
    fn release(&mut self, number: i32, id: u64) {
        let Some(ids) = self.holders.get_mut(&number) else { return };
        ids.retain(|other| *other != id);
        self.directories -= 1;
        if ids.is_empty() {
            self.holders.remove(&number);
            let _ = self.inotify.as_ref().map(|inotify| inotify::remove_watch(inotify.get_ref(), number));
        }
    }
}

fn kind(flags: ReadFlags) -> Option<WatchKind> {
    if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
        Some(WatchKind::Create)
    } else if flags.contains(ReadFlags::MODIFY) {
        Some(WatchKind::Write)
    } else if flags.contains(ReadFlags::DELETE) {
        Some(WatchKind::Remove)
    } else if flags.contains(ReadFlags::MOVED_FROM) {
        Some(WatchKind::Rename)
    } else if flags.contains(ReadFlags::ATTRIB) {
        Some(WatchKind::Chmod)
    } else {
        None
    }
}

/// The limit that caused an error, if one did.
fn full(err: &io::Error) -> Option<Full> {
    match Errno::from_io_error(err)? {
        Errno::DQUOT => Some(Full::Sandbox),
        Errno::NOSPC => Some(Full::Kernel),
        _ => None,
    }
}
