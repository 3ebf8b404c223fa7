//! Lists the content of a directory and of the directories below it.

use std::fs::ReadDir;
use std::io;
use std::path::{Path, PathBuf};

use futures::Stream;

use super::{entry, refused, run_blocking};
use crate::agent::answer::Refused;
use crate::agent::users::{Names, User};
use crate::protocol::{Entry, ListQuery};

/// Entries that are read in one batch.
const BATCH: usize = 64;

/// Streams the entries below a directory in lexical order, each directory followed by its content. Symbolic links below
/// it are not followed; entries that disappear meanwhile are left out.
pub(crate) async fn list(
    user: User,
    query: &ListQuery,
) -> Result<impl Stream<Item = Vec<Entry>> + Send + 'static + use<>, Refused> {
    let path = user.resolve(&query.path)?;
    let depth = query.depth.max(1) as usize;
    let walk = run_blocking({
        let user = user.clone();
        move || user.with_rights(|| Walk::begin(&path, depth))
    });
    let walk = walk.await?;
    Ok(futures::stream::unfold((user, walk), |(user, mut walk)| {
        run_blocking(move || {
            let entries =
                user.with_rights(|| Ok::<_, io::Error>(walk.by_ref().take(BATCH).collect::<Vec<_>>())).ok()?;
            (!entries.is_empty()).then_some((entries, (user, walk)))
        })
    }))
}

struct Walk {
    depth: usize,
    /// The directories from the outermost to the innermost; empty at the end.
    levels: Vec<Level>,
    names: Names,
}

impl Walk {
    fn begin(path: &Path, depth: usize) -> Result<Self, Refused> {
        if !std::fs::metadata(path).map_err(|err| refused(path, &err))?.is_dir() {
            return Err(Refused::invalid(format!("path is not a directory: {}", path.display())));
        }
        let first = Level::read(path).map_err(|err| refused(path, &err))?;
        Ok(Self { depth, levels: vec![first], names: Names::read() })
    }
}

/// The remaining paths of one directory, in reverse order.
struct Level(Vec<PathBuf>);

impl Level {
    fn read(path: &Path) -> io::Result<Self> {
        let entries: ReadDir = std::fs::read_dir(path)?;
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(path.join(entry.ok()?.file_name()))).collect();
        paths.sort_unstable_by(|left, right| right.file_name().cmp(&left.file_name()));
        Ok(Self(paths))
    }
}

impl Iterator for Walk {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            let Some(path) = self.levels.last_mut()?.0.pop() else {
                self.levels.pop();
                continue;
            };
            let Ok(entry) = entry::entry(&path, &self.names) else { continue };
            if self.levels.len() < self.depth
                && std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir())
                && let Ok(level) = Level::read(&path)
            {
                self.levels.push(level);
            }
            return Some(entry);
        }
    }
}
