//! Reads and writes the content of files as streams of bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use rustix::fs::OFlags;

use super::{create_parents, entry, refused, run_blocking};
use crate::agent::answer::Refused;
use crate::agent::users::User;
use crate::protocol::{ReadQuery, WriteQuery};

/// The most bytes of one read.
const CHUNK: usize = 64 * 1024;

/// The first bytes of a file, which are written without a thread of their own. A disk with more to write may block its
/// writers.
const DIRECT_BYTES: usize = 256 * 1024;

/// A file that is being read.
#[derive(Debug)]
pub(crate) struct Content {
    /// Its size when it was opened, bytes; always 0 for a file of `procfs`.
    pub(crate) size: u64,
    /// The time of its last change, nanoseconds since 1970.
    pub(crate) modified_ns: i64,
    /// Its first bytes. They are read before the answer begins, so that a file that cannot be read is a refusal.
    first: Bytes,
    file: File,
    left: u64,
}

/// Opens a file for reading.
pub(crate) fn read(user: &User, query: &ReadQuery) -> Result<Content, Refused> {
    let path = user.resolve(&query.path)?;
    let refused = |err| refused(&path, &err);
    let mut file = user.with_rights(|| open(File::options().read(true), &path)).map_err(refused)?;
    let found = file.metadata().map_err(refused)?;
    if found.is_dir() {
        return Err(Refused::invalid(format!("path '{}' is a directory", path.display())));
    }
    if !found.is_file() {
        return Err(not_a_file(&path));
    }
    if query.offset > 0 {
        file.seek(SeekFrom::Start(query.offset)).map_err(refused)?;
    }
    let mut left = query.length.unwrap_or(u64::MAX);
    let first = read_some(&mut file, &mut left).map_err(|err| match found.len() {
        // A file of `procfs` exists but may not be readable from its beginning.
        0 => Refused::invalid(format!("path '{}' cannot be read: {err}", path.display())),
        _ => refused(err),
    })?;
    Ok(Content { size: found.len(), modified_ns: entry::modified_ns(&found), first, file, left })
}

impl Content {
    /// Streams its bytes until the end of the file or of the requested part.
    pub(crate) fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let Self { first, file, left, .. } = self;
        // On another thread, because a disk may be slow. A short file is already in `first`.
        let rest = stream::try_unfold((file, left), |(mut file, mut left)| {
            run_blocking(move || {
                let next = read_some(&mut file, &mut left)?;
                Ok((!next.is_empty()).then_some((next, (file, left))))
            })
        });
        stream::iter((!first.is_empty()).then_some(Ok(first))).chain(rest)
    }
}

/// Reads the next bytes; none at the end of the file, or when no bytes of the requested part are `left`.
fn read_some(file: &mut File, left: &mut u64) -> io::Result<Bytes> {
    let mut chunk = BytesMut::zeroed(usize::try_from(*left).unwrap_or(CHUNK).min(CHUNK));
    let read = loop {
        match file.read(&mut chunk) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    *left -= read as u64;
    chunk.truncate(read);
    Ok(chunk.freeze())
}

/// Writes `body` to the file and makes the missing directories above it. New files and directories belong to the user.
pub(crate) async fn write<S, E>(user: &User, query: &WriteQuery, mut body: S) -> Result<(), Refused>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    let given = &query.path;
    if given.is_empty() || given.ends_with('/') {
        return Err(Refused::invalid(format!("`{given}` does not name a file")));
    }
    let attributes =
        query.attributes.as_deref().map(|json| Attributes::parse(&query.attribute_prefix, json)).transpose()?;
    let path = user.resolve(given)?;
    let refused = |err| Refused::io(format!("cannot write `{given}`"), &err);
    let file = Arc::new(user.with_rights(|| create(user, &path, attributes.as_ref())).map_err(refused)?);
    let mut written = 0;
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| Refused::invalid(format!("the content of `{given}` broke off")))?;
        written += chunk.len();
        if written <= DIRECT_BYTES {
            file.as_ref().write_all(&chunk).map_err(refused)?;
        } else {
            let file = Arc::clone(&file);
            run_blocking(move || file.as_ref().write_all(&chunk)).await.map_err(refused)?;
        }
    }
    Ok(())
}

/// Opens a file for writing and empties it. Clients that watch the file expect each of these events once and in this
/// order: created, attributes changed, written.
fn create(user: &User, path: &Path, attributes: Option<&Attributes>) -> io::Result<File> {
    create_parents(user, path)?;
    // Not truncated on opening, because the path may not be a regular file.
    let file = open(File::options().write(true).create(true).truncate(false), path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if found.len() > 0 {
        file.set_len(0)?;
    }
    if !user.confined || user.ids.is_some_and(|(uid, _)| uid == found.uid()) {
        user.chown_file(&file)?;
    }
    if let Some(Attributes { prefix, values }) = attributes {
        entry::replace_attributes(&file, path, prefix, values)?;
    }
    Ok(file)
}

/// Extended attributes that replace those whose names begin with `prefix`.
struct Attributes<'a> {
    prefix: &'a str,
    values: BTreeMap<String, String>,
}

impl<'a> Attributes<'a> {
    fn parse(prefix: &'a str, json: &str) -> Result<Self, Refused> {
        let values: BTreeMap<String, String> =
            serde_json::from_str(json).map_err(|err| Refused::invalid(format!("attributes: {err}")))?;
        // Other namespaces belong to the system: an attribute of `security.` gives a file capabilities.
        if !prefix.starts_with(entry::NAMESPACE) || values.keys().any(|name| !name.starts_with(prefix)) {
            let message = format!(
                "attributes: every name must begin with `attribute_prefix`, and `attribute_prefix` with `{}`",
                entry::NAMESPACE
            );
            return Err(Refused::invalid(message));
        }
        Ok(Self { prefix, values })
    }
}

/// Opens a file without waiting for the other end of a named pipe, and without making a terminal the controlling one.
fn open(options: &mut std::fs::OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    options.mode(0o644).custom_flags(flags.bits() as i32).open(path)
}

fn not_a_file(path: &Path) -> Refused {
    Refused::invalid(format!("path '{}' is not a file", path.display()))
}
