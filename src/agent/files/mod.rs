//! File operations inside the container. They run with the rights of the requested user and no others, so that a link
//! cannot lead to another user's files. In a sandbox with `superuser` they run with root's rights.
//!
//! Slow operations run on a thread of their own, see [`run_blocking`]. The others block the agent for a moment: the
//! writable directories are in memory or in the page cache.

mod change;
mod content;
mod entry;
mod list;
mod watch;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::answer::Refused;
use super::users::User;
pub(crate) use change::{make_directory, relocate, remove};
pub(crate) use content::{read, write};
pub(crate) use entry::stat;
pub(crate) use list::list;
pub(crate) use watch::{Watch, Watches};

/// The number of threads for slow work.
pub const THREADS: usize = 4;

/// Runs slow work on another thread, so that the agent answers other requests meanwhile. If the work changes to a
/// user's rights, it does so on that thread only.
///
/// In a container that has used up its process limit, only the thread that was started before any code exists, and work
/// waits for it.
async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// A refusal for an error of the operating system at a path.
fn refused(path: &Path, err: &io::Error) -> Refused {
    let path = path.display();
    match err.kind() {
        io::ErrorKind::NotFound => Refused::not_found(format!("path '{path}' does not exist")),
        _ => Refused::io(format!("path '{path}'"), err),
    }
}

/// Makes the missing directories above `target`; they belong to the user.
fn create_parents(user: &User, target: &Path) -> io::Result<()> {
    target.parent().map_or(Ok(()), |parent| create_directories(user, parent))
}

fn create_directories(user: &User, path: &Path) -> io::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|path| !path.is_dir()).collect();
    for directory in missing.into_iter().rev() {
        match std::fs::create_dir(directory) {
            Ok(()) => user.chown(directory)?,
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

/// Fills the user's home, which is an empty file system at the start, from the image's `/etc/skel`. If the image has
/// files there already, they belong to `image_uid`, the account's uid in the image, and are given to the account's uid
/// in this sandbox.
pub(crate) fn fill_home(user: &User, image_uid: Option<u32>) -> io::Result<()> {
    if user.ids.is_none() {
        return Ok(());
    }
    if let Some(image_uid) = image_uid.filter(|uid| user.ids.is_some_and(|(own, _)| own != *uid)) {
        change_owner_below(user, image_uid, &user.home)?;
    }
    copy_tree(user, Path::new("/etc/skel"), &user.home)
}

/// Makes the user the owner of everything at a path and below it that belongs to `old_uid`.
fn change_owner_below(user: &User, old_uid: u32, path: &Path) -> io::Result<()> {
    let found = std::fs::symlink_metadata(path)?;
    if found.uid() == old_uid {
        user.chown(path)?;
    }
    if found.is_dir() {
        for entry in std::fs::read_dir(path)? {
            change_owner_below(user, old_uid, &entry?.path())?;
        }
    }
    Ok(())
}

fn copy_tree(user: &User, from: &Path, to: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy_tree(user, &entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
        user.chown(&target)?;
    }
    Ok(())
}
