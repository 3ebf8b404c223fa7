//! Calls to the Docker daemon, and the containers that the server needs on it.
//!
//! A daemon can be slow, refuse calls, hang or go away. Every call has a timeout, so that silence is an error like any
//! other. A container that the daemon creates after such an error is found and removed, so that none is left.

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

/// The label of all containers and networks that oncebox creates. Its value is the owner.
pub(super) const OWNER_LABEL: &str = "oncebox.owner";

/// The time between two searches for strays.
const STRAY_INTERVAL: Duration = Duration::from_secs(1);

/// How long strays are searched for after the last suspicion, or for the timeout of a call if that is longer. After
/// that the daemon has created a requested container, or never will.
const SETTLED: Duration = Duration::from_secs(10);

/// The time after which an unanswered ping has failed.
const PING_LIMIT: Duration = Duration::from_secs(3);

/// The address of the local daemon, used when `DOCKER_HOST` is not set.
pub(super) const LOCAL: &str = "unix:///var/run/docker.sock";

/// The address in `DOCKER_HOST`. An empty value counts as not set, as for Docker's own command.
pub(super) fn host_from_env() -> Option<String> {
    std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty())
}

/// Connects to the daemon that `DOCKER_HOST` names, or to the local one.
pub(super) fn connect() -> Result<Docker, DockerError> {
    Docker::connect_with_host(host_from_env().as_deref().unwrap_or(LOCAL))
}

/// A client of one Docker daemon for one owner.
#[derive(Debug)]
pub(super) struct Daemon {
    docker: Docker,
    owner: String,
    /// The timeout of a call.
    limit: Duration,
    /// Limits the starts and removals at once to the number of cores: they take the daemon's processor time, and more
    /// at once would only wait.
    slots: Semaphore,
    containers: Mutex<Containers>,
}

#[derive(Debug, Default)]
struct Containers {
    /// The names of containers that are in use or being created. All other containers of the owner are strays.
    wanted: HashSet<String>,
    /// The last time at which a stray may have come about.
    suspected: Option<Instant>,
    /// Whether a search for strays is running.
    searching: bool,
}

/// A container that is needed. If it is dropped before the container is known to be gone, the container becomes a
/// stray.
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
            self.daemon.suspect_strays();
        }
    }
}

impl Daemon {
    pub(super) fn new(docker: Docker, owner: &str, limit: Duration) -> Arc<Self> {
        // Our own timeout comes first: the library's does not cover bodies, and is in whole seconds.
        let docker = docker.with_timeout(limit + Duration::from_secs(1));
        let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
        let slots = Semaphore::new(cores);
        Arc::new(Self { docker, owner: owner.to_owned(), limit, slots, containers: Mutex::default() })
    }

    /// The library's client, for calls that go through [`Daemon::timed`].
    pub(super) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Awaits a call, up to the timeout.
    pub(super) async fn timed<T>(&self, call: impl Future<Output = Result<T, DockerError>>) -> Result<T, DockerError> {
        tokio::time::timeout(self.limit, call).await.unwrap_or(Err(DockerError::RequestTimeoutError))
    }

    /// Checks that the daemon answers.
    pub(super) async fn ping(&self) -> Result<(), EngineError> {
        let ping = tokio::time::timeout(PING_LIMIT, self.timed(self.docker.ping()));
        let answer = ping.await.unwrap_or(Err(DockerError::RequestTimeoutError));
        answer.map(|_| ()).map_err(|err| engine_error("answer", err))
    }

    /// Creates, attaches to and starts a container, in this order: if it were attached after the start, the first bytes
    /// would be lost. Its output ends when `until` resolves. After an error the container is removed.
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
                // The daemon refused, so no container was created.
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

    /// Kills and removes a container, and returns when it is gone. A container that is already gone is not an error.
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

    /// Removes all containers of the owner, needed or not, and returns their number.
    pub(super) async fn remove_all(&self) -> Result<usize, EngineError> {
        let found = self.list().await?;
        let mut removed = Ok(found.len());
        for container in &found {
            // After an error, the others are removed all the same.
            if let Err(err) = self.remove(container.id.as_deref().unwrap_or_default()).await {
                removed = Err(err);
            }
        }
        removed
    }

    /// Notes that there may be strays, and starts to search for them until there can be none.
    pub(super) fn suspect_strays(self: &Arc<Self>) {
        let mut containers = self.lock();
        containers.suspected = Some(Instant::now());
        if !containers.searching
            && let Ok(runtime) = Handle::try_current()
        {
            containers.searching = true;
            runtime.spawn(Arc::clone(self).search_strays());
        }
    }

    async fn search_strays(self: Arc<Self>) {
        loop {
            let began = Instant::now();
            let removed = self.remove_strays().await;
            {
                let mut containers = self.lock();
                match removed {
                    Ok(())
                        if containers.suspected.is_none_or(|suspected| began > suspected + SETTLED.max(self.limit)) =>
                    {
                        containers.searching = false;
                        return;
                    }
                    Ok(()) => {}
                    // The daemon may still do what was requested before it stopped answering.
                    Err(_) => containers.suspected = Some(Instant::now()),
                }
            }
            tokio::time::sleep(STRAY_INTERVAL).await;
        }
    }

    async fn remove_strays(&self) -> Result<(), EngineError> {
        let found = self.list().await?;
        let mut removed = Ok(());
        for container in found {
            let names = container.names.unwrap_or_default();
            let name = names.first().map(|name| name.trim_start_matches('/')).unwrap_or_default();
            // Checked after the list was made: a container in the list that is no longer needed is a stray, or being
            // removed.
            if self.lock().wanted.contains(name) {
                continue;
            }
            match self.remove(container.id.as_deref().unwrap_or_default()).await {
                Ok(()) => tracing::info!("removed the container {name}, which was not in use"),
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

    /// Marks a container as no longer needed. False if it was not needed before.
    fn forget(&self, name: &str) -> bool {
        self.lock().wanted.remove(name)
    }

    fn lock(&self) -> MutexGuard<'_, Containers> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a container could not be created because the daemon does not have its image.
pub(super) fn is_missing_image(err: &DockerError) -> bool {
    matches!(err, DockerError::DockerResponseServerError { status_code: 404, message } if message.contains("No such image"))
}

/// Whether a container could not be removed because it is ending by itself: the daemon is already removing it, or it
/// ended between the daemon's check and its signal. Its namespaces are free only when it is gone.
fn is_ending(err: &DockerError) -> bool {
    match err {
        DockerError::DockerResponseServerError { status_code: 409, .. } => true,
        DockerError::DockerResponseServerError { status_code: 500, message } => message.contains("is not running"),
        _ => false,
    }
}

/// The agent's stdout, which is the protocol. Its stderr is its log, and is copied to the server's log.
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

/// Whether the daemon refused a call with a message that contains `words`. The status does not matter: it differs
/// between releases.
pub(super) fn message_contains(err: &DockerError, words: &str) -> bool {
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
