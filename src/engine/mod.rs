//! Engines: places that start and remove containers. An engine knows nothing of what goes through a pipe.

pub mod docker;
mod egress;
mod network;
mod process;
mod user_ids;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ipnet::Ipv4Net;
use serde::Deserialize;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

pub use network::{Choice, Network, ParseTargetError, Target, parse_network, parse_target};
pub(crate) use network::{networks, targets};
pub use user_ids::UserIdRange;
pub(crate) use user_ids::{UserId, UserIds, user_ids};

/// The kind of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// A Docker daemon.
    Docker,
    /// Agents within the server's own process: no isolation at all, for tests.
    Process,
}

/// The engine to open, and its settings.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The kind of engine.
    pub kind: EngineKind,
    /// Distinguishes this server's containers from those of other servers on the same engine.
    pub owner: String,
    /// The time after which a call to the engine has failed.
    pub timeout: Duration,
    /// Networks that are not public but that sandboxes with a full network may reach.
    pub allow_private: Vec<Ipv4Net>,
    /// The uids that user code runs as; the engine chooses them if `None`.
    pub user_ids: Option<UserIdRange>,
}

/// Opens the engine that the configuration names.
///
/// # Errors
///
/// When the settings are invalid. An engine that does not answer is an error of the first call.
pub fn open(config: EngineConfig) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(match config.kind {
        EngineKind::Docker => Arc::new(docker::DockerEngine::connect(config)?),
        EngineKind::Process => Arc::new(process::ProcessEngine::open()?),
    })
}

/// A sentence that names the templates that need more processors than the host has; `None` if there are none.
/// `templates` holds names and thousandths of a processor.
pub fn too_many_processors(processors: u64, templates: &[(String, u64)]) -> Option<String> {
    let more = templates.iter().filter(|(_, cpu_millis)| *cpu_millis > processors.saturating_mul(1000));
    let more: Vec<_> = more.map(|(name, cpu_millis)| format!("`{name}` ({})", *cpu_millis as f64 / 1000.0)).collect();
    let noun = if processors == 1 { "processor" } else { "processors" };
    (!more.is_empty())
        .then(|| format!("the engine's host has {processors} {noun}, and templates ask for more: {}", more.join(", ")))
}

/// A place that can start and remove containers. A container's agent is reached through the [`Pipe`].
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// Starts one container and returns once bytes can be exchanged with its agent.
    fn launch<'a>(&'a self, spec: &'a Spec) -> BoxFuture<'a, Result<Launched, EngineError>>;

    /// Removes a container at once. Removing one that is already gone is not an error.
    fn destroy<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), EngineError>>;

    /// Finds out how a container ended whose agent no longer answers. Call it before `destroy`, which ends the
    /// container itself.
    fn end_of<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, ContainerEnd>;

    /// Removes all containers and networks with this owner's label, of an earlier server or of this one, and returns
    /// the number of containers. [`EngineError::InUse`] means that everything is gone except a network, which is used
    /// again if it stays.
    fn sweep(&self) -> BoxFuture<'_, Result<usize, EngineError>>;

    /// Checks that the engine answers.
    fn ping(&self) -> BoxFuture<'_, Result<(), EngineError>>;

    /// The number of processors of the engine's host.
    fn processors(&self) -> BoxFuture<'_, Result<u64, EngineError>>;

    /// This engine's [`Freezer`], if it can freeze containers.
    fn freezer(&self) -> Option<&dyn Freezer>;

    /// This engine's [`DiskMeter`], if it can measure disk usage.
    fn disk_meter(&self) -> Option<&dyn DiskMeter>;
}

/// An engine that can freeze containers.
pub trait Freezer: Send + Sync {
    /// Freezes a container: its processes keep their memory and get no processor time.
    fn pause<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), EngineError>>;

    /// Resumes a frozen container.
    fn resume<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), EngineError>>;
}

/// An engine that can measure the disk usage of containers.
pub trait DiskMeter: Send + Sync {
    /// The bytes written to the file system of a container whose whole file system is writable.
    fn written_bytes<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<u64, EngineError>>;
}

/// The description of a container to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The image's name.
    pub image: String,
    /// Memory, bytes; there is no swap.
    pub memory_bytes: u64,
    /// Processor time, thousandths of a core.
    pub cpu_millis: u64,
    /// The most processes and threads at once.
    pub processes: u64,
    /// Room in each writable directory, bytes.
    pub disk_bytes: u64,
    /// Whether the whole file system is writable. The engine then enforces no limit; its [`DiskMeter`] measures the
    /// usage.
    pub writable_root: bool,
    /// Whether the agent may run commands as root for any user inside.
    pub superuser: bool,
    /// The most open files of one process.
    pub open_files: u64,
    /// The addresses that the container can reach.
    pub network: Network,
    /// The OCI runtime, if not the engine's default.
    pub oci_runtime: Option<String>,
}

/// A container that was started.
#[derive(Debug)]
pub struct Launched {
    /// Its id, for all later calls.
    pub id: InstanceId,
    /// The two directions of bytes to and from its agent.
    pub pipe: Pipe,
}

/// An engine's name for a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InstanceId(pub String);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The end of a container, as far as the engine knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerEnd {
    /// Whether the kernel killed a process in it because its memory was used up.
    pub out_of_memory: bool,
    /// The exit code of its first process, the agent; 137 if the agent was killed. `None` while it runs, or if unknown.
    pub exit_code: Option<i64>,
    /// The last line of the agent's log. Root in a sandbox can write there too.
    pub agent_log: Option<String>,
}

/// Two directions of bytes.
pub struct Pipe(Box<dyn Duplex>);

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Pipe {
    /// Wraps a stream of bytes in both directions.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Box::new(io))
    }

    /// The wrapped stream.
    pub fn into_io(self) -> impl AsyncRead + AsyncWrite + Send + Unpin + 'static {
        self.0
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipe")
    }
}

/// Why an engine could not do its work.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The engine does not answer.
    #[error("the engine cannot be reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// The engine did not answer in time.
    #[error("the engine did not {action} within `engine_timeout_ms`")]
    Slow {
        /// The action, as a verb phrase: `start a container`.
        action: &'static str,
    },
    /// The engine does not have the image.
    #[error("the image `{0}` is not on the engine; `oncebox images build` builds oncebox's own images")]
    NoImage(String),
    /// The engine answered with an error.
    #[error("the engine refused to {action}")]
    Refused {
        /// The action, as a verb phrase: `start a container`.
        action: &'static str,
        /// The engine's error.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The engine does not remove a network, because it counts endpoints on it after this owner's containers are
    /// removed. They are another user's, or do not exist.
    #[error("the engine does not remove a network: {0}")]
    InUse(String),
    /// This kind of engine cannot do this.
    #[error("this engine cannot {action}")]
    Unsupported {
        /// The action, as a verb phrase: `start a container`.
        action: &'static str,
    },
    /// There is no uid left that no other sandbox has.
    #[error("every uid of `user_ids` ({0}) is in use")]
    NoUserId(UserIdRange),
    /// The network of a sandbox cannot be set up. No sandbox is started then, rather than one that reaches more than it
    /// may.
    #[error("cannot set up the network of a sandbox: {0}")]
    Network(String),
    /// The engine isolates nothing, and nobody has allowed that.
    #[error("engine = \"process\" runs code with all rights of the server and is for tests: {0}=1 allows it")]
    NotIsolated(&'static str),
}
