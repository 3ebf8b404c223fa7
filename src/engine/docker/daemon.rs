//! The daemon's calls, and the containers that are wanted of it.
//!
//! A daemon can be slow, refuse, hang and go away. Every call has its time, so that silence is an error like others;
//! and what was asked for and may come late all the same is looked for and removed, so that nothing is forgotten.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error as DockerError;
use bollard::models::{ContainerCreateBody, ContainerSummary};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use futures::{Stream, StreamExt};
use rand::distr::{Alphanumeric, SampleString};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::io::StreamReader;

use super::agent_log::AgentLog;
use crate::engine::{EngineError, Pipe};

/// Everything we create carries it, with the owner as its value.
pub(super) const OWNER_LABEL: &str = "oncebox.owner";

/// Between two looks for strays.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// So long after the last doubt, or the longest call if that is longer, what was asked for has come or never will.
const SETTLED: Duration = Duration::from_secs(10);

/// A daemon that does not answer a ping for so long is not well.
const PING_LIMIT: Duration = Duration::from_secs(3);

/// Where the daemon listens that no address is given for.
pub(super) const LOCAL: &str = "unix:///var/run/docker.sock";

/// The address in `DOCKER_HOST`. As for Docker's own command, an empty one is none.
pub(super) fn host_from_env() -> Option<String> {
    std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty())
}

/// Connects to the daemon that `DOCKER_HOST` names, or to the local one.
pub(super) fn connect() -> Result<Docker, DockerError> {
    Docker::connect_with_host(host_from_env().as_deref().unwrap_or(LOCAL))
}

/// One Docker daemon, as one owner uses it.
#[derive(Debug)]
pub(super) struct Daemon {
    docker: Docker,
    owner: String,
    /// How long a call may take.
    limit: Duration,
    /// Starting and removing is processor time of the daemon's: more at once than cores only adds waiting.
    slots: Semaphore,
    containers: Mutex<Containers>,
}

#[derive(Debug, Default)]
struct Containers {
    /// The names of those that are in use, or are about to be. All others of the owner's are strays.
    wanted: HashSet<String>,
    /// When there last was reason to think that there are strays.
    doubted: Option<Instant>,
    /// Whether they are being looked for.
    looking: bool,
}

/// A container that is wanted. When this goes before the container is known to be gone, the container is a stray.
pub(super) struct Wanted {
    name: String,
    daemon: Arc<Daemon>,
    last_line: LastLine,
}

/// The last line of an agent's log.
type LastLine = Arc<Mutex<Option<String>>>;

impl Wanted {
    /// The container's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The last line of its agent's log.
    pub(super) fn last_line(&self) -> Option<String> {
        self.last_line.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        if self.daemon.forget(&self.name) {
            self.daemon.doubt();
        }
    }
}

impl Daemon {
    pub(super) fn new(docker: Docker, owner: &str, limit: Duration) -> Arc<Self> {
        // Ours comes first; the library's own does not cover bodies, and is in whole seconds.
        let docker = docker.with_timeout(limit + Duration::from_secs(1));
        let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
        let slots = Semaphore::new(cores);
        Arc::new(Self { docker, owner: owner.to_owned(), limit, slots, containers: Mutex::default() })
    }

    /// The library's client, for calls that go through [`Daemon::timed`].
    pub(super) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// A call's answer, if it comes in time.
    pub(super) async fn timed<T>(&self, call: impl Future<Output = Result<T, DockerError>>) -> Result<T, DockerError> {
        tokio::time::timeout(self.limit, call).await.unwrap_or(Err(DockerError::RequestTimeoutError))
    }

    /// Whether it answers.
    pub(super) async fn ping(&self) -> Result<(), EngineError> {
        let ping = tokio::time::timeout(PING_LIMIT, self.timed(self.docker.ping()));
        let answer = ping.await.unwrap_or(Err(DockerError::RequestTimeoutError));
        answer.map(|_| ()).map_err(|err| engine_error("answer", err))
    }

    /// Creates, attaches and starts a container, in this order: attached later, the first bytes would be lost. Its
    /// output ends when `until` does. After an error nothing of it stays.
    pub(super) async fn start(
        self: &Arc<Self>,
        body: ContainerCreateBody,
        until: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(Wanted, Pipe), DockerError> {
        let name = self.new_name();
        self.lock().wanted.insert(name.clone());
        let wanted = Wanted { name, daemon: Arc::clone(self), last_line: LastLine::default() };
        let name = wanted.name();
        let _slot = self.slot().await;
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        if let Err(err) = self.timed(self.docker.create_container(Some(options), body)).await {
            if matches!(err, DockerError::DockerResponseServerError { status_code: 400..500, .. }) {
                // There is none.
                self.forget(name);
            }
            return Err(err);
        }
        let options =
            AttachContainerOptionsBuilder::default().stream(true).stdin(true).stdout(true).stderr(true).build();
        let attached = self.timed(self.docker.attach_container(name, Some(options))).await?;
        self.timed(self.docker.start_container(name, None)).await?;
        let last_line = Arc::clone(&wanted.last_line);
        let output = stdout_of(name.to_owned(), last_line, attached.output.take_until(Box::pin(until)));
        let pipe = Pipe::new(tokio::io::join(StreamReader::new(Box::pin(output)), attached.input));
        Ok((wanted, pipe))
    }

    /// Kills and removes a container, and returns when it is gone. One that is gone already is what was wanted.
    pub(super) async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let began = Instant::now();
        loop {
            let removed = {
                let _slot = self.slot().await;
                self.timed(self.docker.remove_container(name, Some(options.clone()))).await
            };
            match removed {
                Ok(()) | Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => {
                    self.forget(name);
                    return Ok(());
                }
                Err(err) if is_ending(&err) && began.elapsed() < self.limit => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(err) => return Err(engine_error("remove a container", err)),
            }
        }
    }

