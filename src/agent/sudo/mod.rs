//! `sudo` without a set-user-id program, which a container without new privileges cannot run: the agent, which is root, starts
//! the command for whoever asks it on a socket, with the caller's own three streams.
//!
//! Only where the template says `superuser`. Whoever becomes root this way has no more than the container has.

mod arguments;
mod client;
mod server;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use client::main;
pub(super) use server::serve;

/// Where the agent listens. Everybody inside may connect.
const SOCKET: &str = "/run/sudo";

/// The longest line that either side accepts, bytes: more than the kernel lets a command have.
const MAX_LINE_BYTES: usize = 4 << 20;

/// The first line from the caller, sent with its standard input, output and error.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Request {
    /// Whom to become.
    user: String,
    /// The command; none for the user's shell.
    command: Vec<String>,
    /// Variables over those that the account has.
    env: BTreeMap<String, String>,
    /// Where to start; the home without it.
    cwd: Option<PathBuf>,
}

/// Each later line: a signal to pass on.
#[derive(Debug, Serialize, Deserialize)]
struct Forward {
    signal: i32,
}

/// The one line back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    /// The command ended, with this status as a shell counts: 128 and its number for a signal.
    Ended(i32),
    /// There was none to start.
    Failed(String),
}
