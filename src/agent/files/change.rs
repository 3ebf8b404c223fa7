//! Makes directories, and moves and removes files and directories.

use std::fs::{FileTimes, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{create_directories, create_parents, entry, refused, run_blocking};
use crate::agent::answer::Refused;
use crate::agent::users::{Names, User};
use crate::protocol::{Code, Entry};

/// Makes a directory and the missing ones above it; they belong to the user.
pub(crate) fn make_directory(user: &User, path: &str) -> Result<Entry, Refused> {
    let path = user.resolve(path)?;
    user.with_rights(|| make(user, &path))
}

fn make(user: &User, path: &Path) -> Result<Entry, Refused> {
    if let Ok(found) = std::fs::metadata(path) {
        let path = path.display();
        return Err(if found.is_dir() {
            Refused::new(Code::AlreadyExists, format!("directory already exists: {path}"))
        } else {
            Refused::invalid(format!("path already exists but it is not a directory: {path}"))
        });
    }
    create_directories(user, path).map_err(|err| refused(path, &err))?;
    entry::entry(path, &Names::read()).map_err(|err| refused(path, &err))
}

/// Moves a file or a directory and makes the missing directories above the new path.
pub(crate) async fn relocate(user: User, from: &str, to: &str) -> Result<Entry, Refused> {
    let (from, to) = (user.resolve(from)?, user.resolve(to)?);
    run_blocking(move || user.with_rights(|| rename(&user, &from, &to))).await
}

fn rename(user: &User, from: &Path, to: &Path) -> Result<Entry, Refused> {
    std::fs::symlink_metadata(from).map_err(|err| refused(from, &err))?;
    let failed = |err| refused(to, &err);
    create_parents(user, to).map_err(failed)?;
    match std::fs::rename(from, to) {
        Err(err) if err.kind() == io::ErrorKind::CrossesDevices => move_across(from, to),
        moved => moved,
    }
    .map_err(failed)?;
    entry::entry(to, &Names::read()).map_err(failed)
}

/// Moves a path to another file system by copying it. Each writable directory is a file system of its own, and clients
/// should not notice that.
fn move_across(from: &Path, to: &Path) -> io::Result<()> {
    let mut beside = to.as_os_str().to_owned();
    beside.push(".moving");
    let beside = PathBuf::from(beside);
    let moved = copy(from, &beside).and_then(|()| std::fs::rename(&beside, to));
    if moved.is_err() {
        let _ = remove_all(&beside);
        return moved;
    }
    remove_all(from)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let found = std::fs::symlink_metadata(from)?;
    if found.is_symlink() {
        return std::os::unix::fs::symlink(std::fs::read_link(from)?, to);
    }
    if found.is_dir() {
        std::fs::create_dir(to)?;
        for entry in std::fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
    } else if found.is_file() {
        std::fs::copy(from, to)?;
    } else {
        return Err(io::Error::other("only files and directories can be moved between file systems"));
    }
    keep_attributes(&found, to)
}

fn keep_attributes(found: &Metadata, to: &Path) -> io::Result<()> {
    // Best effort: only root can keep another owner.
    let _ = std::os::unix::fs::chown(to, Some(found.uid()), Some(found.gid()));
    // After the owner, because a change of owner clears some permission bits.
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(found.mode() & 0o7777))?;
    let times = FileTimes::new().set_modified(found.modified()?).set_accessed(found.accessed()?);
    std::fs::File::open(to)?.set_times(times)
}

/// Removes a file, or a directory with its content. A path that does not exist is not an error.
pub(crate) async fn remove(user: User, path: &str) -> Result<(), Refused> {
    let path = user.resolve(path)?;
    run_blocking(move || user.with_rights(|| remove_all(&path)).map_err(|err| refused(&path, &err))).await
}

fn remove_all(path: &Path) -> io::Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(err) => Err(err),
    };
    match removed {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
