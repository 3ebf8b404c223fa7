//! The engine that runs containers on one Docker daemon.

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
use daemon::{Daemon, Wanted, engine_error, is_missing_image, labels, message_contains};
use network_namespaces::{NetworkNamespace, NetworkNamespaces};

/// The period of the CPU quota, microseconds: the default of the kernel and of Docker.
const CPU_PERIOD_US: i64 = 100_000;

/// The number of attempts to pause a container, and the time between them.
const PAUSE_TRIES: u32 = 5;
const PAUSE_RETRY: Duration = Duration::from_millis(100);

/// How long a pause is retried if the OCI runtime could not freeze the container: under cgroup v1 the freezer must
/// catch each of its processes, and misses some if many are busy.
const FREEZE_LIMIT: Duration = Duration::from_secs(20);

/// How long the daemon's state of a container may be out of date, and the time between two attempts meanwhile: the
/// daemon answers a pause or a resume before containerd's event of it arrives.
const STATE_LAG: Duration = Duration::from_secs(2);
const STATE_RETRY: Duration = Duration::from_millis(20);

/// How long a sweep is retried while the daemon refuses calls or times out, and the time between two attempts. The
/// cause may be a container that the daemon is still removing, or still starting for a server that was killed.
const SWEEP_LIMIT: Duration = Duration::from_secs(10);
const SWEEP_RETRY: Duration = Duration::from_millis(200);

/// The running containers, each with its network namespace and its uid.
type Running = HashMap<InstanceId, (Wanted, NetworkNamespace, UserId)>;

/// The containers of one owner on one Docker daemon.
#[derive(Debug, Clone)]
pub struct DockerEngine {
    daemon: Arc<Daemon>,
    owner: String,
    namespaces: Arc<NetworkNamespaces>,
    /// The uids of user code; set once their range is known.
    user_ids: Arc<OnceCell<Arc<UserIds>>>,
    running: Arc<Mutex<Running>>,
}

impl DockerEngine {
    /// Connects to the daemon that `DOCKER_HOST` names, or to the local one. Without `user_ids` in the configuration,
    /// the range of uids depends on whether the daemon maps users.
    ///
    /// # Errors
    ///
    /// When the address is invalid. A daemon that does not answer is an error of the first call.
    pub(super) fn connect(config: EngineConfig) -> Result<Self, EngineError> {
        let docker = daemon::connect().map_err(|err| EngineError::Unreachable(err.into()))?;
        Ok(Self::new(docker, &config.owner, config.timeout, config.allow_private, config.user_ids))
    }

