//! One Docker daemon.

mod agent_log;
mod daemon;
pub mod images;
mod network_namespaces;
pub mod report;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bollard::errors::Error as DockerError;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, ResourcesUlimits};
use bollard::query_parameters::{EventsOptionsBuilder, InspectContainerOptionsBuilder};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use ipnet::Ipv4Net;
use tokio::sync::OnceCell;

use super::{
    ContainerEnd, DiskMeter, Engine, EngineConfig, EngineError, Freezer, InstanceId, Launched, Spec, UserId,
    UserIdRange, UserIds,
};
use daemon::{Daemon, Wanted, engine_error, is_missing_image, labels, says};
use network_namespaces::{NetworkNamespace, NetworkNamespaces};

/// The time in which a container may use its share of processor time, microseconds: the kernel's and Docker's default.
const CPU_PERIOD_US: i64 = 100_000;

/// How often a container is tried to be paused, and how long apart.
const PAUSE_TRIES: u32 = 5;
const PAUSE_RETRY: Duration = Duration::from_millis(100);

/// How long it is tried where the OCI runtime only did not manage to freeze it: under cgroup v1 each of its processes
/// must be met by the freezer, and many that want the processors are not.
const FREEZE_LIMIT: Duration = Duration::from_secs(20);

/// How long the daemon's word on whether a container is paused may be old, and how long apart it is asked: it hears
/// from containerd of a pause and a resumption after it has answered for them, and then believes for a moment what is
/// over.
const STATE_LAG: Duration = Duration::from_secs(2);
const STATE_RETRY: Duration = Duration::from_millis(20);

/// How long a sweep goes on while the daemon refuses something or, where `engine_timeout_ms` is less, is slow; and how
/// long apart: what it is still removing, or starting for a server that was killed, is in the way.
const SWEEP_LIMIT: Duration = Duration::from_secs(10);
const SWEEP_RETRY: Duration = Duration::from_millis(200);

/// The containers, and which network namespace and which uid each borrows.
type Borrowed = HashMap<InstanceId, (Wanted, NetworkNamespace, UserId)>;

/// Containers of one owner on one Docker daemon.
#[derive(Debug, Clone)]
pub struct DockerEngine {
    daemon: Arc<Daemon>,
    owner: String,
    namespaces: Arc<NetworkNamespaces>,
    /// The uids of user code, once it is known of which range.
    user_ids: Arc<OnceCell<Arc<UserIds>>>,
    borrowed: Arc<Mutex<Borrowed>>,
}

impl DockerEngine {
    /// Connects to the daemon that `DOCKER_HOST` names, or to the local one. Without `user_ids`, the uids of user code
    /// are chosen for the kind of daemon.
    ///
    /// # Errors
    ///
    /// When the address cannot be understood. Whether the daemon answers is seen at the first call.
    pub(super) fn connect(config: EngineConfig) -> Result<Self, EngineError> {
        let docker = daemon::connect().map_err(|err| EngineError::Unreachable(err.into()))?;
        Ok(Self::over(docker, &config.owner, config.timeout, config.allow_private, config.user_ids))
    }

    fn over(
        docker: bollard::Docker,
        owner: &str,
        limit: Duration,
        allow_private: Vec<Ipv4Net>,
        user_ids: Option<UserIdRange>,
    ) -> Self {
        let daemon = Daemon::new(docker, owner, limit);
        Self {
            namespaces: Arc::new(NetworkNamespaces::new(Arc::clone(&daemon), owner, allow_private)),
            daemon,
            owner: owner.to_owned(),
            user_ids: Arc::new(OnceCell::new_with(user_ids.map(UserIds::new))),
            borrowed: Arc::default(),
        }
    }

    async fn launch_container(&self, spec: &Spec) -> Result<Launched, EngineError> {
        let uid = self.take_user_id().await?;
        loop {
            let namespace = self.namespaces.take(&spec.network).await?;
            let body = container(spec, &self.owner, namespace.name(), &uid);
            match self.daemon.start(body, namespace.ended()).await {
                Ok((container, pipe)) => {
                    let id = InstanceId(container.name().to_owned());
                    let mut borrowed = self.borrowed.lock().unwrap_or_else(PoisonError::into_inner);
                    borrowed.insert(id.clone(), (container, namespace, uid));
                    return Ok(Launched { id, pipe });
                }
                Err(err) if is_missing_image(&err) => {
                    self.namespaces.give_back(namespace).await;
                    return Err(EngineError::NoImage(spec.image.clone()));
                }
                // One that waited may be gone with a daemon that was restarted; neither a new one nor what is asked for
                // is to blame.
                Err(DockerError::DockerResponseServerError { status_code, .. })
                    if namespace.reused && status_code != 400 =>
                {
                    self.namespaces.discard(namespace).await;
                }
                Err(err) => return Err(engine_error("start a container", err)),
            }
        }
    }

