//! Why a sandbox could not do what it was asked.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::engine::EngineError;
use crate::link::LinkError;
use crate::protocol::Code;

/// This program could not do its work, or the request cannot be met. Code that fails is an outcome instead.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// No template is called so.
    #[error("no language is named `{name}`; known are: {known}")]
    UnknownLanguage {
        /// What was asked for.
        name: String,
        /// What could have been.
        known: String,
    },
    /// All sandboxes are in use and enough requests wait.
    #[error("all {max_sandboxes} sandboxes{whose} are in use and {queued} requests wait for one; try again")]
    Busy {
        /// How many serve at once.
        max_sandboxes: usize,
        /// Among whose they are so many.
        whose: Whose,
        /// How many wait.
        queued: usize,
        /// When it may be better.
        retry_after: Duration,
    },
    /// Enough sandboxes are kept.
    #[error(
        "{max_kept_sandboxes} sandboxes{whose} are kept already, which is the most there may be; kill one, or try again"
    )]
    Full {
        /// How many may be kept.
        max_kept_sandboxes: usize,
        /// Among whose they are so many.
        whose: Whose,
    },
    /// This API key has asked for too many in a short time.
    #[error("this key may begin {per_minute} runs and sandboxes a minute; try again in {} s", seconds(*.retry_after))]
    TooOften {
        /// How many there may be in a minute.
        per_minute: u32,
        /// When there may be another.
        retry_after: Duration,
    },
    /// A file of the request cannot be written.
    #[error("{message}")]
    File {
        /// Which of the files, from 0.
        index: usize,
        /// Why.
        message: String,
    },
    /// No container could be started.
    #[error("cannot start a sandbox")]
    Launch(#[source] Arc<LaunchError>),
    /// The sandbox went away before the code began.
    #[error("the sandbox was lost before the code began")]
    Lost(#[source] LinkError),
    /// The server is going down.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// Why an operation on a sandbox failed.
#[derive(Debug, Error)]
pub enum OperationError {
    /// The agent refused it.
    #[error("{message}")]
    Refused {
        /// The kind of reason.
        code: Code,
        /// The reason in words.
        message: String,
    },
    /// The sandbox is gone.
    #[error("the sandbox was lost")]
    Lost(#[source] Box<dyn StdError + Send + Sync>),
    /// The operation broke off. The sandbox lives on.
    #[error("the sandbox did not finish this operation")]
    Unfinished(#[source] Box<dyn StdError + Send + Sync>),
}

impl From<LinkError> for OperationError {
    fn from(err: LinkError) -> Self {
        match err {
            LinkError::Refused { code, message } => Self::Refused { code, message },
            LinkError::Broken(cause) => Self::Lost(cause),
            err @ LinkError::Version(_) => Self::Lost(err.into()),
            LinkError::Unfinished(cause) => Self::Unfinished(cause),
        }
    }
}

/// Among whose sandboxes a bound was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's.
    All,
    /// Those of the API key.
    Key,
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "",
            Self::Key => " of this key",
        })
    }
}

/// Whole seconds, at least one: what `Retry-After` takes.
pub(crate) fn seconds(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1000).max(1) as u64
}

/// Why a sandbox ended although nobody asked for that and its time was not up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Its memory was used up, and the kernel killed its agent too.
    OutOfMemory {
        /// What it may use, bytes.
        memory_bytes: u64,
    },
    /// More was written to its disk than may be.
    DiskFull {
        /// What may be written, bytes.
        disk_bytes: u64,
    },
    /// Its container ended.
    Exited {
        /// The exit code of the agent; 137 if that was killed.
        exit_code: i64,
    },
    /// Its agent could not be reached any longer, or talked nonsense.
    Unreachable,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory { memory_bytes } => write!(f, "it needed more than memory_bytes = {memory_bytes}"),
            Self::DiskFull { disk_bytes } => write!(f, "it wrote more than disk_bytes = {disk_bytes}"),
            Self::Exited { exit_code } => write!(f, "its container ended with exit code {exit_code}"),
            Self::Unreachable => f.write_str("its agent could not be reached any longer"),
        }
    }
}

/// Why no container could be started.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// The engine could not.
    #[error("the engine could not start a container")]
    Engine(#[from] EngineError),
    /// The container started, its agent or runner did not.
    #[error("the container did not become ready")]
    Agent(#[from] LinkError),
    /// It took longer than a launch may.
    #[error("the container was not ready within `launch_timeout_ms` ({0:?})")]
    Slow(Duration),
}
