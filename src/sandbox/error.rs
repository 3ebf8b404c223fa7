//! The errors of sandboxes and of operations on them.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::template::NetworkKind;
use crate::engine::EngineError;
use crate::link::LinkError;
use crate::protocol::{Code, LimitHit};

/// Why no sandbox could be created, or no run started. Code that fails is an outcome instead.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// No template for single runs has this name.
    #[error("no language is named `{name}`; known languages: {known}")]
    UnknownLanguage {
        /// The requested name.
        name: String,
        /// The known names.
        known: String,
    },
    /// All sandboxes are in use, and the queue is full or does not move.
    #[error("max_sandboxes = {max_sandboxes}{scope}: all are in use, and {queued} requests wait for one; try again")]
    Busy {
        /// The limit that was reached.
        max_sandboxes: usize,
        /// Whether it is the total or the per-key limit.
        scope: LimitScope,
        /// The number of requests in the queue.
        queued: usize,
        /// When the client should try again.
        retry_after: Duration,
    },
    /// The limit of kept sandboxes is reached.
    #[error("max_kept_sandboxes = {max_kept_sandboxes}{scope}: as many are kept already; kill one first")]
    Full {
        /// The limit that was reached.
        max_kept_sandboxes: usize,
        /// Whether it is the total or the per-key limit.
        scope: LimitScope,
    },
    /// This API key has started too many runs and sandboxes in a short time.
    #[error(
        "max_starts_per_minute = {per_minute} of this key: it has started as many; try again in {} s",
        seconds(*.retry_after)
    )]
    TooOften {
        /// The limit per minute.
        per_minute: u32,
        /// When the key may start another one.
        retry_after: Duration,
    },
    /// This API key has used up its processor time of the day.
    #[error("cpu_seconds_per_day = {cpu_seconds_per_day} of this key: they are used up until 00:00 UTC")]
    CpuUsedUp {
        /// The limit.
        cpu_seconds_per_day: u64,
    },
    /// The time of a run, or to the deadline of a kept sandbox, is longer than this API key may have.
    #[error("it can be at most {max_timeout_ms} ms, the max_timeout_ms of this key")]
    TooLong {
        /// The limit.
        max_timeout_ms: u64,
    },
    /// This API key may not use the template.
    #[error("this key may not use the template `{name}`, only {allowed}")]
    TemplateForbidden {
        /// The name of the template.
        name: String,
        /// The names of those that it may use.
        allowed: String,
    },
    /// The client has chosen a network that reaches more than this API key may have.
    #[error("the network `{chosen}` is more than this key may have, which is `{most}`")]
    NetworkForbidden {
        /// The network that reaches as much.
        chosen: NetworkKind,
        /// The most that the key may have.
        most: NetworkKind,
    },
    /// The key of a creation belongs to another request.
    #[error("the key `{key}` belongs to another request, whose sandbox is still there: choose a new key")]
    OtherRequest {
        /// The key.
        key: String,
    },
    /// A file of the request cannot be written.
    #[error("{message}")]
    File {
        /// The index of the file in the request, from 0.
        index: usize,
        /// The reason.
        message: String,
    },
    /// No container could be started.
    #[error("cannot start a sandbox")]
    Launch(#[source] Arc<LaunchError>),
    /// The sandbox was lost before the code began.
    #[error("the sandbox was lost before the code began")]
    Lost(#[source] LinkError),
    /// The server is shutting down.
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl SandboxError {
    /// The limit that was reached, if one was.
    pub fn limit(&self) -> Option<LimitHit> {
        let (name, value) = match self {
            Self::Busy { max_sandboxes, .. } => ("max_sandboxes", *max_sandboxes as u64),
            Self::Full { max_kept_sandboxes, .. } => ("max_kept_sandboxes", *max_kept_sandboxes as u64),
            Self::TooOften { per_minute, .. } => ("max_starts_per_minute", u64::from(*per_minute)),
            Self::CpuUsedUp { cpu_seconds_per_day } => ("cpu_seconds_per_day", *cpu_seconds_per_day),
            Self::TooLong { max_timeout_ms } => ("max_timeout_ms", *max_timeout_ms),
            _ => return None,
        };
        Some(LimitHit { name: name.to_owned(), value })
    }

    /// Whether the same request may be accepted later, and when; `None` if waiting is not what helps.
    pub(crate) fn retry(&self) -> Option<Retry> {
        match self {
            Self::Busy { retry_after, .. } | Self::TooOften { retry_after, .. } => Some(Retry::After(*retry_after)),
            Self::Full { .. } | Self::CpuUsedUp { .. } => Some(Retry::Not),
            _ => None,
        }
    }
}

/// What a client that was refused for a limit should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Send the request again after this time.
    After(Duration),
    /// Not send it again by itself: waiting does not help.
    Not,
}

/// Why an operation on a sandbox failed.
#[derive(Debug, Error)]
pub enum OperationError {
    /// The agent refused the operation.
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
    /// The operation broke off. The sandbox itself still works.
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

/// Whether the total or the per-key limit was reached. Displays as a part of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitScope {
    /// The limit of all sandboxes together.
    All,
    /// The limit of the request's API key.
    Key,
}

impl fmt::Display for LimitScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "",
            Self::Key => " of this key",
        })
    }
}

/// Whole seconds, at least one, for a `Retry-After` header.
pub(crate) fn seconds(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1000).max(1) as u64
}

/// Why a sandbox ended although it was not killed and had not reached its deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It used all its memory, and the kernel killed its agent.
    OutOfMemory {
        /// Its limit, bytes.
        memory_bytes: u64,
    },
    /// It wrote more to its disk than it may.
    DiskFull {
        /// Its limit, bytes.
        disk_bytes: u64,
    },
    /// Its container ended.
    Exited {
        /// The exit code of the agent; 137 if the agent was killed.
        exit_code: i64,
    },
    /// Its agent did not answer any longer, or broke the protocol.
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
    /// The engine failed.
    #[error("the engine could not start a container")]
    Engine(#[from] EngineError),
    /// The container started, but its agent or runner did not.
    #[error("the container did not become ready")]
    Agent(#[from] LinkError),
    /// The launch took longer than `launch_timeout_ms`.
    #[error("the container was not ready within `launch_timeout_ms` ({0:?})")]
    Slow(Duration),
}
