//! The protocol between the agent and a runner: one JSON object per line, over two FIFOs.
//!
//! The runner's real stdout and stderr belong to the user's code. The runner flushes both before it writes a line here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Exception, Mode, Output};

/// One line from the agent to the runner: code to run.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Request<'a> {
    /// The source text.
    pub code: &'a str,
    /// Environment variables for this execution only.
    pub env: &'a BTreeMap<String, String>,
    /// The directory to change to before the code runs, if any.
    pub cwd: Option<&'a str>,
    /// How the code is run.
    pub mode: Mode,
    /// Whether there is a standard input. Without one, the runner may raise an error in code that asks for a line of
    /// input.
    pub stdin: bool,
    /// Extra mime types of outputs, beside those that every caller gets.
    pub formats: &'a [String],
}

/// One line from the runner to the agent: an object with one member, named after the kind.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The runner has run warm-up code and waits for the first request.
    Ready {},
    /// A value or a drawing.
    Result(Output),
    /// The last line of a [`Mode::Script`] has run, or the code has failed. What the language does at a program's end
    /// follows: it waits for threads and runs exit handlers. The request is finished by [`Line::Done`], or by the end
    /// of the runner's process.
    Ending(Done),
    /// The request is finished.
    Done(Done),
}

/// How a request finished. With neither `error` nor `exit_code`, the code ran to its end.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Done {
    /// The exception that the code raised, or the error of its compilation.
    #[serde(default)]
    pub error: Option<Exception>,
    /// The status with which the code asked to exit.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// The cause of the error, if the language itself reports one.
    #[serde(default)]
    pub cause: Option<Cause>,
}

/// A limit that the language reports by an exception of its own. An exception that the code itself throws has no such
/// cause, whatever its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A memory allocation failed.
    Memory,
    /// A write failed because the disk is full.
    Disk,
}
