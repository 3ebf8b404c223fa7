//! What the agent and a runner say to each other: one JSON object per line, over two FIFOs.
//!
//! The runner's real stdout and stderr are the user's. Before each line it writes here, it flushes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Exception, Mode, Output};

/// One line from the agent to the runner: code to run.
#[derive(Debug, Clone, Serialize)]
pub struct Request<'a> {
    /// The source text.
    pub code: &'a str,
    /// Environment variables for this execution only.
    pub env: &'a BTreeMap<String, String>,
    /// The directory to change to before, if any.
    pub cwd: Option<&'a str>,
    /// How the code is run.
    pub mode: Mode,
    /// Whether there is a standard input. Without one, code that asks for a line is told that nobody can answer.
    pub stdin: bool,
    /// Mime types that the caller wants of outputs, beside those that every caller gets.
    pub formats: &'a [String],
}

/// One line from the runner to the agent: an object with one member, named after the kind.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// It has run throw-away code and waits for the first request.
    Ready {},
    /// A value, or something drawn.
    Result(Output),
    /// The request is finished.
    Done(Done),
}

/// How a request finished; with neither member it ran to its end.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Done {
    /// The code raised, or does not compile.
    #[serde(default)]
    pub error: Option<Exception>,
    /// The code asked to exit with this status.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// What the language itself says the error came from.
    #[serde(default)]
    pub cause: Option<Cause>,
}

/// A limit that the language reports by an exception of its own. One that the code itself throws, whatever it says, is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It could not get the memory it asked for.
    Memory,
    /// The system had no room for what it wrote.
    Disk,
}
