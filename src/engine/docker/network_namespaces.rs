//! Network namespaces that outlive the sandboxes in them.
//!
//! To start a container with its own network, the daemon runs a large program, which takes half the time of a launch.
//! Here a tiny helper container holds a network namespace instead, and one sandbox at a time joins it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bollard::errors::Error as DockerError;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptionsBuilder;
use futures::future::join_all;
use ipnet::Ipv4Net;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::daemon::{Daemon, OWNER_LABEL, Wanted, engine_error, is_missing_image, labels};
use crate::engine::egress::Surroundings;
use crate::engine::{EngineError, Network, Pipe};
use crate::protocol::{Addresses, Egress, Readiness};

/// The image of helper containers: it contains only the agent.
pub(super) const HELPER_IMAGE: &str = "oncebox/agent";

/// How long the addresses and name servers of the host are cached.
const HOST_MAX_AGE: Duration = Duration::from_secs(60);

/// The number of searches for networks that the daemon creates late, and the time between them.
const LATE_SEARCHES: u32 = 10;
const LATE_INTERVAL: Duration = Duration::from_secs(1);

/// The time after which a helper container or a name server that has not answered counts as failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The most addresses that are used of one host name.
const MAX_ADDRESSES: usize = 16;

/// The longest answer of a helper container, bytes: enough for a host with very many addresses.
const MAX_LINE: u64 = 1 << 20;

/// The options of our network. Containers on it do not reach each other, and the daemon does not announce their
/// addresses. By default, since Docker 28, it sends three ARP messages from inside the namespace, and a namespace that
/// has sent something is not used again. Older versions ignore the second option.
const BRIDGE_OPTIONS: [(&str, &str); 2] =
    [("com.docker.network.bridge.enable_icc", "false"), ("com.docker.network.advertise_addr_nmsgs", "0")];

/// The address of a name server that never answers: it is in a network that RFC 5737 reserves for documentation.
const NO_NAMESERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Options of the C library's resolver for an answer that never comes: one attempt of 1 s, instead of two of 5 s.
/// Docker 20.10 takes as long as the resolver waits.
const QUICK_RESOLVER: [&str; 2] = ["timeout:1", "attempts:1"];

/// The free namespaces of one owner.
#[derive(Debug)]
pub(super) struct NetworkNamespaces {
    daemon: Arc<Daemon>,
    owner: String,
    allow_private: Vec<Ipv4Net>,
    free: Mutex<Free>,
    /// Locked while the network is looked up or created, because the daemon allows two networks with one name, and
    /// while the host is queried.
    setup: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Free {
    namespaces: HashMap<Network, Vec<NetworkNamespace>>,
    /// The result of the last query of the host.
    surroundings: Option<Surroundings>,
    /// The time of that query; `None` before the first.
    queried: Option<Instant>,
}

impl Free {
    /// Whether the last query of the host is recent enough.
    fn is_recent(&self) -> bool {
        self.queried.is_some_and(|queried| queried.elapsed() < HOST_MAX_AGE)
    }

    /// Whether a namespace's filter is the one that a new namespace would get now.
    fn is_current(&self, namespace: &NetworkNamespace) -> bool {
        namespace.network == Network::None
            || self.surroundings.as_ref().is_some_and(|found| found.egress(&namespace.network) == namespace.egress)
    }
}

/// A network namespace for one sandbox at a time.
pub(super) struct NetworkNamespace {
    container: Wanted,
    /// Whether a sandbox has used it before.
    pub(super) reused: bool,
    network: Network,
    /// The rules of its filter; `None` if there is no filter, because nothing can be reached.
    egress: Option<Egress>,
    /// Cancelled when its container has ended.
    ended: CancellationToken,
    /// The helper's standard input, for questions. The helper ends when it closes, as it does when this server dies.
    input: Box<dyn AsyncWrite + Send + Unpin>,
    /// The lines of the helper's standard output.
    answers: mpsc::Receiver<String>,
    /// The task that receives the answers and waits for the container's end.
    _watch: AbortOnDropHandle<()>,
}

impl fmt::Debug for NetworkNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl NetworkNamespace {
    /// The name of its helper container.
    pub(super) fn name(&self) -> &str {
        self.container.name()
    }

