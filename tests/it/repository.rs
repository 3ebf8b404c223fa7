//! The files of the repository, for tests that read them.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a directory.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

/// The documentation pages: those at the top, and those below docs/.
pub(crate) fn documents() -> Vec<PathBuf> {
    let top = fs::read_dir(root()).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut pages: Vec<_> = top.chain(files(&root().join("docs"))).filter(|path| has_end(path, "md")).collect();
    pages.sort();
    assert!(pages.len() > 5, "the documents were not found");
    pages
}

pub(crate) fn has_end(path: &Path, end: &str) -> bool {
    path.extension().is_some_and(|own| own == end)
}