    /// Removes all containers of the owner, wanted or not, and says how many there were.
    pub(super) async fn remove_all(&self) -> Result<usize, EngineError> {
        let found = self.list().await?;
        let mut removed = Ok(found.len());
        for container in &found {
            // One that stays does not keep the others.
            if let Err(err) = self.remove(container.id.as_deref().unwrap_or_default()).await {
                removed = Err(err);
            }
        }
        removed
    }

    /// There may be strays: they are looked for until there is no reason any longer to think so.
    pub(super) fn doubt(self: &Arc<Self>) {
        let mut containers = self.lock();
        containers.doubted = Some(Instant::now());
        if !containers.looking
            && let Ok(runtime) = Handle::try_current()
        {
            containers.looking = true;
            runtime.spawn(Arc::clone(self).look_for_strays());
        }
    }

    async fn look_for_strays(self: Arc<Self>) {
        loop {
            let began = Instant::now();
            let removed = self.remove_strays().await;
            {
                let mut containers = self.lock();
                match removed {
                    Ok(()) if containers.doubted.is_none_or(|doubted| began > doubted + SETTLED.max(self.limit)) => {
                        containers.looking = false;
                        return;
                    }
                    Ok(()) => {}
                    // What it was asked before it went silent it may do when it comes to.
                    Err(_) => containers.doubted = Some(Instant::now()),
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn remove_strays(&self) -> Result<(), EngineError> {
        let found = self.list().await?;
        let mut removed = Ok(());
        for container in found {
            let names = container.names.unwrap_or_default();
            let name = names.first().map(|name| name.trim_start_matches('/')).unwrap_or_default();
            // Looked at after the list was made: one that is in there and was wanted meanwhile is gone, or going.
            if self.lock().wanted.contains(name) {
                continue;
            }
            match self.remove(container.id.as_deref().unwrap_or_default()).await {
                Ok(()) => tracing::info!("removed the container {name}, which nothing uses"),
                Err(err) => removed = Err(err),
            }
        }
        removed
    }

    async fn list(&self) -> Result<Vec<ContainerSummary>, EngineError> {
        let filters = HashMap::from([("label", vec![format!("{OWNER_LABEL}={}", self.owner)])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = self.timed(self.docker.list_containers(Some(options))).await;
        listed.map_err(|err| engine_error("list containers", err))
    }

    async fn slot(&self) -> SemaphorePermit<'_> {
        self.slots.acquire().await.expect("the semaphore is never closed")
    }

    fn new_name(&self) -> String {
        format!("oncebox-{}-{}", self.owner, Alphanumeric.sample_string(&mut rand::rng(), 12).to_lowercase())
    }

    /// False if it was not wanted.
    fn forget(&self, name: &str) -> bool {
        self.lock().wanted.remove(name)
    }

    fn lock(&self) -> MutexGuard<'_, Containers> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a container could not be created because its image is not there.
pub(super) fn is_missing_image(err: &DockerError) -> bool {
    matches!(err, DockerError::DockerResponseServerError { status_code: 404, message } if message.contains("No such image"))
}

/// Whether a container could not be removed because it was ending by itself: the daemon is removing it, and its
/// namespaces are free only when it is gone; or it ended between the daemon's look and its signal.
fn is_ending(err: &DockerError) -> bool {
    match err {
        DockerError::DockerResponseServerError { status_code: 409, .. } => true,
        DockerError::DockerResponseServerError { status_code: 500, message } => message.contains("is not running"),
        _ => false,
    }
}

/// The agent's stdout is the protocol; its stderr is its log, repeated in ours.
fn stdout_of(
    name: String,
    last_line: LastLine,
    output: impl Stream<Item = Result<LogOutput, DockerError>>,
) -> impl Stream<Item = Result<bytes::Bytes, std::io::Error>> {
    let mut log = AgentLog::new();
    output.filter_map(move |piece| {
        let stdout = match piece {
            Ok(LogOutput::StdOut { message }) => Some(Ok(message)),
            Ok(LogOutput::StdErr { message }) => {
                for line in log.lines(&message) {
                    tracing::warn!(target: "agent", "{name}: {line}");
                    *last_line.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
                }
                None
            }
            Ok(LogOutput::StdIn { .. } | LogOutput::Console { .. }) => None,
            Err(err) => Some(Err(std::io::Error::other(err))),
        };
        async move { stdout }
    })
}

/// Whether the daemon refused something in these words, whatever the status: that differs between its releases.
pub(super) fn says(err: &DockerError, words: &str) -> bool {
    matches!(err, DockerError::DockerResponseServerError { message, .. } if message.contains(words))
}

pub(super) fn labels(owner: &str) -> HashMap<String, String> {
    HashMap::from([(OWNER_LABEL.to_owned(), owner.to_owned())])
}

pub(super) fn engine_error(action: &'static str, err: DockerError) -> EngineError {
    match err {
        DockerError::DockerResponseServerError { .. } => EngineError::Refused { action, source: err.into() },
        DockerError::RequestTimeoutError => EngineError::Slow { action },
        err => EngineError::Unreachable(err.into()),
    }
}
