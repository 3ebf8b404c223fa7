//! Commands that run beside the contexts.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::data;

/// `POST` [`StartProcess`]: a stream of [`ProcessEvent`]s, one JSON object per line. Dropping the stream does not end the
/// process. `GET`: the ones that run, a stream of [`ProcessInfo`]s, one JSON object per line.
pub const PROCESSES: &str = "/processes";
/// `GET` [`ProcessQuery`]: the same stream for a process that was started before: `started`, then what comes from now on.
/// An end can be asked for until 30 s after it.
pub const PROCESS_EVENTS: &str = "/processes/events";
/// `POST` [`ProcessQuery`], a body of raw bytes: writes them to its standard input. `DELETE`: closes that.
pub const PROCESS_STDIN: &str = "/processes/stdin";
/// `POST` [`ProcessQuery`], a body of raw bytes: types them on its terminal. `PUT` [`TerminalSize`]: resizes it.
pub const PROCESS_TERMINAL: &str = "/processes/terminal";
/// `POST` [`ProcessQuery`], [`SendSignal`]: to that one process, not to its children.
pub const PROCESS_SIGNAL: &str = "/processes/signal";

/// The longest [`ProcessEvent`] as a line, bytes.
pub const MAX_PROCESS_LINE_BYTES: usize = 64 * 1024;

/// The longest [`ProcessInfo`] as a line, bytes. The kernel starts nothing with more than 6 MiB of arguments and environment, each byte
/// of which JSON may write as six.
pub const MAX_PROCESS_INFO_BYTES: usize = 40 << 20;

/// A command to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StartProcess {
    /// The program: a path, or a name to look up in `PATH`.
    pub command: String,
    /// Its arguments, without its own name.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment variables, over those of the sandbox.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where it starts; a path as in [`FileQuery::path`](super::FileQuery::path). Without it, the user's home.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Who runs it: an account of the image. Without it, the user.
    #[serde(default)]
    pub user: Option<String>,
    /// A terminal of this size for all three of its streams.
    #[serde(default)]
    pub pty: Option<TerminalSize>,
    /// Whether its standard input can be written to; if not, it is `/dev/null`. Without meaning for a terminal.
    #[serde(default)]
    pub stdin: bool,
    /// A name of the client's for it.
    #[serde(default)]
    pub tag: Option<String>,
    /// When to kill it, milliseconds from its start.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Width.
    pub cols: u16,
    /// Height.
    pub rows: u16,
}

/// What happens to a process. All output comes before the end; standard output and error have no order between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ProcessEvent {
    /// It runs. The first of every stream.
    Started {
        /// Its id inside the container.
        pid: u32,
    },
    /// It wrote to its standard output.
    Stdout {
        /// Up to 32 KiB; a character may be cut in two.
        #[serde(with = "data")]
        data: Bytes,
    },
    /// It wrote to its standard error.
    Stderr {
        /// Up to 32 KiB; a character may be cut in two.
        #[serde(with = "data")]
        data: Bytes,
    },
    /// Something came to its terminal.
    Pty {
        /// Up to 16 KiB; a character may be cut in two.
        #[serde(with = "data")]
        data: Bytes,
    },
    /// It is over; nothing follows.
    Ended(ProcessEnd),
}

/// How a process ended: by itself or by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEnd {
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Whether it was killed at [`StartProcess::timeout_ms`].
    pub timed_out: bool,
}

/// A process that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its id inside the container.
    pub pid: u32,
    /// [`StartProcess::tag`].
    pub tag: Option<String>,
    /// [`StartProcess::command`].
    pub command: String,
    /// [`StartProcess::args`].
    pub args: Vec<String>,
    /// [`StartProcess::env`].
    pub env: BTreeMap<String, String>,
    /// [`StartProcess::cwd`].
    pub cwd: Option<String>,
}

/// Which process is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessSelector {
    /// The one with this id.
    Pid(u32),
    /// The one that was started last with this tag.
    Tag(String),
}

/// A [`ProcessSelector`] as a query: one of the two.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessQuery {
    /// [`ProcessSelector::Pid`].
    pub pid: Option<u32>,
    /// [`ProcessSelector::Tag`].
    pub tag: Option<String>,
}

/// A signal to send.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct SendSignal {
    /// Its number: 15 is SIGTERM.
    pub signal: i32,
}