    async fn take_user_id(&self) -> Result<UserId, EngineError> {
        let ids = self.user_ids.get_or_try_init(|| async {
            let info = self.daemon.timed(self.daemon.docker().info()).await;
            let options = info.map_err(|err| engine_error("say how it maps users", err))?.security_options;
            let maps = |option: &String| ["name=userns", "name=rootless"].iter().any(|name| option.starts_with(name));
            let range = if options.iter().flatten().any(maps) { UserIdRange::NAMESPACE } else { UserIdRange::HOST };
            Ok::<_, EngineError>(UserIds::new(range))
        });
        let ids = ids.await?;
        ids.take().ok_or_else(|| EngineError::NoUserId(ids.range()))
    }

    async fn destroy_container(&self, id: &InstanceId) -> Result<(), EngineError> {
        self.daemon.remove(&id.0).await?;
        // Nobody lives in its namespace now, and only now.
        let gone = self.borrowed.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        if let Some((_, namespace, _)) = gone {
            self.namespaces.give_back(namespace).await;
        }
        Ok(())
    }

    /// Pauses, again if need be: a busy container does not always freeze at the first try.
    async fn pause_container(&self, id: &InstanceId) -> Result<(), EngineError> {
        let (began, mut tries) = (Instant::now(), 1);
        loop {
            match self.daemon.timed(self.daemon.docker().pause_container(&id.0)).await {
                Ok(()) => return Ok(()),
                // What the daemon hears of a resumption may come after it has done it. If it does not change, it is
                // true.
                Err(err) if says(&err, "already paused") => {
                    if began.elapsed() > STATE_LAG {
                        return Ok(());
                    }
                    tokio::time::sleep(STATE_RETRY).await;
                }
                Err(ref err @ DockerError::DockerResponseServerError { status_code: 500, .. })
                    if tries < PAUSE_TRIES || (says(err, "unable to freeze") && began.elapsed() < FREEZE_LIMIT) =>
                {
                    tries += 1;
                    tokio::time::sleep(PAUSE_RETRY).await;
                }
                Err(err) => return Err(engine_error("pause a container", err)),
            }
        }
    }

    async fn resume_container(&self, id: &InstanceId) -> Result<(), EngineError> {
        let (daemon, docker) = (&self.daemon, self.daemon.docker());
        let began = Instant::now();
        loop {
            let Err(err) = daemon.timed(docker.unpause_container(&id.0)).await else { return Ok(()) };
            // As with a pause: it may be frozen although the daemon has yet to hear of it.
            if says(&err, "not paused") && began.elapsed() < STATE_LAG {
                tokio::time::sleep(STATE_RETRY).await;
                continue;
            }
            // A daemon that was too slow to say that it has done so refuses to do it again.
            let found = daemon.timed(docker.inspect_container(&id.0, None)).await;
            let state = found.ok().and_then(|container| container.state).unwrap_or_default();
            return match (state.running, state.paused) {
                (Some(true), Some(false)) => Ok(()),
                _ => Err(engine_error("resume a container", err)),
            };
        }
    }

    async fn sweep_owned(&self) -> Result<usize, EngineError> {
        let _looking = self.namespaces.forget().await;
        let began = Instant::now();
        let mut removed = 0;
        loop {
            let swept = async {
                removed += self.daemon.remove_all().await?;
                self.namespaces.remove_networks().await
            };
            match swept.await {
                Err(EngineError::Refused { .. } | EngineError::InUse(_) | EngineError::Slow { .. })
                    if began.elapsed() < SWEEP_LIMIT && self.daemon.ping().await.is_ok() =>
                {
                    tokio::time::sleep(SWEEP_RETRY).await;
                }
                swept => {
                    // A server that was killed may have asked for what the daemon is only about to create.
                    self.daemon.doubt();
                    self.namespaces.look_for_late_networks();
                    return swept.map(|()| removed);
                }
            }
        }
    }
}

impl Engine for DockerEngine {
    fn launch<'a>(&'a self, spec: &'a Spec) -> BoxFuture<'a, Result<Launched, EngineError>> {
        self.launch_container(spec).boxed()
    }

    fn destroy<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), EngineError>> {
        self.destroy_container(id).boxed()
    }

    fn end_of<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, ContainerEnd> {
        async move {
            let agent_log = {
                let borrowed = self.borrowed.lock().unwrap_or_else(PoisonError::into_inner);
                borrowed.get(id).and_then(|(container, ..)| container.last_line())
            };
            let mut end = ContainerEnd { agent_log, ..ContainerEnd::default() };
            // The daemon keeps the last events of all containers. It may hear of this one later than we of the link's
            // end.
            let filters = HashMap::from([("container", vec![id.0.as_str()]), ("event", vec!["oom", "die"])]);
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
            let until = (now + 2).to_string();
            let options = EventsOptionsBuilder::default().since("0").until(&until).filters(&filters).build();
            let mut events = self.daemon.docker().events(Some(options));
            let read = async {
                while let Some(Ok(event)) = events.next().await {
                    if event.action.as_deref() == Some("oom") {
                        end.out_of_memory = true;
                    } else {
                        let attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
                        end.exit_code = attributes.get("exitCode").and_then(|code| code.parse().ok());
                        break;
                    }
                }
                Ok(())
            };
            let _ = self.daemon.timed(read).await;
            end
        }
        .boxed()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<usize, EngineError>> {
        self.sweep_owned().boxed()
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        self.daemon.ping().boxed()
    }

    fn processors(&self) -> BoxFuture<'_, Result<u64, EngineError>> {
        async {
            let info = self.daemon.timed(self.daemon.docker().info()).await;
            let info = info.map_err(|err| engine_error("describe its host", err))?;
            let processors = info.ncpu.and_then(|processors| u64::try_from(processors).ok());
            processors.ok_or_else(|| EngineError::Unreachable("it does not say how many processors it has".into()))
        }
        .boxed()
    }

    fn freezer(&self) -> Option<&dyn Freezer> {
        Some(self)
    }

    fn disk_meter(&self) -> Option<&dyn DiskMeter> {
        Some(self)
    }
}