    /// Whether the last sandbox left nothing behind: the files that it shares with the next one are unchanged, and it
    /// sent nothing whose answer could reach the next one.
    async fn is_clean(&mut self) -> bool {
        let question = async {
            self.input.write_all(b"?").await.ok()?;
            self.input.flush().await.ok()?;
            self.answers.recv().await
        };
        tokio::time::timeout(ANSWER_TIMEOUT, question).await.is_ok_and(|answer| answer.as_deref() == Some("true"))
    }

    /// Resolves when its helper container has ended.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        self.ended.clone().cancelled_owned()
    }
}

impl NetworkNamespaces {
    pub(super) fn new(daemon: Arc<Daemon>, owner: &str, allow_private: Vec<Ipv4Net>) -> Self {
        Self { daemon, owner: owner.to_owned(), allow_private, free: Mutex::default(), setup: Arc::default() }
    }

    /// Takes a free namespace, or starts a new one.
    pub(super) async fn take(self: &Arc<Self>, network: &Network) -> Result<NetworkNamespace, EngineError> {
        let (free, is_recent) = {
            let mut free = self.lock();
            let namespaces = free.namespaces.get_mut(network);
            let alive = namespaces.and_then(|namespaces| {
                namespaces.retain(|namespace| !namespace.ended.is_cancelled());
                namespaces.pop()
            });
            (alive, free.is_recent())
        };
        match free {
            Some(namespace) => {
                if !is_recent && *network != Network::None {
                    self.refresh_in_background(network.clone());
                }
                Ok(namespace)
            }
            None => self.start(network).await,
        }
    }

    /// Makes a namespace free again if its sandbox left nothing in it. The sandbox must be gone.
    pub(super) async fn give_back(&self, mut namespace: NetworkNamespace) {
        let is_usable = !namespace.network.is_choice() && !namespace.ended.is_cancelled();
        if is_usable && namespace.is_clean().await {
            let mut free = self.lock();
            if free.is_current(&namespace) {
                let namespace = NetworkNamespace { reused: true, ..namespace };
                free.namespaces.entry(namespace.network.clone()).or_default().push(namespace);
                return;
            }
        }
        self.discard(namespace).await;
    }

    /// Removes a namespace that cannot be used any longer.
    pub(super) async fn discard(&self, namespace: NetworkNamespace) {
        if let Err(err) = self.daemon.remove(namespace.name()).await {
            tracing::warn!(
                error = &err as &dyn std::error::Error,
                "cannot remove the network namespace {} yet",
                namespace.name()
            );
        }
    }

    /// Drops all free namespaces, which ends them. No namespace is set up while the returned guard is held.
    pub(super) async fn forget(&self) -> OwnedMutexGuard<()> {
        let setup = Arc::clone(&self.setup).lock_owned().await;
        self.lock().namespaces.clear();
        setup
    }

    /// Removes the owner's networks.
    ///
    /// # Errors
    ///
    /// [`EngineError::InUse`] while the daemon counts a container on a network: a namespace of ours, or another user's
    /// container. Docker 20.10.24 was seen to count wrong after a server was killed under load: it listed nothing on
    /// the network, and refused to remove it until the daemon was restarted.
    pub(super) async fn remove_networks(&self) -> Result<(), EngineError> {
        let mut removed = Ok(());
        for id in self.networks().await?.keys() {
            match self.daemon.timed(self.daemon.docker().remove_network(id)).await {
                Ok(()) | Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => {}
                Err(DockerError::DockerResponseServerError { status_code: 403, message }) => {
                    removed = Err(EngineError::InUse(message.trim_end().to_owned()));
                }
                Err(err) => return Err(engine_error("remove a network", err)),
            }
        }
        removed
    }

    /// Removes networks that the daemon creates late, because an earlier server of this owner requested one just before
    /// it was killed. Stops when this server needs a network itself.
    pub(super) fn remove_late_networks(self: &Arc<Self>) {
        let namespaces = Arc::clone(self);
        tokio::spawn(async move {
            for _ in 0..LATE_SEARCHES {
                tokio::time::sleep(LATE_INTERVAL).await;
                let _setup = namespaces.setup.lock().await;
                if namespaces.lock().queried.is_some() {
                    return;
                }
                if let Err(err) = namespaces.remove_networks().await {
                    tracing::debug!(error = &err as &dyn std::error::Error, "cannot remove late networks");
                }
            }
        });
    }

