//! The sandboxes in which attempts are made: ordinary ones, and ones that are weakened on purpose, in which attempts
//! must succeed. Only the weakened ones show that an attempt can succeed at all.

use std::net::UdpSocket;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lan::{Lan, METADATA, gateway, on_this_machine, until_greeted};
use crate::proxy::{EngineProxy, Fate, engine_socket};
use crate::support::{Server, docker};

/// The image of the helper containers that hold networks. No code runs in it, so it is not weakened.
const HOLDER_IMAGE: &str = "oncebox/agent";

/// Settings that make `base` like a template of single runs, for bash, which no such template has.
const NO_MACHINE: [(&str, &str); 2] =
    [("ONCEBOX_TEMPLATES__BASE__WRITABLE_ROOT", "false"), ("ONCEBOX_TEMPLATES__BASE__SUPERUSER", "false")];

/// Starts the agent of weakened sandboxes with an open file, an open socket and a copy of its output. The agent does
/// not know of these, so all its children inherit them.
const LEAKING: &str = "exec /opt/oncebox/agent 7< /etc/hostname 8<> /dev/udp/127.0.0.1/9 9>&1";

/// All capabilities, as far as the daemon has them too.
const CAPABILITIES: [&str; 38] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
];

/// The servers, each started when it is first needed.
#[derive(Default)]
pub(crate) struct Servers {
    guarded: OnceLock<Server>,
    closed: OnceLock<Server>,
    weak: OnceLock<Weakened>,
    open: OnceLock<Weakened>,
    world: OnceLock<World>,
}

static SERVERS: Mutex<Option<Arc<Servers>>> = Mutex::new(None);

/// The servers of these tests.
pub(crate) fn servers() -> Arc<Servers> {
    Arc::clone(SERVERS.lock().expect("the servers").get_or_insert_default())
}

/// Stops the servers. False if one did not end well.
pub(crate) fn stop() -> bool {
    let Some(servers) = SERVERS.lock().expect("the servers").take() else { return true };
    let mut servers = Arc::into_inner(servers).expect("nobody tries anything any more");
    // The world's container is removed first: a network with a foreign container in it could not be removed.
    drop(servers.world.take());
    let weak = [&servers.weak, &servers.open].map(|weakened| weakened.get().map(|weakened| &weakened.server));
    let all = weak.into_iter().flatten().chain(servers.guarded.get()).chain(servers.closed.get());
    all.map(Server::stop).fold(true, |all, one| all & one)
}

/// A server with weakened sandboxes.
struct Weakened {
    server: Server,
    _proxy: EngineProxy,
    _directory: TempDir,
}

impl Servers {
    /// A server with ordinary sandboxes.
    pub(crate) fn guarded(&self) -> &Server {
        self.guarded.get_or_init(|| {
            // A warm sandbox, so that its network exists and the world can have a container in it.
            let warm = [("ONCEBOX_TEMPLATES__PYTHON__WARM", "1")];
            Server::start_cold(&[&warm[..], &NO_MACHINE].concat())
        })
    }

    /// A server whose ordinary sandboxes have no network.
    pub(crate) fn closed(&self) -> &Server {
        self.closed.get_or_init(|| {
            let none = ["PYTHON", "NODE", "TS", "R", "JSHELL", "BASE"]
                .map(|file| format!("ONCEBOX_TEMPLATES__{file}__NETWORK"));
            let none: Vec<_> = none.iter().map(|name| (name.as_str(), "none")).collect();
            Server::start_cold(&[&none[..], &NO_MACHINE].concat())
        })
    }

    /// A server whose code is root with every capability and the engine's socket, but still in a network of its own.
    pub(crate) fn weak(&self) -> &Server {
        &self.weak.get_or_init(|| Weakened::start(None)).server
    }

    /// A server whose weakened sandboxes are in this machine's network.
    pub(crate) fn open(&self) -> &Server {
        &self.open.get_or_init(|| Weakened::start(Some("host"))).server
    }

    /// The hosts and services that code may try to reach.
    pub(crate) fn world(&self) -> &World {
        self.world.get_or_init(|| World::new(self.guarded()))
    }
}

impl Weakened {
    fn start(network: Option<&'static str>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let passwd = directory.path().join("passwd");
        // The agent runs code as the account `user`, which here is root.
        std::fs::write(&passwd, "root:x:0:0:root:/root:/bin/bash\nuser:x:0:0::/home/user:/bin/bash\n").expect("a file");
        let proxy = EngineProxy::start(|_, _| Fate::Pass, move |create| weaken(create, &passwd, network));
        let server = Server::start_cold(&[("DOCKER_HOST", &proxy.address())]);
        Self { server, _proxy: proxy, _directory: directory }
    }
}

/// Removes a container's protections. It keeps its own process namespace, because the agent ends all processes that it
/// sees.
fn weaken(create: &mut Value, passwd: &std::path::Path, network: Option<&str>) {
    if create["Image"] == HOLDER_IMAGE {
        return;
    }
    create["Entrypoint"] = json!(["bash", "-c", LEAKING]);
    create["Cmd"] = Value::Null;
    let host = &mut create["HostConfig"];
    host["CapDrop"] = Value::Null;
    host["CapAdd"] = json!(capabilities());
    host["SecurityOpt"] = json!(["seccomp=unconfined", "apparmor=unconfined", "label=disable"]);
    host["MaskedPaths"] = json!([]);
    host["ReadonlyPaths"] = json!([]);
    host["DeviceCgroupRules"] = json!(["a *:* rwm"]);
    host["ReadonlyRootfs"] = json!(false);
    host["Tmpfs"] = json!({"/run": "rw,exec,mode=0755"});
    host["Ulimits"] = Value::Null;
    host["IpcMode"] = json!("host");
    host["UTSMode"] = json!("host");
    host["ShmSize"] = Value::Null;
    host["Binds"] = json!([
        format!("{}:/etc/passwd:ro", passwd.display()),
        format!("{}:/var/run/docker.sock", engine_socket().display())
    ]);
    if let Some(network) = network {
        host["NetworkMode"] = json!(network);
    }
}

