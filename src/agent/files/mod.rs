//! Files inside the container, with the rights of the user that is acted for and no others, so that a link that leads to what
//! is not the user's leads nowhere; or, where the client may do anything inside, with root's.
//!
//! What may take long is done on a thread for that, see [`apart`]. The rest is plain blocking calls: the writable directories are
//! memory or its cache.

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

/// Threads for work that may take long.
pub const THREADS: usize = 4;

/// Does work that may take long on a thread for that, so that everything else is answered meanwhile. Whoever is acted for there is so on
/// that thread alone.
///
/// In a container that has used up its processes there is one such thread, which was started before any code, and work waits for it.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// An error of the operating system's about a path.
fn refused(path: &Path, err: &io::Error) -> Refused {
    let path = path.display();
    match err.kind() {
        io::ErrorKind::NotFound => Refused::not_found(format!("path '{path}' does not exist")),
        _ => Refused::io(format!("path '{path}'"), err),
    }
}

/// Makes the directories above `target` that are missing, for the user.
fn create_parents(user: &User, target: &Path) -> io::Result<()> {
    target.parent().map_or(Ok(()), |parent| create_directories(user, parent))
}

fn create_directories(user: &User, path: &Path) -> io::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|path| !path.is_dir()).collect();
    for directory in missing.into_iter().rev() {
        match std::fs::create_dir(directory) {
            Ok(()) => user.own(directory)?,
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

/// Fills the user's home, which is an empty file system at the start, from the image's `/etc/skel`. What the image has there already
/// belongs to the account under the image's uid, and is given to it under its own.
pub(crate) fn fill_home(user: &User, of_image: Option<u32>) -> io::Result<()> {
    if user.ids.is_none() {
        return Ok(());
    }
    if let Some(of_image) = of_image.filter(|uid| user.ids.is_some_and(|(own, _)| own != *uid)) {
        give_tree(user, of_image, &user.home)?;
    }
    copy_tree(user, Path::new("/etc/skel"), &user.home)
}

/// Gives to the user what belongs to another, at a path and below it.
fn give_tree(user: &User, other: u32, path: &Path) -> io::Result<()> {
    let found = std::fs::symlink_metadata(path)?;
    if found.uid() == other {
        user.own(path)?;
    }
    if found.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give_tree(user, other, &entry?.path())?;
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
        user.own(&target)?;
    }
    Ok(())
}