    async fn start(&self, network: &Network) -> Result<NetworkNamespace, EngineError> {
        let (mode, surroundings) = match network {
            Network::None => ("none".to_owned(), None),
            Network::Full(_) | Network::Allowlist(_) => {
                let (bridge, surroundings) = self.surroundings(network).await?;
                (bridge, Some(surroundings))
            }
        };
        let egress = surroundings.as_ref().and_then(|surroundings| surroundings.egress(network));
        let argument = egress.as_ref().map(|egress| serde_json::to_string(egress).expect("plain data"));
        let mut body = helper(&self.owner, mode, "hold", argument.as_deref());
        if argument.is_some() {
            allow_filter(&mut body);
        }
        if egress.as_ref().is_some_and(|egress| egress.nameservers.is_empty()) {
            prevent_resolution(&mut body);
        }
        if let (Some(surroundings), Some(host_config)) = (&surroundings, &mut body.host_config) {
            // The sandbox has the same `/etc/hosts`. So a name leads to the addresses that the filter allows, and no
            // name server needs to be reached.
            let hosts = surroundings.addresses(network).map(|(name, address)| format!("{name}:{address}"));
            host_config.extra_hosts = Some(hosts.collect());
        }
        let (container, mut pipe) = self.start_helper(body).await?;
        let held = match line(&mut pipe).await {
            Ok(line) => serde_json::from_str::<Readiness>(&line)
                .unwrap_or_else(|_| Err(format!("unexpected answer `{}`", line.trim()))),
            Err(reason) => Err(reason),
        };
        let ended = CancellationToken::new();
        let (output, input) = tokio::io::split(pipe.into_io());
        let (sender, answers) = mpsc::channel(1);
        let watch = AbortOnDropHandle::new(tokio::spawn(receive_answers(output, sender, ended.clone())));
        let namespace = NetworkNamespace {
            container,
            reused: false,
            network: network.clone(),
            egress,
            ended,
            input: Box::new(input),
            answers,
            _watch: watch,
        };
        match held {
            Ok(()) => Ok(namespace),
            Err(reason) => {
                self.discard(namespace).await;
                Err(EngineError::Network(reason))
            }
        }
    }

    /// Starts a helper container.
    async fn start_helper(&self, body: ContainerCreateBody) -> Result<(Wanted, Pipe), EngineError> {
        self.daemon.start(body, std::future::pending()).await.map_err(|err| match is_missing_image(&err) {
            true => EngineError::NoImage(HELPER_IMAGE.to_owned()),
            false => engine_error("start a network namespace", err),
        })
    }

    /// The id of the bridge network, and the facts for the rules of this network and of the free namespaces' networks.
    /// Queries the host and name servers again if the last result is old.
    async fn surroundings(&self, network: &Network) -> Result<(String, Surroundings), EngineError> {
        // Before the lock: a name server that does not answer then delays only sandboxes that name its hosts.
        let mut hosts = self.hosts(network).await;
        let _setup = self.setup.lock().await;
        let (id, bridge) = self.ensure_network().await?;
        let known = {
            let free = self.lock();
            let known = free.surroundings.clone().zip(free.queried).filter(|_| free.is_recent());
            // Addresses that another call has found meanwhile.
            for (name, addresses) in known.iter().flat_map(|(found, _)| &found.hosts) {
                if free.namespaces.keys().any(|network| network.hosts().any(|wanted| wanted == name)) {
                    hosts.entry(name.clone()).or_insert_with(|| addresses.clone());
                }
            }
            known
        };
        let (host, queried) = match known {
            Some((found, queried)) => (found.host, queried),
            None => (self.query_host().await?, Instant::now()),
        };
        let surroundings = Surroundings { host, bridge, allow_private: self.allow_private.clone(), hosts };
        let mut free = self.lock();
        free.queried = Some(queried);
        free.surroundings = Some(surroundings.clone());
        // A free namespace must not be used again if the host has a new address that its filter does not block.
        let mut namespaces = std::mem::take(&mut free.namespaces);
        for free_ones in namespaces.values_mut() {
            free_ones.retain(|namespace| free.is_current(namespace) && !namespace.ended.is_cancelled());
        }
        free.namespaces = namespaces;
        Ok((id, surroundings))
    }

