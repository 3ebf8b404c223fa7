//! Where containers run. An engine starts and removes them, and knows nothing of what is inside.

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

pub use network::{Choice, Network, Target, parse_network, parse_target};
pub(crate) use network::{networks, targets};
pub use user_ids::UserIdRange;
pub(crate) use user_ids::{UserId, UserIds, user_ids};

/// The engines there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// A Docker daemon.
    Docker,
    /// Agents within the server itself: no isolation at all, for tests.
    Process,
}

/// Which engine to open, and its settings.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Which.
    pub kind: EngineKind,
    /// Tells this server's containers from those of others on the same engine.
    pub owner: String,
    /// A call that takes longer has failed.
    pub timeout: Duration,
    /// What sandboxes with the internet reach although it is not public.
    pub allow_private: Vec<Ipv4Net>,
    /// The uids that user code runs as; `None` leaves the choice to the engine.
    pub user_ids: Option<UserIdRange>,
}

/// Opens the engine that the configuration names.
///
/// # Errors
///
/// When its settings make no sense. Whether it answers is seen at the first call.
pub fn open(config: EngineConfig) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(match config.kind {
        EngineKind::Docker => Arc::new(docker::DockerEngine::connect(config)?),
        EngineKind::Process => Arc::new(process::ProcessEngine::open()?),
    })
}

/// Names, in a sentence, the templates that ask for more processors than there are; `asked` is in thousandths.
pub fn beyond(processors: u64, asked: &[(String, u64)]) -> Option<String> {
    let more = asked.iter().filter(|(_, cpu_millis)| *cpu_millis > processors.saturating_mul(1000));
    let more: Vec<_> = more.map(|(name, cpu_millis)| format!("`{name}` ({})", *cpu_millis as f64 / 1000.0)).collect();
    let noun = if processors == 1 { "processor" } else { "processors" };
    (!more.is_empty())
        .then(|| format!("the engine's host has {processors} {noun}, and templates ask for more: {}", more.join(", ")))
}

/// A place that can start and remove containers. What is inside is reached through the [`Pipe`].
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// Starts one container and returns once bytes can be exchanged with its agent.
    fn launch<'a>(&'a self, spec: &'a Spec) -> BoxFuture<'a, Result<Launched, EngineError>>;

    /// Removes a container at once. Removing one that is gone is not an error.
    fn destroy<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), EngineError>>;

    /// How a container ended, for one whose agent no longer answers. To be asked before it is destroyed, which is an
    /// end too.
    fn end_of<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, ContainerEnd>;

    /// Removes everything that carries this owner's label: what an earlier server left, or what this one still has.
    /// With [`EngineError::InUse`] all that was found is gone but a network, which is used again if it stays.
    fn sweep(&self) -> BoxFuture<'_, Result<usize, EngineError>>;

    /// Whether the engine answers.
    fn ping(&self) -> BoxFuture<'_, Result<(), EngineError>>;

    /// How many processors its host has.
    fn processors(&self) -> BoxFuture<'_, Result<u64, EngineError>>;

    /// Its way to freeze containers, if it has one.
    fn freezer(&self) -> Option<&dyn Freezer>;

    /// Its way to measure what containers write, if it has one.
    fn disk_meter(&self) -> Option<&dyn DiskMeter>;
}

/// An engine that can freeze containers.
pub trait Freezer: Send + Sync {
    /// Freezes a container: its processes keep their memory and get no processor time.
    fn pause<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), EngineError>>;

    /// Lets a frozen container go on.
    fn resume<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), EngineError>>;
}

/// An engine that can measure what containers write.
pub trait DiskMeter: Send + Sync {
    /// What is written to the file system of a container whose whole file system is writable, bytes.
    fn written_bytes<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<u64, EngineError>>;
}

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The image's name.
    pub image: String,
    /// Memory, bytes; there is no swap.
    pub memory_bytes: u64,
    /// Processor time, thousandths of a core.
    pub cpu_millis: u64,
    /// Processes and threads at once.
    pub processes: u64,
    /// Room in each writable directory, bytes.
    pub disk_bytes: u64,
    /// Whether the whole file system is writable. The engine bounds nothing then; its [`DiskMeter`] measures what is
    /// written.
    pub writable_root: bool,
    /// Whether the agent may act as root for anybody inside.
    pub superuser: bool,
    /// Open files of one process.
    pub open_files: u64,
    /// What the container can reach.
    pub network: Network,
    /// The OCI runtime, if not the engine's default.
    pub oci_runtime: Option<String>,
}

/// A container that was started.
#[derive(Debug)]
pub struct Launched {
    /// What to destroy it by.
    pub id: InstanceId,
    /// The way to its agent.
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

/// How a container ended, as far as the engine knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerEnd {
    /// Whether the kernel killed something in it because its memory was used up.
    pub out_of_memory: bool,
    /// The exit code of its first process, the agent; 137 if that was killed. `None` while it lives, or if nobody
    /// knows.
    pub exit_code: Option<i64>,
    /// The last line of the agent's log. Root in a sandbox can write there too.
    pub agent_log: Option<String>,
}

/// Two directions of bytes.
pub struct Pipe(Box<dyn Duplex>);

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Pipe {
    /// Wraps anything that can be read and written.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Box::new(io))
    }

    /// The bytes themselves.
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
    /// It does not answer.
    #[error("the engine cannot be reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// It answers too late, if at all.
    #[error("the engine did not {action} within `engine_timeout_ms`")]
    Slow {
        /// What it was asked.
        action: &'static str,
    },
    /// The image is not there.
    #[error("the image `{0}` is not on the engine; `oncebox images build` makes the ones that oncebox brings")]
    NoImage(String),
    /// It answered with an error.
    #[error("the engine refused to {action}")]
    Refused {
        /// What it was asked.
        action: &'static str,
        /// What it said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It keeps a network, because it counts endpoints on it although this owner's are removed: somebody else's, or
    /// none that there are.
    #[error("the engine keeps a network: {0}")]
    InUse(String),
    /// It is a kind of engine that cannot do this.
    #[error("this engine cannot {action}")]
    Unsupported {
        /// What it was asked.
        action: &'static str,
    },
    /// It cannot give user code a uid that no other sandbox has.
    #[error("every uid of `user_ids` ({0}) is in use")]
    NoUserId(UserIdRange),
    /// The network of a sandbox cannot be made what it is to be. There is then no sandbox, rather than one that reaches
    /// more.
    #[error("cannot set up the network of a sandbox: {0}")]
    Network(String),
}
