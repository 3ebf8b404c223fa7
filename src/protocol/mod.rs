//! What the server and the agent say to each other: routes and their JSON bodies. Nothing here does anything.
//!
//! The agent is an HTTP/2 server (prior knowledge) on its own stdin and stdout; the server is the client. Every body that is a stream,
//! and what is carried after a `CONNECT`, is in records: see `records.rs`.

mod data;
mod files;
mod network;
mod process;
pub mod runner;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use files::*;
pub use network::*;
pub use process::*;

/// Both ends must speak the same version; another one is refused by name.
pub const PROTOCOL_VERSION: u32 = 5;

/// The longest line, in bytes, that the agent accepts from a runner: one value, one display (an image, say) or one error. A
/// longer one ends the execution with `output_limit`.
pub const MAX_VALUE_BYTES: usize = 48 * 1024 * 1024;

/// The longest event line, in bytes, that the server accepts from an agent. It bounds what one lying agent can make
/// the server hold, and has room for what the agent adds to the longest line of a runner.
pub const MAX_EVENT_BYTES: usize = MAX_VALUE_BYTES + 64 * 1024;

/// `GET`: [`Hello`].
pub const HELLO: &str = "/hello";
/// `PUT` a JSON object of strings: the environment of the whole sandbox, for what is started or executed from then on.
pub const ENV: &str = "/env";
/// `GET`: [`Metrics`].
pub const METRICS: &str = "/metrics";
/// `POST` [`StartContext`]: [`Context`], once its runner is ready, unless it is lazy. `GET`: all of them, a list of [`Context`] in the
/// order of their creation. `DELETE` [`ContextQuery`]: ends one.
pub const CONTEXTS: &str = "/contexts";
/// `POST` [`ContextQuery`]: a new interpreter under the same id.
pub const CONTEXT_RESTART: &str = "/contexts/restart";
/// `POST` [`ContextQuery`]: interrupts the running code, as Ctrl-C would.
pub const CONTEXT_INTERRUPT: &str = "/contexts/interrupt";
/// `POST` [`Execute`]: a stream of [`Event`]s, one JSON object per line, the last one [`Event::End`].
pub const EXECUTIONS: &str = "/executions";

/// What an answer that is no success carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of refusal it is, for programs.
    pub code: Code,
    /// What is wrong, for people.
    pub message: String,
}

/// Why the agent will not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// There is no such file, process, context, watcher or route.
    NotFound,
    /// It makes no sense.
    InvalidArgument,
    /// It is there already.
    AlreadyExists,
    /// The image has no such user.
    Unauthenticated,
    /// The operating system does not permit it.
    PermissionDenied,
    /// It cannot be done in the state that things are in: an input that is closed, say.
    FailedPrecondition,
    /// The disk is full.
    NoSpace,
    /// More of something than the kernel has: processes, watchers.
    Exhausted,
    /// Nothing listens on that port.
    PortClosed,
    /// The agent could not do its work.
    #[serde(other)]
    Internal,
}

/// The first answer of an agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// The agent's [`PROTOCOL_VERSION`].
    pub protocol: u32,
    /// Languages found in the image.
    pub languages: Vec<Language>,
}

/// A language as its image describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Language {
    /// What a context of it is asked for by.
    pub name: String,
    /// The version of the interpreter.
    #[serde(default)]
    pub version: String,
    /// What is preinstalled, with versions.
    #[serde(default)]
    pub packages: BTreeMap<String, String>,
    /// What is different in a notebook, for those who answer as one does.
    #[serde(default, skip_serializing_if = "Notebook::is_plain")]
    pub notebook: Notebook,
}

/// What the language's interpreter for notebooks does otherwise than our runner, which does as the language's console does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Notebook {
    /// How printed text falls into pieces.
    pub pieces: Pieces,
    /// Whether values are displayed, so that none of them is the main one.
    pub displays_values: bool,
    /// What all errors are called. Their value then is what the console says of them.
    pub error_name: Option<String>,
    /// Whether errors are called by their class alone, without what it is part of.
    pub simple_error_names: bool,
}

impl Notebook {
    fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// What is one piece of printed text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pieces {
    /// Whatever there is to read.
    #[default]
    Any,
    /// A line with its end.
    Lines,
    /// A line, and then its end.
    LineEnds,
    /// All that is printed before something else is to be said.
    Whole,
}

/// Asks for a new interpreter.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StartContext {
    /// One of [`Hello::languages`].
    pub language: String,
    /// Where it starts; a path as in [`FileQuery::path`]. Without it, the user's home.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Environment variables of the interpreter, over those of the sandbox.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Whether its runner is started by its first execution only.
    #[serde(default)]
    pub lazy: bool,
}

/// A live interpreter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// What [`Execute::context`] names it by.
    pub id: String,
    /// What it was started for.
    pub language: String,
    /// Where it was started.
    pub cwd: String,
}

/// Names a context in a query.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContextQuery {
    /// [`Context::id`].
    pub id: String,
}