    /// The addresses of the hosts that this network and the networks of free namespaces name.
    async fn hosts(&self, network: &Network) -> BTreeMap<String, Vec<Ipv4Addr>> {
        let (mut hosts, names) = {
            let free = self.lock();
            let known = free.surroundings.as_ref().filter(|_| free.is_recent()).map(|found| found.hosts.clone());
            let networks = free.namespaces.keys().chain([network]);
            let names: BTreeSet<_> = networks.flat_map(Network::hosts).map(str::to_owned).collect();
            (known.unwrap_or_default(), names)
        };
        hosts.retain(|name, _| names.contains(name));
        let unknown = names.into_iter().filter(|name| !hosts.contains_key(name));
        let found = join_all(unknown.map(async |name| (resolve(&name).await, name)).collect::<Vec<_>>()).await;
        hosts.extend(found.into_iter().map(|(addresses, name)| (name, addresses)));
        hosts
    }

    /// Queries the host again, without delay for the caller, who has a namespace already.
    fn refresh_in_background(self: &Arc<Self>, network: Network) {
        let namespaces = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(err) = namespaces.surroundings(&network).await {
                tracing::warn!(error = &err as &dyn std::error::Error, "cannot query the host's addresses");
            }
        });
    }

    /// The addresses of the host, and the name servers that the daemon gives to containers.
    ///
    /// These differ from the host's own `resolv.conf` if its resolver is on the loopback interface: the daemon then
    /// uses other name servers, or asks that resolver itself, from the host.
    async fn query_host(&self) -> Result<Addresses, EngineError> {
        let (host, bridged) = tokio::join!(self.query("host"), self.query("bridge"));
        let host = host?;
        // A daemon can be configured without a default bridge.
        let nameservers = bridged.map_or(host.nameservers, |bridged| bridged.nameservers);
        Ok(Addresses { nameservers, ..host })
    }

    /// Runs a helper container on this Docker network, and returns the addresses and name servers that it sees.
    async fn query(&self, network_mode: &str) -> Result<Addresses, EngineError> {
        let mut body = helper(&self.owner, network_mode.to_owned(), "addresses", None);
        if let (Some(host_config), "host") = (&mut body.host_config, network_mode) {
            // If the daemon maps users, only containers without the mapping may use the host's network.
            host_config.userns_mode = Some("host".to_owned());
        }
        let (container, mut pipe) = self.start_helper(body).await?;
        let answer = line(&mut pipe).await;
        drop(pipe);
        // In the background: the answer does not depend on the removal.
        let daemon = Arc::clone(&self.daemon);
        tokio::spawn(async move { daemon.remove(container.name()).await });
        let failed = |reason: String| EngineError::Network(format!("cannot read the host's addresses: {reason}"));
        let answer = answer.map_err(failed)?;
        serde_json::from_str(&answer).map_err(|_| failed(format!("unexpected answer `{}`", answer.trim())))
    }

    /// Finds or creates our bridge network, on which containers do not reach each other. Returns its id and its subnet.
    async fn ensure_network(&self) -> Result<(String, Ipv4Net), EngineError> {
        let mut found = self.networks().await?;
        if found.is_empty() {
            let created = self.daemon.timed(self.daemon.docker().create_network(self.bridge())).await;
            created.map_err(|err| engine_error("create a network", err))?;
            found = self.networks().await?;
        }
        // A call that timed out may have created one more. The lowest id is always the same one.
        let Some((id, subnet)) = found.pop_first() else {
            return Err(EngineError::Network("the network that was created is not listed".to_owned()));
        };
        let subnet = subnet.ok_or_else(|| EngineError::Network(format!("the network {id} has no IPv4 subnet")))?;
        Ok((id, subnet))
    }

    /// The owner's networks by id, with the IPv4 subnet of each.
    async fn networks(&self) -> Result<BTreeMap<String, Option<Ipv4Net>>, EngineError> {
        let filters = HashMap::from([("label", vec![format!("{OWNER_LABEL}={}", self.owner)])]);
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let listed = self.daemon.timed(self.daemon.docker().list_networks(Some(options))).await;
        let listed = listed.map_err(|err| engine_error("list networks", err))?;
        let network = |network: bollard::models::Network| {
            let subnets = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
            let subnet = subnets.iter().find_map(|subnet| subnet.subnet.as_ref()?.parse::<Ipv4Net>().ok());
            (network.id.unwrap_or_default(), subnet)
        };
        Ok(listed.into_iter().map(network).collect())
    }

    fn bridge(&self) -> NetworkCreateRequest {
        NetworkCreateRequest {
            name: format!("oncebox-{}", self.owner),
            driver: Some("bridge".to_owned()),
            // Explicitly, because the daemon's default may differ.
            enable_ipv6: Some(false),
            options: Some(BRIDGE_OPTIONS.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
            labels: Some(labels(&self.owner)),
            ..NetworkCreateRequest::default()
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The present IPv4 addresses of a host name; empty if it cannot be resolved.
async fn resolve(name: &str) -> Vec<Ipv4Addr> {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, tokio::net::lookup_host((name, 0))).await;
    let found = answer.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let mut addresses: Vec<_> = match found {
        Ok(found) => found.filter_map(|address| match address.ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }),
        Err(err) => {
            tracing::warn!(
                error = &err as &dyn std::error::Error,
                "cannot resolve `{name}`, so no sandbox can reach it"
            );
            return Vec::new();
        }
    }
    .collect();
    addresses.sort();
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

/// Passes on the lines of a helper's output. Cancels `ended` at the end of the output, which is the helper's end.
async fn receive_answers(output: impl AsyncRead + Unpin, sender: mpsc::Sender<String>, ended: CancellationToken) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let _ = sender.send(line).await;
    }
    ended.cancel();
}

