//! Files and directories, by paths inside the container.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `GET` [`ReadQuery`]: the file's bytes, with [`FILE_SIZE`] and [`FILE_MODIFIED`] as headers. `PUT` [`WriteQuery`]:
/// writes the body to that file and makes the missing directories above it. `DELETE` [`FileQuery`]: removes the file,
/// or the directory and everything below it, if it exists.
pub const FILES: &str = "/files";
/// `GET` [`FileQuery`]: the [`Entry`].
pub const ENTRY: &str = "/files/entry";
/// `GET` [`ListQuery`]: a stream of [`Entry`]s, one JSON object per line, each directory followed by its content.
pub const LIST: &str = "/files/list";
/// `POST` [`FileQuery`]: makes a directory and the missing ones above it, and answers with its [`Entry`].
pub const DIRECTORIES: &str = "/files/directories";
/// `POST` [`MoveQuery`]: moves a path, and answers with the [`Entry`] at the new path.
pub const MOVE: &str = "/files/move";
/// `GET` [`WatchQuery`]: a stream of [`WatchEvent`]s, one JSON object per line. It begins once the watch is in place.
pub const WATCH: &str = "/files/watch";
/// `POST` [`WatchQuery`]: a [`Watcher`]. `GET` [`Watcher`]: the [`WatchEvent`]s since the last `GET`, one JSON object
/// per line. `DELETE` [`Watcher`]: ends it.
pub const WATCHERS: &str = "/watchers";

/// The header with the size of the file, bytes; always 0 for a file of `procfs`.
pub const FILE_SIZE: &str = "oncebox-size";
/// The header with the time of the file's last change, nanoseconds since 1970.
pub const FILE_MODIFIED: &str = "oncebox-modified-ns";

/// The longest line of an [`Entry`] or a [`WatchEvent`], bytes.
pub const MAX_FILE_LINE_BYTES: usize = 256 * 1024;

/// Names a file. The files and directories that an operation makes belong to `user`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FileQuery {
    /// An absolute path, or one relative to the user's home. `~` and the empty path are the home itself.
    pub path: String,
    /// An account of the image. The default is the account `user`.
    pub user: Option<String>,
}

/// The file, and the part of it, to read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReadQuery {
    /// As in [`FileQuery`].
    pub path: String,
    /// As in [`FileQuery`].
    pub user: Option<String>,
    /// Offset of the first byte.
    #[serde(default)]
    pub offset: u64,
    /// The largest number of bytes to read. If missing, the file is read to its end.
    pub length: Option<u64>,
}

/// The file to write, and its attributes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WriteQuery {
    /// As in [`FileQuery`].
    pub path: String,
    /// As in [`FileQuery`].
    pub user: Option<String>,
    /// A JSON object of strings: extended attributes by name. They replace all attributes whose names begin with
    /// `attribute_prefix`. If missing, the attributes stay unchanged.
    pub attributes: Option<String>,
    /// The prefix of all names in `attributes`. It begins with `user.`, the namespace that users may write.
    #[serde(default)]
    pub attribute_prefix: String,
}

/// The directory to list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListQuery {
    /// As in [`FileQuery`].
    pub path: String,
    /// As in [`FileQuery`].
    pub user: Option<String>,
    /// The number of levels to list; 0 means 1.
    #[serde(default)]
    pub depth: u32,
}

/// The path to move, and its new path.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MoveQuery {
    /// The old path, as in [`FileQuery`].
    pub from: String,
    /// The new path, as in [`FileQuery`].
    pub to: String,
    /// As in [`FileQuery`].
    pub user: Option<String>,
}

/// The directory to watch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WatchQuery {
    /// A directory, as in [`FileQuery`].
    pub path: String,
    /// As in [`FileQuery`].
    pub user: Option<String>,
    /// Whether to watch all directories below it too, including those made later.
    #[serde(default)]
    pub recursive: bool,
    /// Whether events contain [`WatchEvent::entry`].
    #[serde(default)]
    pub entries: bool,
}

/// A file, a directory, or another named object of the file system. For a symbolic link, `kind` describes the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Entry {
    /// The last part of the path.
    pub name: String,
    /// Its kind.
    pub kind: EntryKind,
    /// The absolute path.
    pub path: String,
    /// Its size, bytes.
    pub size: u64,
    /// `st_mode` of `lstat`: the file type and the permission bits.
    pub mode: u32,
    /// The name of the account, or its number if it has none.
    pub owner: String,
    /// The name of the group, or its number if it has none.
    pub group: String,
    /// The time of the last change of its content, nanoseconds since 1970.
    pub modified_ns: i64,
    /// The final target of a symbolic link, with all links resolved; the path of the link itself if the target does not
    /// exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symlink_target: Option<String>,
    /// `st_mode` of a symbolic link's target, if that exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_mode: Option<u32>,
    /// Its extended attributes in the namespace `user.` that have UTF-8 values, by full name; empty for a symbolic
    /// link.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// The kinds of [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A device, a pipe, a socket, or a symbolic link without an existing target.
    Other,
}

/// A watcher, as an answer and as a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Watcher {
    /// Its id.
    pub id: String,
}

/// A change below a watched directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WatchEvent {
    /// The kind of change.
    pub kind: WatchKind,
    /// The path, relative to the watched directory.
    pub name: String,
    /// The current entry at that path, if [`WatchQuery::entries`] asked for it and it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Entry>,
}

/// The kinds of [`WatchEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WatchKind {
    /// The path is new: it was made, or moved here.
    Create,
    /// The content changed.
    Write,
    /// The path was removed.
    Remove,
    /// The path was moved away.
    Rename,
    /// The permissions, owner, times or attributes changed.
    Chmod,
}
