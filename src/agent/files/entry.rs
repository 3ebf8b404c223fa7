//! Reads the metadata of one path.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::refused;
use crate::agent::answer::Refused;
use crate::agent::users::{Names, User};
use crate::protocol::{Entry, EntryKind};

/// The namespace of the extended attributes that a user may write.
pub(super) const NAMESPACE: &str = "user.";

/// Reads the entry at a client's path.
pub(crate) fn stat(user: &User, path: &str) -> Result<Entry, Refused> {
    let path = user.resolve(path)?;
    user.with_rights(|| entry(&path, &Names::read())).map_err(|err| refused(&path, &err))
}

/// Reads the entry at an absolute path. A symbolic link is described itself, with the kind and the mode of its target.
pub(super) fn entry(path: &Path, names: &Names) -> io::Result<Entry> {
    let found = std::fs::symlink_metadata(path)?;
    let is_link = found.is_symlink();
    let target = is_link.then(|| std::fs::canonicalize(path));
    let described = match &target {
        None => Some(found.clone()),
        Some(Ok(target)) => std::fs::metadata(target).ok(),
        Some(Err(_)) => None,
    };
    Ok(Entry {
        name: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        kind: described.as_ref().map_or(EntryKind::Other, kind),
        path: path.to_string_lossy().into_owned(),
        size: found.len(),
        mode: found.mode(),
        target_mode: described.filter(|_| is_link).map(|target| target.mode()),
        owner: names.user(found.uid()),
        group: names.group(found.gid()),
        modified_ns: modified_ns(&found),
        symlink_target: target.map(|target| target.unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()),
        attributes: if is_link { BTreeMap::new() } else { read_attributes(path) },
    })
}

/// The time of the last change of the content, nanoseconds since 1970.
pub(super) fn modified_ns(found: &Metadata) -> i64 {
    found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec())
}

fn kind(found: &Metadata) -> EntryKind {
    if found.is_dir() {
        EntryKind::Directory
    } else if found.is_file() {
        EntryKind::File
    } else {
        EntryKind::Other
    }
}

fn read_attributes(path: &Path) -> BTreeMap<String, String> {
    // On a file system without extended attributes there are none.
    let read = || -> rustix::io::Result<BTreeMap<String, String>> {
        let length = rustix::fs::listxattr_query(path)?;
        if length == 0 {
            return Ok(BTreeMap::new());
        }
        let mut names = vec![0_u8; length];
        let length = rustix::fs::listxattr(path, &mut names)?;
        let names = names[..length].split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok());
        let ours = names.filter(|name| name.starts_with(NAMESPACE));
        Ok(ours.filter_map(|name| Some((name.to_owned(), attribute(path, name)?))).collect())
    };
    read().unwrap_or_default()
}

fn attribute(path: &Path, name: &str) -> Option<String> {
    let mut value = vec![0; rustix::fs::getxattr_query(path, name).ok()?];
    let length = if value.is_empty() { 0 } else { rustix::fs::getxattr(path, name, &mut value).ok()? };
    value.truncate(length);
    String::from_utf8(value).ok()
}

/// Replaces an open file's extended attributes whose names begin with `prefix`; `path` is its path.
pub(super) fn replace_attributes(
    file: &std::fs::File,
    path: &Path,
    prefix: &str,
    attributes: &BTreeMap<String, String>,
) -> io::Result<()> {
    let old = read_attributes(path).into_keys().filter(|name| name.starts_with(prefix));
    for name in old.filter(|name| !attributes.contains_key(name)) {
        rustix::fs::fremovexattr(file, name)?;
    }
    for (name, value) in attributes {
        rustix::fs::fsetxattr(file, name.as_str(), value.as_bytes(), rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_entry_of_a_symbolic_link_describes_its_target() {
        let root = tempfile::tempdir().expect("a directory");
        let root = root.path().canonicalize().expect("a path");
        std::fs::create_dir(root.join("real")).expect("a directory");
        symlink("real", root.join("link")).expect("a link");
        symlink("link", root.join("link-to-link")).expect("a link");
        symlink("nowhere", root.join("broken")).expect("a link");
        let names = Names::default();
        let link = entry(&root.join("link-to-link"), &names).expect("an entry");
        assert_eq!((link.kind, link.mode, link.target_mode), (EntryKind::Directory, 0o120777, Some(0o40755)));
        assert_eq!(link.symlink_target, Some(root.join("real").display().to_string()));
        let broken = entry(&root.join("broken"), &names).expect("an entry");
        assert_eq!((broken.kind, broken.target_mode), (EntryKind::Other, None));
        assert_eq!(broken.symlink_target, Some(root.join("broken").display().to_string()));
    }
}