/// The first line that a helper prints.
async fn line(pipe: &mut Pipe) -> Result<String, String> {
    let mut line = String::new();
    let mut output = BufReader::new((&mut pipe.0).take(MAX_LINE));
    match tokio::time::timeout(ANSWER_TIMEOUT, output.read_line(&mut line)).await {
        Ok(Ok(0)) => Err("the helper container ended without an answer".to_owned()),
        Ok(Ok(_)) => Ok(line),
        Ok(Err(err)) => Err(err.to_string()),
        Err(_) => {
            Err(format!("the helper container does not answer; was the image {HELPER_IMAGE} built by this version?"))
        }
    }
}

/// The body of a helper container, which runs one command of the agent.
fn helper(owner: &str, network_mode: String, command: &str, argument: Option<&str>) -> ContainerCreateBody {
    let command = ["/oncebox-agent", command].into_iter().chain(argument);
    ContainerCreateBody {
        image: Some(HELPER_IMAGE.to_owned()),
        entrypoint: Some(command.map(str::to_owned).collect()),
        // The host's network namespace has a host name already.
        hostname: Some("sandbox".to_owned()).filter(|_| network_mode != "host"),
        user: Some("65534:65534".to_owned()),
        labels: Some(labels(owner)),
        open_stdin: Some(true),
        stdin_once: Some(true),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        host_config: Some(HostConfig {
            auto_remove: Some(true),
            network_mode: Some(network_mode),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            readonly_rootfs: Some(true),
            memory: Some(32 << 20),
            pids_limit: Some(16),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges=true".to_owned()]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// Gives a helper the capability to set up the filter of its own network namespace. The helper drops it before a
/// sandbox joins. It runs as root, because only root gets capabilities.
fn allow_filter(body: &mut ContainerCreateBody) {
    body.user = Some("0:0".to_owned());
    if let Some(host_config) = &mut body.host_config {
        host_config.cap_add = Some(vec!["NET_ADMIN".to_owned()]);
    }
}

/// Prevents all name resolution. On a network like ours, containers ask Docker's embedded resolver, which forwards
/// questions from the host's network namespace, past the filter: always since Docker 28, and in older versions if the
/// host's name server is on its loopback interface. But every version asks a name server that is set for the container
/// from the container's own namespace, where the filter drops the question.
fn prevent_resolution(body: &mut ContainerCreateBody) {
    if let Some(host_config) = &mut body.host_config {
        host_config.dns = Some(vec![NO_NAMESERVER.to_string()]);
        host_config.dns_options = Some(QUICK_RESOLVER.map(str::to_owned).to_vec());
    }
}
