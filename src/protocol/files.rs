//! Files and directories, by paths inside the container.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `GET` [`ReadQuery`]: the file's bytes, with [`FILE_SIZE`] and [`FILE_MODIFIED`] in the head. `PUT` [`WriteQuery`]: writes
/// the body to that file, with the directories above it. `DELETE` [`FileQuery`]: removes it and all below it, if it is
/// there.
pub const FILES: &str = "/files";
/// `GET` [`FileQuery`]: the [`Entry`].
pub const ENTRY: &str = "/files/entry";
/// `GET` [`ListQuery`]: a stream of [`Entry`]s, one JSON object per line, each directory followed by what is in it.
pub const LIST: &str = "/files/list";
/// `POST` [`FileQuery`]: makes a directory and those above it: its [`Entry`].
pub const DIRECTORIES: &str = "/files/directories";
/// `POST` [`MoveQuery`]: the [`Entry`] at its new place.
pub const MOVE: &str = "/files/move";
/// `GET` [`WatchQuery`]: a stream of [`WatchEvent`]s, one JSON object per line. It begins once the watch is in place.
pub const WATCH: &str = "/files/watch";
/// `POST` [`WatchQuery`]: a [`Watcher`]. `GET` it: the [`WatchEvent`]s since the last time, up to now, one JSON object per line. `DELETE`
/// it: ends it.
pub const WATCHERS: &str = "/watchers";

/// The header with the size of a file that is read, bytes; 0 for a file of `procfs`, whatever is in it.
pub const FILE_SIZE: &str = "oncebox-size";
/// The header with the time of a file's last change, nanoseconds since 1970.
pub const FILE_MODIFIED: &str = "oncebox-modified-ns";

/// The longest [`Entry`] or [`WatchEvent`] as a line, bytes.
pub const MAX_FILE_LINE_BYTES: usize = 256 * 1024;

/// Names a file. What an operation makes belongs to `user`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct FileQuery {
    /// Absolute, or relative to the user's home. `~` is the home; an empty path too.
    pub path: String,
    /// An account of the image; without it, the user.
    pub user: Option<String>,
}

/// Which part of a file to read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ReadQuery {
    /// As in [`FileQuery`].
    pub path: String,
    /// As in [`FileQuery`].
    pub user: Option<String>,
    /// Where to begin, bytes.
    #[serde(default)]
    pub offset: u64,
    /// How many bytes at the most.
    pub length: Option<u64>,
}

/// Where to write.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WriteQuery {
    /// As in [`FileQuery`].
    pub path: String,
    /// As in [`FileQuery`].
    pub user: Option<String>,
    /// A JSON object of strings: extended attributes by name. They replace those whose names begin with `attribute_prefix`.
    /// Without it, the attributes stay.
    pub attributes: Option<String>,
    /// The beginning of the names of `attributes`; within the namespace `user.`.
    #[serde(default)]
    pub attribute_prefix: String,
}

/// What to list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListQuery {
    /// As in [`FileQuery`].
    pub path: String,
    /// As in [`FileQuery`].
    pub user: Option<String>,
    /// How many levels; 0 is 1.
    #[serde(default)]
    pub depth: u32,
}

/// What to move.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MoveQuery {
    /// As in [`FileQuery`].
    pub from: String,
    /// As in [`FileQuery`].
    pub to: String,
    /// As in [`FileQuery`].
    pub user: Option<String>,
}

/// What to watch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WatchQuery {
    /// A directory, as in [`FileQuery`].
    pub path: String,
    /// As in [`FileQuery`].
    pub user: Option<String>,
    /// Whether all directories below it too, also those made later.
    #[serde(default)]
    pub recursive: bool,
    /// Whether to tell [`WatchEvent::entry`].
    #[serde(default)]
    pub entries: bool,
}

/// A file, a directory, or something else that has a name. Of a symbolic link, `kind` is its target's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The last part of the path.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Where it is; absolute.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// `st_mode` of `lstat`: its type and its permission bits.
    pub mode: u32,
    /// The name of the account, or its number if it has none.
    pub owner: String,
    /// The name of the group, or its number if it has none.
    pub group: String,
    /// The time of the last change of its content, nanoseconds since 1970.
    pub modified_ns: i64,
    /// Of a symbolic link: where it leads, through all links; the link itself if that is nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symlink_target: Option<String>,
    /// `st_mode` of a symbolic link's target, if it leads somewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_mode: Option<u32>,
    /// Its extended attributes in the namespace `user.` whose values are UTF-8, by their full names; none of a symbolic link.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// The kinds of [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A device, a pipe, a socket, or a symbolic link that leads nowhere.
    Other,
}

/// Names a watcher, also in a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watcher {
    /// Its id.
    pub id: String,
}

/// A change below a watched directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchEvent {
    /// What happened.
    pub kind: WatchKind,
    /// The path, relative to the watched directory.
    pub name: String,
    /// What is there now, if asked for, and if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Entry>,
}

/// The kinds of [`WatchEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchKind {
    /// It is new here: made, or moved to here.
    Create,
    /// Its content was changed.
    Write,
    /// It was removed.
    Remove,
    /// It was moved away from here.
    Rename,
    /// Its permissions, owner, times or attributes were changed.
    Chmod,
}
