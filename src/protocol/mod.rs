//! The protocol between the server and the agent: routes and their JSON bodies. This module only defines types.
//!
//! The agent is an HTTP/2 server (prior knowledge) on its own stdin and stdout; the server is the client. Streamed
//! bodies, and the bytes that follow a `CONNECT`, are cut into records: see `records.rs`.

mod data;
mod files;
mod network;
mod process;
pub mod runner;
#[cfg(test)]
mod snapshot;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use files::*;
pub use network::*;
pub use process::*;

/// The protocol version. Both ends must have the same one; the server refuses another version by name.
pub const PROTOCOL_VERSION: u32 = 6;

/// The longest line that the agent accepts from a runner, bytes: one value, one display (such as an image) or one
/// error. A longer line ends the execution with `output_limit`.
pub const MAX_VALUE_BYTES: usize = 48 * 1024 * 1024;

/// The longest event line that the server accepts from an agent, bytes. It bounds the memory that one lying agent can
/// occupy in the server, and leaves room for the fields that the agent adds to the longest line of a runner.
pub const MAX_EVENT_BYTES: usize = MAX_VALUE_BYTES + 64 * 1024;

/// `GET`: [`Hello`].
pub const HELLO: &str = "/hello";
/// `PUT` a JSON object of strings: the environment of the whole sandbox, for everything started or executed afterwards.
pub const ENV: &str = "/env";
/// `GET`: [`Metrics`].
pub const METRICS: &str = "/metrics";
/// `POST` [`StartContext`]: the [`Context`]; unless it is lazy, the answer comes once its runner is ready. `GET`: a
/// list of every [`Context`] in the order of creation. `DELETE` [`ContextQuery`]: ends the context.
pub const CONTEXTS: &str = "/contexts";
/// `POST` [`ContextQuery`]: replaces the interpreter by a new one under the same id.
pub const CONTEXT_RESTART: &str = "/contexts/restart";
/// `POST` [`ContextQuery`]: interrupts the running code, as Ctrl-C would.
pub const CONTEXT_INTERRUPT: &str = "/contexts/interrupt";
/// `POST` [`Execute`]: a stream of [`Event`]s, one JSON object per line. The last event is [`Event::End`].
pub const EXECUTIONS: &str = "/executions";

/// The body of an unsuccessful answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Refusal {
    /// The kind of refusal, for programs.
    pub code: Code,
    /// The reason, for people.
    pub message: String,
}

/// The reason for which the agent refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The file, process, context, watcher or route does not exist.
    NotFound,
    /// The request is invalid.
    InvalidArgument,
    /// The path already exists.
    AlreadyExists,
    /// The image has no such user.
    Unauthenticated,
    /// The operating system does not permit it.
    PermissionDenied,
    /// The current state does not allow the operation: for example, the process's input is closed.
    FailedPrecondition,
    /// The disk is full.
    NoSpace,
    /// A resource is used up: processes, watchers.
    Exhausted,
    /// Nothing listens on that port.
    PortClosed,
    /// The agent itself failed.
    #[serde(other)]
    Internal,
}

/// The first answer of an agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Hello {
    /// The agent's [`PROTOCOL_VERSION`].
    pub protocol: u32,
    /// The languages of the image.
    pub languages: Vec<Language>,
}

/// A language as its image describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Language {
    /// The name that [`StartContext::language`] refers to.
    pub name: String,
    /// The version of the interpreter.
    #[serde(default)]
    pub version: String,
    /// The preinstalled packages and their versions.
    #[serde(default)]
    pub packages: BTreeMap<String, String>,
    /// The differences of the language's notebook interpreter, for dialects that answer like a notebook.
    #[serde(default, skip_serializing_if = "Notebook::is_plain")]
    pub notebook: Notebook,
}

/// The differences between the language's notebook interpreter and our runner, which behaves like the language's
/// console.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Notebook {
    /// How printed text is split into pieces.
    pub pieces: Pieces,
    /// Whether values are displayed, so that none of them is the main result.
    pub displays_values: bool,
    /// The name of every error, if all share one. The error's value is then the text that the console prints for it.
    pub error_name: Option<String>,
    /// Whether an error's name is its class alone, without the package or module of the class.
    pub simple_error_names: bool,
}

impl Notebook {
    fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// How printed text is split into pieces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Pieces {
    /// A piece is the text that one read finds.
    #[default]
    Any,
    /// A piece is a line with its line end.
    Lines,
    /// A line and its line end are two pieces.
    LineEnds,
    /// A piece is all text printed before the next event of another kind.
    Whole,
}

/// A request for a new interpreter.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StartContext {
    /// One of [`Hello::languages`].
    pub language: String,
    /// The working directory; a path as in [`FileQuery::path`]. The default is the user's home.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Environment variables of the interpreter, over those of the sandbox.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Whether the runner is started only by the first execution.
    #[serde(default)]
    pub lazy: bool,
}

/// A live interpreter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Context {
    /// The id that [`Execute::context`] refers to.
    pub id: String,
    /// The name of its language.
    pub language: String,
    /// The working directory in which it was started.
    pub cwd: String,
}

/// Names a context in a query.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ContextQuery {
    /// [`Context::id`].
    pub id: String,
}

/// One piece of code to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Execute {
    /// The context to run it in.
    pub context: String,
    /// The source text.
    pub code: String,
    /// Environment variables for this execution only.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The whole standard input of the code. If missing, the code has no standard input.
    #[serde(default)]
    pub stdin: Option<String>,
    /// Extra mime types of outputs, beside those that every caller gets. A runner ignores the types that it does not
    /// know.
    #[serde(default)]
    pub formats: Vec<String>,
    /// The directory to change to before the code runs, for this and later executions; a path as in
    /// [`FileQuery::path`].
    #[serde(default)]
    pub cwd: Option<String>,
    /// How the code is run.
    #[serde(default)]
    pub mode: Mode,
    /// The limits that end the execution early.
    pub limits: Limits,
}

