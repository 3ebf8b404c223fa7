//! Why a sandbox could not do what it was asked.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::engine::EngineError;
use crate::link::LinkError;

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
    #[error("all {max_sandboxes} sandboxes are in use and {queued} requests wait for one; try again")]
    Busy {
        /// How many serve at once.
        max_sandboxes: usize,
        /// How many wait.
        queued: usize,
        /// When it may be better.
        retry_after: Duration,
    },
    /// Enough sandboxes are kept.
    #[error("{max_kept_sandboxes} sandboxes are kept already, which is the most there may be; kill one, or try again")]
    Full {
        /// How many may be kept.
        max_kept_sandboxes: usize,
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
    #[error("the container was not ready after {0:?}")]
    Slow(Duration),
}
