//! What is known of one path.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::refused;
use crate::agent::answer::Refused;
use crate::agent::users::{Names, User};
use crate::protocol::{Entry, EntryKind};

/// Metadata are extended attributes of this prefix.
const METADATA: &str = "user.e2b.";

/// The entry at a path.
pub(crate) fn stat(user: &User, path: &str) -> Result<Entry, Refused> {
    let path = user.resolve(path)?;
    user.act(|| entry(&path, &Names::read())).map_err(|err| refused(&path, &err))
}

/// The entry at an absolute path. Symbolic links are described, not followed.
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
        mode: described.as_ref().map_or(0, |described| described.mode() & 0o777),
        permissions: permissions(&found),
        owner: names.user(found.uid()),
        group: names.group(found.gid()),
        modified_ns: modified_ns(&found),
        symlink_target: target.map(|target| target.unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()),
        metadata: if is_link { BTreeMap::new() } else { read_metadata(path) },
    })
}

/// The time of the last change of the content.
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

/// As Go's `FileMode.String`, which is what E2B's clients see: letters for what is special, then nine bits.
fn permissions(found: &Metadata) -> String {
    let (kind, mode) = (found.file_type(), found.mode());
    let mut text: String = [
        (kind.is_dir(), 'd'),
        (kind.is_symlink(), 'L'),
        (kind.is_block_device() || kind.is_char_device(), 'D'),
        (kind.is_fifo(), 'p'),
        (kind.is_socket(), 'S'),
        (mode & 0o4000 != 0, 'u'),
        (mode & 0o2000 != 0, 'g'),
        (kind.is_char_device(), 'c'),
        (mode & 0o1000 != 0, 't'),
    ]
    .into_iter()
    .filter_map(|(is_so, letter)| is_so.then_some(letter))
    .collect();
    if text.is_empty() {
        text.push('-');
    }
    text.extend("rwxrwxrwx".chars().enumerate().map(
        |(at, letter)| {
            if mode & (0o400 >> at) != 0 { letter } else { '-' }
        },
    ));
    text
}

fn read_metadata(path: &Path) -> BTreeMap<String, String> {
    // What a file system does not know is not there.
    let read = || -> rustix::io::Result<BTreeMap<String, String>> {
        let length = rustix::fs::listxattr_query(path)?;
        if length == 0 {
            return Ok(BTreeMap::new());
        }
        let mut names = vec![0_u8; length];
        let length = rustix::fs::listxattr(path, &mut names)?;
        let names = names[..length].split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok());
        Ok(names.filter_map(|name| Some((name.strip_prefix(METADATA)?.to_owned(), attribute(path, name)?))).collect())
    };
    read().unwrap_or_default()
}

fn attribute(path: &Path, name: &str) -> Option<String> {
    let mut value = vec![0; rustix::fs::getxattr_query(path, name).ok()?];
    let length = if value.is_empty() { 0 } else { rustix::fs::getxattr(path, name, &mut value).ok()? };
    value.truncate(length);
    String::from_utf8(value).ok()
}

/// Replaces the metadata of an open file; `path` is its path.
pub(super) fn write_metadata(file: &std::fs::File, path: &Path, metadata: &BTreeMap<String, String>) -> io::Result<()> {
    for name in read_metadata(path).into_keys().filter(|name| !metadata.contains_key(name)) {
        rustix::fs::fremovexattr(file, format!("{METADATA}{name}"))?;
    }
    for (name, value) in metadata {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(file, format!("{METADATA}{name}"), value.as_bytes(), flags)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn permissions_are_written_as_clients_know_them() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("file");
        std::fs::write(&path, "").expect("a file");
        for (mode, text) in [(0o644, "-rw-r--r--"), (0o751, "-rwxr-x--x"), (0o4755, "urwxr-xr-x")] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
            assert_eq!(permissions(&std::fs::symlink_metadata(&path).expect("it")), text);
        }
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o1777)).expect("a mode");
        assert_eq!(permissions(&std::fs::metadata(root.path()).expect("it")), "dtrwxrwxrwx");
    }

    #[test]
    fn of_a_symbolic_link_the_target_is_described() {
        let root = tempfile::tempdir().expect("a directory");
        let root = root.path().canonicalize().expect("a path");
        std::fs::create_dir(root.join("real")).expect("a directory");
        symlink("real", root.join("link")).expect("a link");
        symlink("link", root.join("link-to-link")).expect("a link");
        symlink("nowhere", root.join("broken")).expect("a link");
        let names = Names::default();
        let link = entry(&root.join("link-to-link"), &names).expect("an entry");
        assert_eq!((link.kind, link.mode, link.permissions.as_str()), (EntryKind::Directory, 0o755, "Lrwxrwxrwx"));
        assert_eq!(link.symlink_target, Some(root.join("real").display().to_string()));
        let broken = entry(&root.join("broken"), &names).expect("an entry");
        assert_eq!(broken.kind, EntryKind::Other);
        assert_eq!(broken.symlink_target, Some(root.join("broken").display().to_string()));
    }
}
