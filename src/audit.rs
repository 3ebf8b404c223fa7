//! The audit log: a line of JSON for each run, for those who must be able to find out later who ran something and how it
//! ended.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use serde::Serialize;
use thiserror::Error;
use tokio::sync::oneshot;

use crate::keys::Keys;
use crate::sandbox::{HashSecret, Observer, RunRecord};

/// The most lines that wait to be written. Beyond that, the log has stood still for so long that lines are lost.
const MAX_WAITING: usize = 10_000;

/// Where the audit log is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditTarget {
    /// The standard error of the server, beside its log.
    Stderr,
    /// The end of a file. It is created if it does not exist, with mode 0600, and again after it was moved away.
    File(PathBuf),
}

/// Why the audit log cannot be used.
#[derive(Debug, Error)]
#[error("audit_log: cannot {action}: {source}")]
pub struct AuditError {
    /// What cannot be done.
    action: String,
    source: io::Error,
}

/// The audit log. A clone is another handle.
#[derive(Debug, Clone)]
pub struct AuditLog {
    lines: SyncSender<Message>,
    keys: Keys,
    secret: HashSecret,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Sent back when everything before it is written.
    Flush(oneshot::Sender<()>),
}

/// One line.
#[derive(Serialize)]
struct RunLine<'a> {
    event: &'static str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(flatten)]
    record: &'a RunRecord,
}

impl AuditLog {
    /// Opens the log. `keys` have the names of owners.
    ///
    /// # Errors
    ///
    /// When the file, or the one with the secret beside it, cannot be opened.
    pub fn open(target: &AuditTarget, keys: Keys) -> Result<Self, AuditError> {
        let (writer, secret) = match target {
            AuditTarget::Stderr => (Writer::Stderr, HashSecret::random()),
            AuditTarget::File(path) => {
                let open = |path: &Path, source| AuditError { action: format!("open {}", path.display()), source };
                let file = LogFile::open(path).map_err(|err| open(path, err))?;
                let secret_path = with_suffix(path, ".secret");
                let secret = read_secret(&secret_path).map_err(|err| open(&secret_path, err))?;
                (Writer::File(file), secret)
            }
        };
        let (lines, received) = sync_channel(MAX_WAITING);
        let lost = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&lost);
        thread::Builder::new()
            .name("audit-log".to_owned())
            .spawn(move || write_lines(writer, &received, &counter))
            .map_err(|source| AuditError { action: "start its thread".to_owned(), source })?;
        Ok(Self { lines, keys, secret, lost })
    }

    /// The secret of the hashes of code. It stays the same as long as the file beside the log exists.
    pub fn secret(&self) -> HashSecret {
        self.secret.clone()
    }

    /// Waits until everything is written that was recorded before.
    pub async fn flush(&self) {
        let (written, waiting) = oneshot::channel();
        let lines = self.lines.clone();
        // The channel may be full.
        let sent = tokio::task::spawn_blocking(move || lines.send(Message::Flush(written)).is_ok());
        if sent.await.unwrap_or(false) {
            let _ = waiting.await;
        }
    }
}

impl Observer for AuditLog {
    fn run_ended(&self, record: &RunRecord) {
        let key = self.keys.name(record.owner);
        let client = record.client.map(|client| client.to_string());
        let line = RunLine { event: "run", key: &key, client, record };
        let mut bytes = serde_json::to_vec(&line).expect("our own shapes can be written as JSON");
        bytes.push(b'\n');
        if self.lines.try_send(Message::Line(bytes)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

enum Writer {
    Stderr,
    File(LogFile),
}

impl Writer {
    /// Writes a whole line at once, so that other processes that append to the same file do not cut it.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().lock().write_all(line),
            Self::File(file) => file.write(line),
        }
    }
}

/// Writes lines until all handles of the log are gone. While it fails, lines are lost, which is logged once at the
/// beginning and once at the end.
fn write_lines(mut writer: Writer, received: &Receiver<Message>, lost: &AtomicU64) {
    let mut is_failing = false;
    for message in received {
        let line = match message {
            Message::Line(line) => line,
            Message::Flush(written) => {
                // Who waits for it may be gone.
                let _ = written.send(());
                continue;
            }
        };
        match writer.write(&line) {
            Ok(()) => {
                is_failing = false;
                let lost = lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    tracing::error!(lost, "the audit log is written again; {lost} lines were lost");
                }
            }
            Err(err) => {
                lost.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::error!(error = &err as &dyn Error, "the audit log cannot be written: lines are lost");
                }
            }
        }
    }
}

/// A file that is appended to.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    /// The device and the number of the file.
    identity: (u64, u64),
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let metadata = file.metadata()?;
        Ok(Self { path: path.to_owned(), file, identity: (metadata.dev(), metadata.ino()) })
    }

    /// Appends a line to the file that has the path now: the one before may have been moved away, as logrotate does.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let is_same = fs::metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if !is_same {
            *self = Self::open(&self.path)?;
        }
        self.file.write_all(line)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Reads the secret of an installation, and creates it if there is none.
fn read_secret(path: &Path) -> io::Result<HashSecret> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            let new = rand::random::<[u8; 32]>();
            // Not over a file that another server has just created.
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(&new)?;
            new.to_vec()
        }
        Err(err) => return Err(err),
    };
    let bytes = bytes.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it must have 32 bytes"))?;
    Ok(HashSecret::new(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_created_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl");
        let mut file = LogFile::open(&path).expect("it is created");
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        file.write(b"1\n").expect("it is written");
        let moved = directory.path().join("audit.jsonl.1");
        fs::rename(&path, &moved).expect("it is moved");
        file.write(b"2\n").expect("it is written");
        file.write(b"3\n").expect("it is written");
        assert_eq!(fs::read(&moved).expect("the old file"), b"1\n");
        assert_eq!(fs::read(&path).expect("the new file"), b"2\n3\n");
    }

    #[test]
    fn the_secret_is_created_once_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl.secret");
        read_secret(&path).expect("it is created");
        let bytes = fs::read(&path).expect("the secret");
        read_secret(&path).expect("it is read");
        assert_eq!(fs::read(&path).expect("the secret"), bytes);
        assert_eq!((bytes.len(), fs::metadata(&path).expect("it is there").permissions().mode() & 0o777), (32, 0o600));
        fs::write(&path, "short").expect("it is written");
        assert!(read_secret(&path).is_err());
    }

    #[test]
    fn lines_that_could_not_be_written_are_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl");
        let mut file = LogFile::open(&path).expect("it is created");
        fs::remove_file(&path).expect("it is removed");
        // A directory in its place cannot be appended to.
        fs::create_dir(&path).expect("a directory");
        let (sender, received) = sync_channel(10);
        for line in ["1\n", "2\n"] {
            sender.send(Message::Line(line.into())).expect("there is room");
        }
        drop(sender);
        let lost = AtomicU64::new(0);
        assert!(file.write(b"0\n").is_err());
        write_lines(Writer::File(file), &received, &lost);
        assert_eq!(lost.load(Ordering::Relaxed), 2);
    }
}
