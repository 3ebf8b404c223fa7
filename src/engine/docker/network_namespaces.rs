//! Network namespaces that outlive the sandboxes in them.
//!
//! For each container with a network of its own, the daemon runs a large program at the start: half the time of a
//! launch. Here a tiny container holds a network namespace. One sandbox at a time joins it.

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
use crate::protocol::{Addresses, Egress, Held};

/// The image that carries nothing but the agent, which holds the namespace.
pub(super) const HOLDER_IMAGE: &str = "oncebox/agent";

/// How long the addresses and name servers of the host are remembered.
const HOST_IS_KNOWN: Duration = Duration::from_secs(60);

/// How often networks that the daemon creates late are looked for, and how long apart.
const LATE_LOOKS: u32 = 10;
const LATE_LOOK: Duration = Duration::from_secs(1);

/// A container that does not answer for this long never will.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The most addresses of one host.
const MAX_ADDRESSES: usize = 16;

/// The longest answer, bytes: the addresses of a host with very many of them.
const MAX_LINE: u64 = 1 << 20;

/// The options of our network. Containers on it do not reach each other. The daemon does not announce a container's
/// address: since Docker 28 it sends three ARP messages from inside the namespace, and a namespace in which something
/// was sent is not used again. Older versions ignore that option.
const BRIDGE_OPTIONS: [(&str, &str); 2] =
    [("com.docker.network.bridge.enable_icc", "false"), ("com.docker.network.advertise_addr_nmsgs", "0")];

/// A name server that never answers, of a network that RFC 5737 keeps for documentation.
const NO_NAMESERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// How long the C library waits for an answer that never comes: 1 s, once. By default it is 5 s, twice; Docker 20.10
/// takes as long as it is given.
const QUICK_RESOLVER: [&str; 2] = ["timeout:1", "attempts:1"];

/// The free namespaces of one owner.
#[derive(Debug)]
pub(super) struct NetworkNamespaces {
    daemon: Arc<Daemon>,
    owner: String,
    allow_private: Vec<Ipv4Net>,
    free: Mutex<Free>,
    /// One at a time looks for the network and creates it, for the daemon allows two of one name, and asks the host.
    looking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Free {
    namespaces: HashMap<Network, Vec<NetworkNamespace>>,
    /// What was found out last.
    surroundings: Option<Surroundings>,
    /// When the host was asked last.
    asked: Option<Instant>,
}

impl Free {
    fn is_known(&self) -> bool {
        self.asked.is_some_and(|asked| asked.elapsed() < HOST_IS_KNOWN)
    }

    /// Whether a namespace lets through what one that was started now would.
    fn is_current(&self, namespace: &NetworkNamespace) -> bool {
        namespace.network == Network::None
            || self.surroundings.as_ref().is_some_and(|found| found.egress(&namespace.network) == namespace.egress)
    }
}

/// A network namespace for one sandbox at a time.
pub(super) struct NetworkNamespace {
    container: Wanted,
    /// Whether a sandbox has lived in it before.
    pub(super) reused: bool,
    network: Network,
    /// What its filter lets through; `None` if there is no filter, because there is nothing to reach.
    egress: Option<Egress>,
    /// Cancelled when its container has ended.
    ended: CancellationToken,
    /// Its standard input, for questions. It ends when that closes, as it does when this server dies.
    input: Box<dyn AsyncWrite + Send + Unpin>,
    /// The lines of its standard output.
    answers: mpsc::Receiver<String>,
    /// Receives the answers, and waits for the container's end.
    _watch: AbortOnDropHandle<()>,
}

impl fmt::Debug for NetworkNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl NetworkNamespace {
    /// Its container's name.
    pub(super) fn name(&self) -> &str {
        self.container.name()
    }

    /// Whether the last sandbox left nothing behind: the files that both share are unchanged, and it sent nothing whose
    /// answer could reach the next sandbox.
    async fn is_unused(&mut self) -> bool {
        let asked = async {
            self.input.write_all(b"?").await.ok()?;
            self.input.flush().await.ok()?;
            self.answers.recv().await
        };
        tokio::time::timeout(ANSWER_TIMEOUT, asked).await.is_ok_and(|answer| answer.as_deref() == Some("true"))
    }

