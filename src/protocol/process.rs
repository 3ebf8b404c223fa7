//! Commands that run beside the contexts.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::data;

/// `POST` [`StartProcess`]: a stream of [`ProcessEvent`]s, one JSON object per line. Dropping the stream does not end
/// the process. `GET`: the running processes, a stream of [`ProcessInfo`]s, one JSON object per line.
pub const PROCESSES: &str = "/processes";
/// `GET` [`ProcessQuery`]: the same stream for a process that was started before: `started`, then the events from now
/// on. The end of a process can be fetched for 30 s after it.
pub const PROCESS_EVENTS: &str = "/processes/events";
/// `POST` [`ProcessQuery`], a body of raw bytes: writes them to the process's standard input. `DELETE`: closes that
/// input.
pub const PROCESS_STDIN: &str = "/processes/stdin";
/// `POST` [`ProcessQuery`], a body of raw bytes: types them on the process's terminal. `PUT` [`TerminalSize`]: resizes
/// it.
pub const PROCESS_TERMINAL: &str = "/processes/terminal";
/// `POST` [`ProcessQuery`], [`SendSignal`]: sends the signal to that one process, not to its children.
pub const PROCESS_SIGNAL: &str = "/processes/signal";

/// The longest line of a [`ProcessEvent`], bytes.
pub const MAX_PROCESS_LINE_BYTES: usize = 64 * 1024;

/// The longest line of a [`ProcessInfo`], bytes. The kernel starts no process with more than 6 MiB of arguments and
/// environment, and JSON may escape each byte as six.
pub const MAX_PROCESS_INFO_BYTES: usize = 40 << 20;

/// A command to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StartProcess {
    /// The program: a path, or a name that is looked up in `PATH`.
    pub command: String,
    /// Its arguments, without its own name.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment variables, over those of the sandbox.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The working directory; a path as in [`FileQuery::path`](super::FileQuery::path). The default is the user's home.
    #[serde(default)]
    pub cwd: Option<String>,
    /// The account of the image that runs the command. The default is the account `user`.
    #[serde(default)]
    pub user: Option<String>,
    /// The size of a terminal that serves as all three standard streams. If missing, the process has no terminal.
    #[serde(default)]
    pub pty: Option<TerminalSize>,
    /// Whether the client can write to its standard input; if not, that is `/dev/null`. Ignored for a terminal.
    #[serde(default)]
    pub stdin: bool,
    /// The client's own name for the process.
    #[serde(default)]
    pub tag: Option<String>,
    /// The time after which it is killed, milliseconds from its start.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TerminalSize {
    /// Width.
    pub cols: u16,
    /// Height.
    pub rows: u16,
}

/// An event of a process. All output comes before the end. The order between standard output and standard error is
/// undefined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ProcessEvent {
    /// The process runs. The first event of every stream.
    Started {
        /// Its id inside the container.
        pid: u32,
    },
    /// It wrote to its standard output.
    Stdout {
        /// Up to 32 KiB; a character may be cut in two.
        #[serde(with = "data")]
        #[cfg_attr(test, schemars(with = "String"))]
        data: Bytes,
    },
    /// It wrote to its standard error.
    Stderr {
        /// Up to 32 KiB; a character may be cut in two.
        #[serde(with = "data")]
        #[cfg_attr(test, schemars(with = "String"))]
        data: Bytes,
    },
    /// It wrote to its terminal.
    Pty {
        /// Up to 16 KiB; a character may be cut in two.
        #[serde(with = "data")]
        #[cfg_attr(test, schemars(with = "String"))]
        data: Bytes,
    },
    /// The process ended. No event follows.
    Ended(ProcessEnd),
}

/// How a process ended: by itself or by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProcessEnd {
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Whether it was killed at [`StartProcess::timeout_ms`].
    pub timed_out: bool,
}

/// A running process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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

/// The id or the tag by which a request selects a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessSelector {
    /// Selects the process with this id.
    Pid(u32),
    /// Selects the last process that was started with this tag.
    Tag(String),
}

/// A [`ProcessSelector`] as a query, with one of the two fields.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProcessQuery {
    /// [`ProcessSelector::Pid`].
    pub pid: Option<u32>,
    /// [`ProcessSelector::Tag`].
    pub tag: Option<String>,
}

/// A signal to send.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SendSignal {
    /// Its number: 15 is SIGTERM.
    pub signal: i32,
}