impl Freezer for DockerEngine {
    fn pause<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), EngineError>> {
        self.pause_container(id).boxed()
    }

    fn resume<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), EngineError>> {
        self.resume_container(id).boxed()
    }
}

impl DiskMeter for DockerEngine {
    fn written_bytes<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<u64, EngineError>> {
        async move {
            let options = InspectContainerOptionsBuilder::default().size(true).build();
            let found = self.daemon.timed(self.daemon.docker().inspect_container(&id.0, Some(options))).await;
            let found = found.map_err(|err| engine_error("measure a container", err))?;
            Ok(found.size_rw.unwrap_or_default().max(0).unsigned_abs())
        }
        .boxed()
    }
}

/// The container of a sandbox: the agent is root with the few rights it needs to act for the user, the rest is taken
/// away.
fn container(spec: &Spec, owner: &str, namespace: &str, uid: &UserId) -> ContainerCreateBody {
    let limit = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    // `exec`: native modules of packages installed with `pip install --user` are mapped executable from here. As many
    // files as pages: empty ones take kernel memory too, and are to end as a full disk, not as the whole memory.
    let sized = |bytes: u64| format!("size={bytes},nr_inodes={}", (bytes / 4096).max(1024));
    let disk = |owner: &str| format!("rw,exec,nosuid,nodev,{}{owner}", sized(spec.disk_bytes));
    // In place of the engine's own, in which the number of files has no bound.
    let shared = format!("rw,noexec,nosuid,nodev,{},mode=1777", sized(spec.disk_bytes.min(spec.memory_bytes)));
    let run = "rw,noexec,nosuid,nodev,size=1m,mode=0755".to_owned();
    let mut in_memory = HashMap::from([("/run".to_owned(), run), ("/dev/shm".to_owned(), shared)]);
    if !spec.writable_root {
        in_memory.insert("/home/user".to_owned(), disk(&format!(",mode=0755,uid={},gid=1000", uid.get())));
        in_memory.extend(["/tmp", "/var/tmp"].map(|path| (path.to_owned(), disk(",mode=1777"))));
    }
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        cmd: Some(agent_words(spec, uid)),
        user: Some("0:0".to_owned()),
        labels: Some(labels(owner)),
        // `stdin_once`: when this server dies its connection closes, the agent reads the end of its stdin, and goes.
        open_stdin: Some(true),
        stdin_once: Some(true),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        // A terminal would change the bytes.
        tty: Some(false),
        host_config: Some(HostConfig {
            auto_remove: Some(true),
            network_mode: Some(format!("container:{namespace}")),
            // With a log driver every byte of the pipe would be copied to the host's disk.
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            readonly_rootfs: Some(!spec.writable_root),
            tmpfs: Some(in_memory),
            memory: Some(limit(spec.memory_bytes)),
            memory_swap: Some(limit(spec.memory_bytes)),
            // What the daemon takes as a number of processors must not be more than the host has; a quota may be.
            cpu_period: Some(CPU_PERIOD_US),
            cpu_quota: Some(limit(spec.cpu_millis).saturating_mul(CPU_PERIOD_US / 1000)),
            pids_limit: Some(limit(spec.processes)),
            ulimits: Some(vec![ulimit("nofile", limit(spec.open_files)), ulimit("core", 0)]),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(AGENT_CAPABILITIES.iter().map(|name| (*name).to_owned()).collect()),
            security_opt: Some(vec!["no-new-privileges=true".to_owned()]),
            runtime: spec.oci_runtime.clone(),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// The agent's command line: to restrict itself, as whom user code runs, and whether that may become root.
fn agent_words(spec: &Spec, uid: &UserId) -> Vec<String> {
    let mut words = vec!["restricted".to_owned(), format!("user={}", uid.get()), format!("users={}", uid.range())];
    words.extend(spec.superuser.then(|| "superuser".to_owned()));
    words
}

/// What the agent needs: become the user, own and write its files, end its processes.
const AGENT_CAPABILITIES: [&str; 6] = ["SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL"];

fn ulimit(name: &str, value: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(value), hard: Some(value) }
}
