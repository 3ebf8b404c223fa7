//! What is in a directory, and below it.

use std::fs::ReadDir;
use std::io;
use std::path::{Path, PathBuf};

use futures::Stream;

use super::{apart, entry, refused};
use crate::agent::answer::Refused;
use crate::agent::users::{Names, User};
use crate::protocol::{Entry, ListQuery};

/// Entries that are looked at in one go.
const TURN: usize = 64;

/// The entries below a directory in lexical order, each directory followed by its own. Symbolic links below it are not
/// followed; what disappears meanwhile is left out.
pub(crate) async fn list(
    user: User,
    query: &ListQuery,
) -> Result<impl Stream<Item = Vec<Entry>> + Send + 'static + use<>, Refused> {
    let path = user.resolve(&query.path)?;
    let depth = query.depth.max(1) as usize;
    let walk = apart({
        let user = user.clone();
        move || user.act(|| Walk::begin(&path, depth))
    });
    let walk = walk.await?;
    Ok(futures::stream::unfold((user, walk), |(user, mut walk)| {
        apart(move || {
            let entries = user.act(|| Ok::<_, io::Error>(walk.by_ref().take(TURN).collect::<Vec<_>>())).ok()?;
            (!entries.is_empty()).then_some((entries, (user, walk)))
        })
    }))
}

struct Walk {
    depth: usize,
    /// From the outermost directory to the innermost; never empty before the end.
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

/// What is left of one directory, last name first.
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
