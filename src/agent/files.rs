//! Files inside the container, written as the user.

use std::io;
use std::path::{Path, PathBuf};

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

/// Writes `body` to the file, creating the directories above it, with the rights of the user.
pub(crate) async fn write<S, E>(user: &User, path: &str, mut body: S) -> Result<(), FileError>
where
    S: Stream<Item = Result<bytes::Bytes, E>> + Unpin,
{
    let target = resolve(user, path)?;
    let refused = |source| FileError::Io { path: path.to_owned(), source };
    let creator = user.clone();
    let created = tokio::task::spawn_blocking(move || creator.act(|| create(&target)));
    let mut file = tokio::fs::File::from_std(created.await.expect("creating a file does not panic").map_err(refused)?);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| FileError::Body(path.to_owned()))?;
        file.write_all(&chunk).await.map_err(refused)?;
    }
    file.flush().await.map_err(refused)
}

fn create(target: &Path) -> io::Result<std::fs::File> {
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // A pipe without a reader would be waited for, a device is no place for content.
    match std::fs::metadata(target) {
        Ok(found) if !found.is_file() => Err(io::Error::other("not a regular file")),
        _ => std::fs::File::create(target),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn user(home: &Path) -> User {
        User { name: "user".to_owned(), ids: None, home: home.to_owned() }
    }

    #[test]
    fn relative_paths_start_at_home() {
        let user = user(Path::new("/home/user"));
        let resolved = |path| resolve(&user, path).expect("a path");
        assert_eq!(resolved("a/b"), Path::new("/home/user/a/b"));
        assert_eq!(resolved("/tmp/a"), Path::new("/tmp/a"));
        for path in ["", "a/", "/", "a\0b"] {
            assert!(matches!(resolve(&user, path), Err(FileError::Path(_))), "{path:?}");
        }
    }

    #[tokio::test]
    async fn a_file_is_written_with_the_directories_above_it() {
        let home = tempfile::tempdir().expect("a directory");
        let user = user(home.path());
        let body = || futures::stream::iter(["one ", "two"].map(|piece| Ok::<_, ()>(bytes::Bytes::from(piece))));
        write(&user, "a/b/c", body()).await.expect("a file");
        assert_eq!(std::fs::read_to_string(home.path().join("a/b/c")).expect("a file"), "one two");
        for path in ["a/b", "a/b/c/d", "/dev/null"] {
            assert!(matches!(write(&user, path, body()).await, Err(FileError::Io { .. })), "{path}");
        }
        let broken = futures::stream::iter([Ok(bytes::Bytes::from_static(b"one")), Err(())]);
        assert!(matches!(write(&user, "d", broken).await, Err(FileError::Body(_))));
    }
}