/// The capabilities that containers on this machine can be given.
fn capabilities() -> Vec<&'static str> {
    let status = std::fs::read_to_string("/proc/self/status").expect("what this process may");
    let bound = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("its bound");
    let bound = u64::from_str_radix(bound.trim(), 16).expect("a set");
    CAPABILITIES.iter().enumerate().filter(|(at, _)| bound >> at & 1 == 1).map(|(_, name)| *name).collect()
}

/// Targets on and near this machine: hosts on the LAN, the machine itself, another container, an abstract socket,
/// shared memory.
pub(crate) struct World {
    _lan: Lan,
    neighbour: String,
    facts: Vec<(&'static str, String)>,
    shared_memory: PathBuf,
    _abstract: UnixListener,
}

impl World {
    fn new(server: &Server) -> Self {
        let lan = Lan::new();
        let network = format!("oncebox-{}", server.owner);
        let neighbour = format!("test-{}-neighbour", std::process::id());
        let greeter = crate::lan::GREETER;
        let run = ["run", "--detach", "--rm", "--network", &network, "--name", &neighbour, "--entrypoint", "python3"];
        docker(&[&run[..], &["oncebox/python", "-c", greeter]].concat());
        let beside = docker(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", &neighbour]);
        let abstract_name = format!("oncebox-abuse-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).expect("a name");
        let listener = UnixListener::bind_addr(&address).expect("an abstract socket");
        let shared_memory = PathBuf::from(format!("/dev/shm/{abstract_name}"));
        std::fs::write(&shared_memory, "secret").expect("shared memory");
        let bridge = gateway(&network);
        let [lan_172, lan_192, lan_100] = lan.beside().map(|address| format!("{address}:8000"));
        let own = ["pid", "mnt", "ipc", "uts", "net"].map(namespace);
        let names = ["NS_PID", "NS_MNT", "NS_IPC", "NS_UTS", "NS_NET"];
        let mut facts = vec![
            ("LAN_10", lan.private()),
            ("LAN_172", lan_172),
            ("LAN_192", lan_192),
            ("LAN_100", lan_100),
            ("METADATA", lan.machine(METADATA)),
            ("GATEWAY", lan.machine(&bridge)),
            ("DOCKER0", lan.machine(&own_bridge())),
            ("HOST", lan.machine(&own_address())),
            ("LOOPBACK", lan.machine("127.0.0.1")),
            ("SERVER", server.url.trim_start_matches("http://").to_owned()),
            ("NEIGHBOUR", format!("{}:8000", beside.trim())),
            ("ECHO_PORT", echo().to_string()),
            ("BRIDGE", bridge),
            ("ABSTRACT", abstract_name),
            ("SHARED", shared_memory.display().to_string()),
        ];
        facts.extend(names.into_iter().zip(own));
        // With an empty address some languages connect to their own machine, so that the attempt would be held inside
        // and succeed outside.
        for (name, value) in &facts {
            assert!(!value.is_empty() && !value.starts_with(':'), "{name} is `{value}`: nothing can be tried with it");
        }
        let greeters = facts.iter().filter(|(name, value)| *name != "SERVER" && is_address(value));
        greeters.for_each(|(_, target)| until_greeted(target));
        Self { _lan: lan, neighbour, facts, shared_memory, _abstract: listener }
    }

    /// The addresses and names, as variables for an attempt.
    pub(crate) fn variables(&self) -> Value {
        self.facts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.shared_memory);
        docker(&["rm", "-f", &self.neighbour]);
    }
}

/// This machine's address on the engine's own bridge. It is read from the interface, because the engine only reports it
/// after a restart.
fn own_bridge() -> String {
    let name = "{{index .Options \"com.docker.network.bridge.name\"}}";
    let name = docker(&["network", "inspect", "-f", name, "bridge"]);
    let shown = on_this_machine(&format!("ip -4 -oneline addr show dev '{}'", name.trim()));
    let network = shown.split_whitespace().skip_while(|word| *word != "inet").nth(1);
    let address = network.and_then(|network| network.split('/').next());
    address.unwrap_or_else(|| panic!("the bridge {} has no address: {shown}", name.trim())).to_owned()
}

/// Whether a value is `HOST:PORT`.
fn is_address(value: &str) -> bool {
    value.parse::<std::net::SocketAddr>().is_ok()
}

/// The namespace of a kind in which this process, and so the machine, is.
fn namespace(kind: &str) -> String {
    let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace");
    link.to_str().expect("text").to_owned()
}

/// This machine's address on its default route.
fn own_address() -> String {
    let way_out = UdpSocket::bind("0.0.0.0:0").expect("a port");
    way_out.connect("8.8.8.8:9").expect("a way out");
    way_out.local_addr().expect("an address").ip().to_string()
}

/// Echoes every datagram, also multicast and broadcast ones; returns the port.
fn echo() -> u16 {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
    socket
        .join_multicast_v4(&"239.213.0.1".parse().expect("an address"), &"0.0.0.0".parse().expect("an address"))
        .expect("a group");
    let port = socket.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        let mut datagram = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(&datagram[..length], from);
        }
    });
    port
}