/// How code is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// As a program: it ends when everything it started in the interpreter has ended (timers, unfinished promises,
    /// threads), or when it exits.
    #[default]
    Script,
    /// As a notebook cell: it ends at its last line, everything it started goes on, and an exit is an exception.
    Notebook,
}

/// The limits of an execution. The container enforces memory, processes and disk; the agent enforces time and output.
/// The agent receives all of them, so that an end can name the limit that caused it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Limits {
    /// Wall time, milliseconds; 0 means no limit.
    pub timeout_ms: u64,
    /// Memory of the whole container, bytes; files in it count.
    pub memory_bytes: u64,
    /// Processes and threads at once.
    pub processes: u64,
    /// Size of each writable directory (`/home/user`, `/tmp`, `/var/tmp`, `/dev/shm`), bytes.
    pub disk_bytes: u64,
    /// Standard output, standard error and outputs ([`Output::counted`]) together, bytes.
    pub output_bytes: u64,
}

/// An event of an execution, in order. In JSON it is an object with one member, named after the kind. With a tag among
/// the members, serde would first hold the whole line as generic values, at many times its size, to find the kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Text that the code, or a child process of it, wrote to standard output.
    Stdout {
        /// A piece of the text. Characters are never split; invalid UTF-8 is replaced.
        text: String,
    },
    /// Text that the code, or a child process of it, wrote to standard error.
    Stderr {
        /// A piece of the text. Characters are never split; invalid UTF-8 is replaced.
        text: String,
    },
    /// A value or a drawing.
    Output(Output),
    /// The end of the execution. No event follows.
    End(End),
}

/// A value or a drawing, in every format that the runner could produce.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Output {
    /// Mime type to data: text, base64 for binary types, any JSON value for `application/json` and other types of data.
    /// Each is kept as the JSON text that the runner wrote: a list of many numbers takes no more memory than its text,
    /// and is forwarded as it is.
    pub data: IndexMap<String, Box<RawValue>>,
    /// Whether this is the value of the last expression.
    pub main: bool,
}

impl Output {
    /// The bytes counted against [`Limits::output_bytes`]: the data, and the structures that hold each format and the
    /// whole output.
    pub fn counted(&self) -> u64 {
        let formats = self.data.iter().map(|(mime, data)| 64 + mime.len() + data.get().len());
        256 + formats.sum::<usize>() as u64
    }

    /// The data of this mime type, if it is present and is text.
    pub fn text(&self, mime: &str) -> Option<String> {
        serde_json::from_str(self.data.get(mime)?.get()).ok()
    }
}

/// How an execution ended, and the resources it used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct End {
    /// How the code ended.
    pub outcome: Outcome,
    /// The exception that ended it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<Exception>,
    /// The resources it used.
    pub usage: Usage,
    /// Whether the interpreter is gone. The next execution in the context then gets a new one, without variables.
    #[serde(default)]
    pub lost: bool,
}

/// How user code ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Outcome {
    /// The kind of end.
    pub kind: OutcomeKind,
    /// One line that describes the end and names the limit that was hit.
    pub message: String,
    /// The limit that ended it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(nullable = false))]
    pub limit: Option<LimitHit>,
}

/// The limit that was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct LimitHit {
    /// Its name, such as `timeout_ms`; `value_bytes` if a single value was too large.
    pub name: String,
    /// Its value, in the unit of its name.
    pub value: u64,
}

/// The kind of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    /// It ran to its end.
    Ok,
    /// It raised, or did not compile.
    Exception,
    /// It ended itself with a non-zero exit code.
    Exit,
    /// It ran longer than `timeout_ms`.
    Timeout,
    /// It needed more than `memory_bytes`.
    OutOfMemory,
    /// It needed more than `processes`.
    ProcessLimit,
    /// It filled a writable directory.
    DiskFull,
    /// It printed more than `output_bytes`, or had a single value larger than `value_bytes`.
    OutputLimit,
    /// A signal killed its interpreter.
    Signal,
    /// Its context was restarted or removed.
    Restarted,
    /// Its sandbox was taken away: the server is shutting down.
    Cancelled,
    /// This program failed; the code did not cause it.
    Infrastructure,
}

/// An exception in the user's code, as its language describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Exception {
    /// Its class.
    pub name: String,
    /// Its message.
    pub value: String,
    /// Its traceback, without the line end of the last line.
    pub traceback: String,
}

/// The resources that an execution used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Usage {
    /// From the first byte of the request to the end, milliseconds.
    pub wall_ms: u64,
    /// Processor time of the whole container during the execution, milliseconds. Missing if the container was gone
    /// before the counter could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(nullable = false))]
    pub cpu_ms: Option<u64>,
    /// The peak memory of the container since its start, bytes; it includes the interpreter's own memory. Missing as
    /// `cpu_ms` is, and where the kernel does not record the peak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(nullable = false))]
    pub peak_memory_bytes: Option<u64>,
}

/// The container's current resource usage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Metrics {
    /// Cores that it may use, rounded up.
    pub cpu_count: u32,
    /// Processor time used since the last reading, in percent of the time of all its cores.
    pub cpu_used_percent: f64,
    /// Memory that it may use, bytes.
    pub memory_total_bytes: u64,
    /// Memory in use without the page cache, bytes.
    pub memory_used_bytes: u64,
    /// Page cache, which includes the files in the writable directories, bytes.
    pub memory_cache_bytes: u64,
    /// Size of the file system of the user's home, bytes.
    pub disk_total_bytes: u64,
    /// Used part of that file system, bytes.
    pub disk_used_bytes: u64,
}
