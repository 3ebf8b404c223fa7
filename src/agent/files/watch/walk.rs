//! The directories below one that begins to be watched.

use std::fs::{DirEntry, ReadDir};
use std::path::{Path, PathBuf};

/// Everything below a directory, each directory followed by what is in it. Symbolic links are not followed.
#[derive(Debug)]
pub(super) struct Walk {
    /// Whose watch.
    pub(super) watch: u64,
    /// Whether the watch tells of what is found.
    pub(super) told: bool,
    levels: Vec<ReadDir>,
}

impl Walk {
    /// Begins in a directory, unless it cannot be read.
    pub(super) fn new(watch: u64, told: bool, directory: &Path) -> Self {
        Self { watch, told, levels: std::fs::read_dir(directory).into_iter().collect() }
    }

    /// The next path; `None` at the end.
    pub(super) fn next(&mut self) -> Option<DirEntry> {
        while let Some(entries) = self.levels.last_mut() {
            if let Some(Ok(entry)) = entries.next() {
                return Some(entry);
            }
            self.levels.pop();
        }
        None
    }

    /// Goes on in a directory that it has just found. To be watched before that, so that nothing is made in between unseen.
    pub(super) fn descend(&mut self, directory: PathBuf) {
        self.levels.extend(std::fs::read_dir(directory));
    }
}