/// One piece of code to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Execute {
    /// The context to run it in.
    pub context: String,
    /// The source text.
    pub code: String,
    /// Environment variables for this execution only.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What the code can read from its standard input, and then the end of file. Without it there is none.
    #[serde(default)]
    pub stdin: Option<String>,
    /// Mime types wanted of outputs, beside those that every caller gets. A runner that does not know them leaves them out.
    #[serde(default)]
    pub formats: Vec<String>,
    /// The directory to change to before, for this and later executions; a path as in [`FileQuery::path`].
    #[serde(default)]
    pub cwd: Option<String>,
    /// How the code is run.
    #[serde(default)]
    pub mode: Mode,
    /// What ends the execution before its time.
    pub limits: Limits,
}

/// How code is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// As a program: it ends when nothing that it started in the interpreter is left (timers, unfinished promises, threads),
    /// and an exit ends it.
    #[default]
    Script,
    /// As a cell of a notebook: it ends at its last line, lets what it started go on, and an exit is an exception.
    Notebook,
}

/// The limits an execution runs under. The container enforces memory, processes and disk; the agent enforces time and
/// output. All are told to the agent so that an end can name the limit that caused it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Wall time, milliseconds; 0 is no limit.
    pub timeout_ms: u64,
    /// Memory of the whole container, bytes; files in it count.
    pub memory_bytes: u64,
    /// Processes and threads at once.
    pub processes: u64,
    /// Room in each writable directory (`/home/user`, `/tmp`, `/var/tmp`, `/dev/shm`), bytes.
    pub disk_bytes: u64,
    /// Standard output, standard error and outputs ([`Output::counted`]) together, bytes.
    pub output_bytes: u64,
}

/// What happens during an execution, in order. An object with one member, named after the kind: a tag among the members would have
/// the whole line held as values, many times its size, before it is known what it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Text that the code, or a child process of it, wrote to its standard output.
    Stdout {
        /// Any piece; characters are never split, invalid UTF-8 is replaced.
        text: String,
    },
    /// The same for standard error.
    Stderr {
        /// Any piece; characters are never split, invalid UTF-8 is replaced.
        text: String,
    },
    /// A value or something drawn.
    Output(Output),
    /// The end; nothing follows.
    End(End),
}

/// A value in every form the runner could give it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Output {
    /// Mime type to data: text, base64 for binary types, any JSON value for `application/json` and other types of data. As it was
    /// written: a list of many numbers takes no more room than its text, and is passed on as it is.
    pub data: IndexMap<String, Box<RawValue>>,
    /// Whether it is the value of the last expression.
    pub main: bool,
}

impl Output {
    /// What it counts for among [`Limits::output_bytes`]: its data, and what each form, and the whole, is held in.
    pub fn counted(&self) -> u64 {
        let forms = self.data.iter().map(|(mime, data)| 64 + mime.len() + data.get().len());
        256 + forms.sum::<usize>() as u64
    }

    /// The data of this type, if there is any and it is text.
    pub fn text(&self, mime: &str) -> Option<String> {
        serde_json::from_str(self.data.get(mime)?.get()).ok()
    }
}

/// How an execution ended and what it used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Why it ended.
    pub outcome: Outcome,
    /// The exception that ended it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<Exception>,
    /// What it used.
    pub usage: Usage,
    /// Whether the interpreter is gone: the next execution in the context begins with a new one, and no variables.
    #[serde(default)]
    pub lost: bool,
}

/// How user code ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The kind of end.
    pub kind: OutcomeKind,
    /// One line that says what happened and which limit was hit.
    pub message: String,
    /// The limit that ended it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitHit>,
}

/// The limit that ended an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitHit {
    /// A field of [`Limits`], or `value_bytes` for [`MAX_VALUE_BYTES`].
    pub name: String,
    /// Its value, in the unit of its name.
    pub value: u64,
}

/// The kinds of [`Outcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// This program could not do its work; not the code's fault.
    Infrastructure,
}

/// An exception in the user's code, in its language's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Its class.
    pub name: String,
    /// Its message.
    pub value: String,
    /// Its traceback, without the end of its last line.
    pub traceback: String,
}

/// What an execution used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// From the first byte of the request to the end, milliseconds.
    pub wall_ms: u64,
    /// Processor time of the whole container during the execution, milliseconds. Not there when the container was gone before it
    /// could be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// The most memory the container held since it was started, bytes; the interpreter's own is in it. Missing as `cpu_ms` is,
    /// and where the kernel does not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
}

/// What the container uses now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Cores it may use, rounded up.
    pub cpu_count: u32,
    /// Processor time used since the last reading, in hundredths of all its cores' time.
    pub cpu_used_percent: f64,
    /// Memory it may use, bytes.
    pub memory_total_bytes: u64,
    /// Memory in use, the page cache not counted, bytes.
    pub memory_used_bytes: u64,
    /// Page cache, and with it the files in its writable directories, bytes.
    pub memory_cache_bytes: u64,
    /// Room in the user's home, bytes.
    pub disk_total_bytes: u64,
    /// Used of it, bytes.
    pub disk_used_bytes: u64,
}