    fn new(
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
            running: Arc::default(),
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
                    let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                    running.insert(id.clone(), (container, namespace, uid));
                    return Ok(Launched { id, pipe });
                }
                Err(err) if is_missing_image(&err) => {
                    self.namespaces.give_back(namespace).await;
                    return Err(EngineError::NoImage(spec.image.clone()));
                }
                // A free namespace may have ended when the daemon was restarted. The next attempt uses another one.
                // Status 400 is about the request, so it is not retried.
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
            let options = info.map_err(|err| engine_error("report how it maps users", err))?.security_options;
            let maps = |option: &String| ["name=userns", "name=rootless"].iter().any(|name| option.starts_with(name));
            let range = if options.iter().flatten().any(maps) { UserIdRange::NAMESPACE } else { UserIdRange::HOST };
            Ok::<_, EngineError>(UserIds::new(range))
        });
        let ids = ids.await?;
        ids.take().ok_or_else(|| EngineError::NoUserId(ids.range()))
    }

    async fn destroy_container(&self, id: &InstanceId) -> Result<(), EngineError> {
        self.daemon.remove(&id.0).await?;
        // Only now, when the container is gone, can its namespace be used again.
        let gone = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        if let Some((_, namespace, _)) = gone {
            self.namespaces.give_back(namespace).await;
        }
        Ok(())
    }

    /// Pauses a container, with several attempts: a busy one does not always freeze at the first.
    async fn pause_container(&self, id: &InstanceId) -> Result<(), EngineError> {
        let (began, mut tries) = (Instant::now(), 1);
        loop {
            match self.daemon.timed(self.daemon.docker().pause_container(&id.0)).await {
                Ok(()) => return Ok(()),
                // The daemon's state may lag behind a resume. If it does not change within `STATE_LAG`, it is true.
                Err(err) if message_contains(&err, "already paused") => {
                    if began.elapsed() > STATE_LAG {
                        return Ok(());
                    }
                    tokio::time::sleep(STATE_RETRY).await;
                }
                Err(ref err @ DockerError::DockerResponseServerError { status_code: 500, .. })
                    if tries < PAUSE_TRIES
                        || (message_contains(err, "unable to freeze") && began.elapsed() < FREEZE_LIMIT) =>
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
            // The daemon's state may lag behind a pause.
            if message_contains(&err, "not paused") && began.elapsed() < STATE_LAG {
                tokio::time::sleep(STATE_RETRY).await;
                continue;
            }
            // If an earlier call resumed the container but timed out, the daemon refuses to resume it again.
            let found = daemon.timed(docker.inspect_container(&id.0, None)).await;
            let state = found.ok().and_then(|container| container.state).unwrap_or_default();
            return match (state.running, state.paused) {
                (Some(true), Some(false)) => Ok(()),
                _ => Err(engine_error("resume a container", err)),
            };
        }
    }

    async fn sweep_owned(&self) -> Result<usize, EngineError> {
        let _setup = self.namespaces.forget().await;
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
                    // The daemon may still create containers and networks that a killed server requested.
                    self.daemon.suspect_strays();
                    self.namespaces.remove_late_networks();
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
                let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                running.get(id).and_then(|(container, ..)| container.last_line())
            };
            let mut end = ContainerEnd { agent_log, ..ContainerEnd::default() };
            // The daemon keeps the last events of all containers. This container's may arrive after the link has ended.
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
            processors.ok_or_else(|| EngineError::Unreachable("it does not report the number of its processors".into()))
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

/// The container of a sandbox. The agent is root with only the capabilities that it needs to act for the user.
fn container(spec: &Spec, owner: &str, namespace: &str, uid: &UserId) -> ContainerCreateBody {
    let limit = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    // As many files as pages: empty files take kernel memory too, and must fill the disk before they fill the memory.
    let sized = |bytes: u64| format!("size={bytes},nr_inodes={}", (bytes / 4096).max(1024));
    // `exec`: native modules of packages installed with `pip install --user` are loaded from the home directory.
    let disk = |owner: &str| format!("rw,exec,nosuid,nodev,{}{owner}", sized(spec.disk_bytes));
    // Replaces Docker's own `/dev/shm`, in which the number of files has no limit.
    let shared = format!("rw,noexec,nosuid,nodev,{},mode=1777", sized(spec.disk_bytes.min(spec.memory_bytes)));
    let run = "rw,noexec,nosuid,nodev,size=1m,mode=0755".to_owned();
    let mut in_memory = HashMap::from([("/run".to_owned(), run), ("/dev/shm".to_owned(), shared)]);
    if !spec.writable_root {
        in_memory.insert("/home/user".to_owned(), disk(&format!(",mode=0755,uid={},gid=1000", uid.get())));
        in_memory.extend(["/tmp", "/var/tmp"].map(|path| (path.to_owned(), disk(",mode=1777"))));
    }
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        cmd: Some(agent_arguments(spec, uid)),
        user: Some("0:0".to_owned()),
        labels: Some(labels(owner)),
        // `stdin_once`: when this server dies, its connection closes, and the agent reads the end of its stdin and
        // exits.
        open_stdin: Some(true),
        stdin_once: Some(true),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        // A terminal would change the bytes of the pipe.
        tty: Some(false),
        host_config: Some(HostConfig {
            auto_remove: Some(true),
            network_mode: Some(format!("container:{namespace}")),
            // With a log driver, Docker would copy every byte of the pipe to the host's disk.
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            readonly_rootfs: Some(!spec.writable_root),
            tmpfs: Some(in_memory),
            memory: Some(limit(spec.memory_bytes)),
            memory_swap: Some(limit(spec.memory_bytes)),
            // As a quota, because the daemon refuses a number of processors above the host's.
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

/// The agent's arguments: to restrict itself, the uid of user code, and whether user code may become root.
fn agent_arguments(spec: &Spec, uid: &UserId) -> Vec<String> {
    let mut arguments = vec!["restricted".to_owned(), format!("user={}", uid.get()), format!("users={}", uid.range())];
    arguments.extend(spec.superuser.then(|| "superuser".to_owned()));
    arguments
}

/// The agent's capabilities: to become the user, own and write the user's files, and kill the user's processes.
const AGENT_CAPABILITIES: [&str; 6] = ["SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL"];

fn ulimit(name: &str, value: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(value), hard: Some(value) }
}
