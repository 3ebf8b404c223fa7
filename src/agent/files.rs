//! Files inside the container, written as the user.

use std::io;
use std::path::{Component, Path, PathBuf};

use futures::{Stream, StreamExt};
use thiserror::Error;
use tokio::io::AsyncWriteExt;

use super::sys::User;

/// Why a file could not be written.
#[derive(Debug, Error)]
pub(crate) enum FileError {
    /// The caller's mistake: the path is empty, or names a directory.
    #[error("{0}")]
    Path(String),
    /// The operating system refused.
    #[error("cannot write `{path}`: {source}")]
    Io {
        /// The path as it was given.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The body broke off.
    #[error("the content of `{0}` broke off")]
    Body(String),
}

/// Where a path given by a client lies: relative ones below the user's home.
pub(crate) fn resolve(user: &User, path: &str) -> Result<PathBuf, FileError> {
    if path.is_empty() || path.ends_with('/') || path.contains('\0') {
        return Err(FileError::Path(format!("`{path}` does not name a file")));
    }
    Ok(user.home.join(path))
}

/// Writes `body` to the file, creating the directories above it; both belong to the user.
pub(crate) async fn write<S, E>(user: &User, path: &str, mut body: S) -> Result<(), FileError>
where
    S: Stream<Item = Result<bytes::Bytes, E>> + Unpin,
{
    let target = resolve(user, path)?;
    let refused = |source| FileError::Io { path: path.to_owned(), source };
    create_parents(user, &target).map_err(refused)?;
    let mut file = tokio::fs::File::create(&target).await.map_err(refused)?;
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| FileError::Body(path.to_owned()))?;
        file.write_all(&chunk).await.map_err(refused)?;
    }
    file.flush().await.map_err(refused)?;
    user.own(&target).map_err(refused)
}

fn create_parents(user: &User, target: &Path) -> io::Result<()> {
    let parents = target.ancestors().skip(1).collect::<Vec<_>>();
    for parent in parents.into_iter().rev().filter(|path| *path != Path::new("")) {
        match std::fs::create_dir(parent) {
            // `..` is somebody else's directory, whatever it is called here.
            Ok(()) if parent.components().next_back() != Some(Component::ParentDir) => user.own(parent)?,
            Ok(()) => {}
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_) if parent.is_dir() => {}
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

/// Fills the user's home, which is an empty file system at the start, from the image's `/etc/skel`.
pub(crate) fn fill_home(user: &User) -> io::Result<()> {
    if user.ids.is_none() {
        return Ok(());
    }
    copy_tree(user, Path::new("/etc/skel"), &user.home)
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
