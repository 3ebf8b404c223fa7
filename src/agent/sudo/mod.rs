//! `sudo` without a set-user-id program, which a container with `no-new-privileges` cannot run. Instead the agent,
//! which is root, listens on a socket and starts the requested commands with the caller's standard streams.
//!
//! It exists only if the template sets `superuser`. Root in the sandbox has no more rights than the container.

mod arguments;
mod client;
mod server;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use client::main;
pub(super) use server::serve;

/// The socket on which the agent listens. Every process in the container may connect.
const SOCKET: &str = "/run/sudo";

/// The longest line that either side accepts, bytes: longer than any command line that the kernel allows.
const MAX_LINE_BYTES: usize = 4 << 20;

/// The first line from the caller, sent with its standard input, output and error.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Request {
    /// The account that runs the command.
    user: String,
    /// The program and its arguments.
    command: Vec<String>,
    /// Variables that override those of the account.
    env: BTreeMap<String, String>,
    /// The working directory; by default the account's home.
    cwd: Option<PathBuf>,
}

/// Each later line from the caller: a signal to forward.
#[derive(Debug, Serialize, Deserialize)]
struct Forward {
    signal: i32,
}

/// The only line from the agent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    /// The command's exit status, as a shell reports it: 128 plus the signal's number if a signal killed it.
    Ended(i32),
    /// The reason why the command could not be started.
    Failed(String),
}
