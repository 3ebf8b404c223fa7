//! Walks the directories below a newly watched one.

use std::fs::{DirEntry, ReadDir};
use std::path::{Path, PathBuf};

/// A walk over everything below a directory, each directory followed by its content. Symbolic links are not followed.
#[derive(Debug)]
pub(super) struct Walk {
    /// The id of its watch.
    pub(super) watch: u64,
    /// Whether the watch reports the entries that the walk finds.
    pub(super) reports: bool,
    levels: Vec<ReadDir>,
}

impl Walk {
    /// Begins a walk in a directory. It is empty if the directory cannot be read.
    pub(super) fn new(watch: u64, reports: bool, directory: &Path) -> Self {
        Self { watch, reports, levels: std::fs::read_dir(directory).into_iter().collect() }
    }

    /// The next entry; `None` at the end.
    pub(super) fn next(&mut self) -> Option<DirEntry> {
        while let Some(entries) = self.levels.last_mut() {
            if let Some(Ok(entry)) = entries.next() {
                return Some(entry);
            }
            self.levels.pop();
        }
        None
    }

    /// Continues in a directory that the walk has just found. The caller must watch the directory before, so that no
    /// entry made in between is missed.
    pub(super) fn descend(&mut self, directory: PathBuf) {
        self.levels.extend(std::fs::read_dir(directory));
    }
}