    /// Resolves when it has ended.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        self.ended.clone().cancelled_owned()
    }
}

impl NetworkNamespaces {
    pub(super) fn new(daemon: Arc<Daemon>, owner: &str, allow_private: Vec<Ipv4Net>) -> Self {
        Self { daemon, owner: owner.to_owned(), allow_private, free: Mutex::default(), looking: Arc::default() }
    }

    /// A free namespace, or a new one.
    pub(super) async fn take(self: &Arc<Self>, network: &Network) -> Result<NetworkNamespace, EngineError> {
        let (free, is_known) = {
            let mut free = self.lock();
            let namespaces = free.namespaces.get_mut(network);
            let alive = namespaces.and_then(|namespaces| {
                namespaces.retain(|namespace| !namespace.ended.is_cancelled());
                namespaces.pop()
            });
            (alive, free.is_known())
        };
        match free {
            Some(namespace) => {
                if !is_known && *network != Network::None {
                    self.look_again(network.clone());
                }
                Ok(namespace)
            }
            None => self.start(network).await,
        }
    }

    /// Makes a namespace free again, if its sandbox, which must be gone, has left nothing in it.
    pub(super) async fn give_back(&self, mut namespace: NetworkNamespace) {
        let is_usable = !namespace.network.is_choice() && !namespace.ended.is_cancelled();
        if is_usable && namespace.is_unused().await {
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
                "cannot remove the namespace {} yet",
                namespace.name()
            );
        }
    }

    /// Drops all free namespaces, which ends them. The host is not asked while the answer is held.
    pub(super) async fn forget(&self) -> OwnedMutexGuard<()> {
        let looking = Arc::clone(&self.looking).lock_owned().await;
        self.lock().namespaces.clear();
        looking
    }

    /// Removes the network that full namespaces are on.
    ///
    /// # Errors
    ///
    /// [`EngineError::InUse`] while the daemon counts another namespace on it, or somebody's own container. Docker
    /// 20.10.24 has been seen to lose count while a server was killed under load: it lists nothing on the network, and
    /// refuses to remove it until it is restarted.
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

    /// Looks for networks that come late, as a server of this owner may have asked for one just before it was killed,
    /// and removes them, until this one has a network itself.
    pub(super) fn look_for_late_networks(self: &Arc<Self>) {
        let namespaces = Arc::clone(self);
        tokio::spawn(async move {
            for _ in 0..LATE_LOOKS {
                tokio::time::sleep(LATE_LOOK).await;
                let _looking = namespaces.looking.lock().await;
                if namespaces.lock().asked.is_some() {
                    return;
                }
                if let Err(err) = namespaces.remove_networks().await {
                    tracing::debug!(error = &err as &dyn std::error::Error, "cannot look for late networks");
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
            restricting(&mut body);
        }
        if egress.as_ref().is_some_and(|egress| egress.nameservers.is_empty()) {
            resolving_nothing(&mut body);
        }
        if let (Some(surroundings), Some(host_config)) = (&surroundings, &mut body.host_config) {
            // In its `/etc/hosts`, which is its sandbox's too: what is reached by a name is what the name was found to
            // mean, and no name server needs to be within reach.
            let hosts = surroundings.addresses(network).map(|(name, address)| format!("{name}:{address}"));
            host_config.extra_hosts = Some(hosts.collect());
        }
        let (container, mut pipe) = self.start_helper(body).await?;
        let held = match line(&mut pipe).await {
            Ok(line) => {
                serde_json::from_str::<Held>(&line).unwrap_or_else(|_| Err(format!("it says `{}`", line.trim())))
            }
            Err(silence) => Err(silence),
        };
        let ended = CancellationToken::new();
        let (output, input) = tokio::io::split(pipe.into_io());
        let (said, answers) = mpsc::channel(1);
        let watch = AbortOnDropHandle::new(tokio::spawn(until_end(output, said, ended.clone())));
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

    /// Starts a container that carries nothing but the agent.
    async fn start_helper(&self, body: ContainerCreateBody) -> Result<(Wanted, Pipe), EngineError> {
        self.daemon.start(body, std::future::pending()).await.map_err(|err| match is_missing_image(&err) {
            true => EngineError::NoImage(HOLDER_IMAGE.to_owned()),
            false => engine_error("start a namespace", err),
        })
    }

    /// The bridge that namespaces are on, and what they are set up by, those of this network too. The host is asked
    /// again when its last answer is old, and so are name servers.
    async fn surroundings(&self, network: &Network) -> Result<(String, Surroundings), EngineError> {
        // Before it is anybody's turn: name servers that say nothing delay those alone who name what they are asked
        // for.
        let mut hosts = self.hosts(network).await;
        let _looking = self.looking.lock().await;
        let (id, bridge) = self.ensure_network().await?;
        let known = {
            let free = self.lock();
            let known = free.surroundings.clone().zip(free.asked).filter(|_| free.is_known());
            // What others have found meanwhile.
            for (name, addresses) in known.iter().flat_map(|(found, _)| &found.hosts) {
                if free.namespaces.keys().any(|network| network.hosts().any(|wanted| wanted == name)) {
                    hosts.entry(name.clone()).or_insert_with(|| addresses.clone());
                }
            }
            known
        };
        let (host, asked) = match known {
            Some((found, asked)) => (found.host, asked),
            None => (self.ask_host().await?, Instant::now()),
        };
        let surroundings = Surroundings { host, bridge, allow_private: self.allow_private.clone(), hosts };
        let mut free = self.lock();
        free.asked = Some(asked);
        free.surroundings = Some(surroundings.clone());
        // Nobody is to join what the host is in reach of by an address that it has got since.
        let mut namespaces = std::mem::take(&mut free.namespaces);
        for free_ones in namespaces.values_mut() {
            free_ones.retain(|namespace| free.is_current(namespace) && !namespace.ended.is_cancelled());
        }
        free.namespaces = namespaces;
        Ok((id, surroundings))
    }

    /// The addresses of the hosts that this network names, and those that free namespaces' networks name.
    async fn hosts(&self, network: &Network) -> BTreeMap<String, Vec<Ipv4Addr>> {
        let (mut hosts, names) = {
            let free = self.lock();
            let known = free.surroundings.as_ref().filter(|_| free.is_known()).map(|found| found.hosts.clone());
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

    /// Sees behind the back of whoever has taken a namespace whether the host has changed.
    fn look_again(self: &Arc<Self>, network: Network) {
        let namespaces = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(err) = namespaces.surroundings(&network).await {
                tracing::warn!(error = &err as &dyn std::error::Error, "cannot ask for the host's addresses");
            }
        });
    }

    /// The addresses that the host has, and the name servers that the daemon gives to containers.
    ///
    /// Those are not the ones of the host's own file where a resolver runs on its loopback interface: the daemon then
    /// knows better ones, or asks that one itself, from the host.
    async fn ask_host(&self) -> Result<Addresses, EngineError> {
        let (host, bridged) = tokio::join!(self.ask("host"), self.ask("bridge"));
        let host = host?;
        // A daemon can be told to have no bridge but those that are asked for.
        let nameservers = bridged.map_or(host.nameservers, |bridged| bridged.nameservers);
        Ok(Addresses { nameservers, ..host })
    }

    async fn ask(&self, network_mode: &str) -> Result<Addresses, EngineError> {
        let mut body = helper(&self.owner, network_mode.to_owned(), "addresses", None);
        if let (Some(host_config), "host") = (&mut body.host_config, network_mode) {
            // Where the daemon maps users, this network is for containers whose users are not mapped.
            host_config.userns_mode = Some("host".to_owned());
        }
        let (container, mut pipe) = self.start_helper(body).await?;
        let answer = line(&mut pipe).await;
        drop(pipe);
        // The answer is there, whatever becomes of who gave it.
        let daemon = Arc::clone(&self.daemon);
        tokio::spawn(async move { daemon.remove(container.name()).await });
        let failed = |reason: String| EngineError::Network(format!("the host does not tell its addresses: {reason}"));
        let answer = answer.map_err(failed)?;
        serde_json::from_str(&answer).map_err(|_| failed(format!("it says `{}`", answer.trim())))
    }

    /// A bridge of our own, on which containers do not reach each other. Its id and its addresses.
    async fn ensure_network(&self) -> Result<(String, Ipv4Net), EngineError> {
        let mut found = self.networks().await?;
        if found.is_empty() {
            let created = self.daemon.timed(self.daemon.docker().create_network(self.bridge())).await;
            created.map_err(|err| engine_error("create a network", err))?;
            found = self.networks().await?;
        }
        // A daemon that did not answer may have made one more. By their ids, one is meant always.
        let Some((id, subnet)) = found.pop_first() else {
            return Err(EngineError::Network("the network that was created is not there".to_owned()));
        };
        let subnet = subnet.ok_or_else(|| EngineError::Network(format!("the network {id} has no IPv4 addresses")))?;
        Ok((id, subnet))
    }

    /// The owner's networks by id, and the IPv4 addresses of each.
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
            // Whatever the daemon's default is.
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

/// The addresses that a name has now; none where it has none, or nobody tells.
async fn resolve(name: &str) -> Vec<Ipv4Addr> {
    let asked = tokio::time::timeout(ANSWER_TIMEOUT, tokio::net::lookup_host((name, 0))).await;
    let found = asked.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let mut addresses: Vec<_> = match found {
        Ok(found) => found.filter_map(|address| match address.ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }),
        Err(err) => {
            tracing::warn!(
                error = &err as &dyn std::error::Error,
                "cannot find `{name}`, so that no sandbox reaches it"
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

/// Passes on what a namespace says, and waits for the end of that, which is its own.
async fn until_end(output: impl AsyncRead + Unpin, said: mpsc::Sender<String>, ended: CancellationToken) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let _ = said.send(line).await;
    }
    ended.cancel();
}

/// The first line that a helper prints.
async fn line(pipe: &mut Pipe) -> Result<String, String> {
    let mut line = String::new();
    let mut output = BufReader::new((&mut pipe.0).take(MAX_LINE));
    match tokio::time::timeout(ANSWER_TIMEOUT, output.read_line(&mut line)).await {
        Ok(Ok(0)) => Err("it ended without a word".to_owned()),
        Ok(Ok(_)) => Ok(line),
        Ok(Err(err)) => Err(err.to_string()),
        Err(_) => Err(format!("it says nothing; is the image {HOLDER_IMAGE} of this version?")),
    }
}

/// A container of the agent's own image, which does one of the agent's smaller works.
fn helper(owner: &str, network_mode: String, work: &str, argument: Option<&str>) -> ContainerCreateBody {
    let command = ["/oncebox-agent", work].into_iter().chain(argument);
    ContainerCreateBody {
        image: Some(HOLDER_IMAGE.to_owned()),
        entrypoint: Some(command.map(str::to_owned).collect()),
        // Not in the host's namespace, which has a name.
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

/// The right to set up its own network namespace, which it gives up before anybody else is in there. Only root is given
/// any.
fn restricting(body: &mut ContainerCreateBody) {
    body.user = Some("0:0".to_owned());
    if let Some(host_config) = &mut body.host_config {
        host_config.cap_add = Some(vec!["NET_ADMIN".to_owned()]);
    }
}

/// Lets no name be resolved. On a network like ours, containers ask Docker's embedded resolver, which forwards
/// questions from the host's network namespace, past the filter: always since Docker 28, and in older versions if the
/// host's name server is on its loopback interface. A name server that is set for the container is asked from the
/// container's namespace by every version, where the filter drops the question.
fn resolving_nothing(body: &mut ContainerCreateBody) {
    if let Some(host_config) = &mut body.host_config {
        host_config.dns = Some(vec![NO_NAMESERVER.to_string()]);
        host_config.dns_options = Some(QUICK_RESOLVER.map(str::to_owned).to_vec());
    }
}
