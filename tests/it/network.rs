//! The real hosts that sandboxes reach: this machine, and hosts in a simulated network next to it.

use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::e2b;
use crate::lan::{Lan, METADATA, gateway, on_this_machine};
use crate::support::{Server, docker, eventually, stdout};

trials![
    a_full_network_is_the_internet_and_nothing_private,
    what_the_operator_allows_is_reached_and_its_neighbours_are_not,
    an_allowlist_is_reached_and_nothing_else,
    a_host_is_reached_by_its_name_and_what_the_name_does_not_mean_is_not,
    a_silent_name_server_delays_nobody_else,
    a_client_chooses_among_public_addresses,
    nobody_inside_can_change_what_is_reached,
    a_holder_that_may_not_restrict_says_so,
];

/// Connects to each `HOST:PORT` of `TARGETS`, in the ordinary way and past the routes, and prints those that it
/// reached.
const PROBE: &str = r#"
import concurrent.futures, os, socket

def connect(target, bound):
    host, port = target.rsplit(":", 1)
    with socket.socket() as probe:
        probe.settimeout(3)
        try:
            if bound:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
            probe.connect((host, int(port)))
            return probe.recv(10) == b"hello"
        except OSError:
            return False

targets = os.environ["TARGETS"].split()
with concurrent.futures.ThreadPoolExecutor(32) as pool:
    tries = [(target, bound) for target in targets for bound in [False, True]]
    reached = list(pool.map(lambda one: connect(*one), tries))
for (target, bound), yes in zip(tries, reached):
    if yes:
        print(target, "bound" if bound else "plain")
"#;

/// The network of the server for E2B's SDKs, which exists once a sandbox does.
fn e2b_network() -> String {
    format!("oncebox-{}", e2b::server().owner)
}

/// Starts a server and runs Python code once; returns the server and the name of its network.
pub(crate) async fn start(variables: &[(&str, &str)]) -> (Server, String) {
    let server = Server::start_cold(variables);
    server.run("python", "1").await;
    let network = format!("oncebox-{}", server.owner);
    (server, network)
}

/// The targets that a sandbox of the server reaches, as the probe prints them.
pub(crate) async fn reached(server: &Server, targets: &[String]) -> Vec<String> {
    let env = json!({"TARGETS": targets.join(" ")});
    let answer = server.run_with(json!({"language": "python", "code": PROBE, "env": env})).await;
    assert_eq!(answer["outcome"]["kind"], "ok", "{answer}");
    stdout(&answer).lines().map(str::to_owned).collect()
}

pub(crate) fn both_ways(targets: &[String]) -> Vec<String> {
    targets.iter().flat_map(|target| ["plain", "bound"].map(|way| format!("{target} {way}"))).collect()
}

/// The targets that an ordinary container on the same network reaches, with this OCI runtime.
pub(crate) fn reached_without_policy(oci_runtime: &str, network: &str, targets: &[String]) -> Vec<String> {
    let targets = format!("TARGETS={}", targets.join(" "));
    let run = ["run", "--rm", "--runtime", oci_runtime, "--network", network, "--env", &targets];
    let run = [&run[..], &["--entrypoint", "python3", "oncebox/python", "-c", PROBE]].concat();
    docker(&run).lines().map(str::to_owned).collect()
}

/// The targets that this machine's own kernel reaches from a container's network namespace.
pub(crate) fn reached_beside(container: &str, targets: &[String]) -> Vec<String> {
    let pid = docker(&["inspect", "-f", "{{.State.Pid}}", container]);
    let (pid, targets) = (pid.trim(), targets.join(" "));
    let said = on_this_machine(&format!("TARGETS='{targets}' nsenter -t {pid} -n python3 -c '{PROBE}'"));
    said.lines().map(str::to_owned).collect()
}

async fn a_full_network_is_the_internet_and_nothing_private() {
    let lan = Lan::new();
    let (server, network) = start(&[]).await;
    let targets = lan.everything(&network);
    let without = reached_without_policy("runc", &network, &targets);
    for plain in targets.iter().map(|target| format!("{target} plain")) {
        assert!(without.contains(&plain), "{plain} is not there at all: {without:?}");
    }
    // This machine accepts its addresses on every interface, so no route is needed to reach them there.
    let gateway = gateway(&network);
    assert!(without.contains(&format!("{} bound", lan.machine(&gateway))), "{without:?}");
    assert_eq!(reached(&server, &targets).await, both_ways(&[lan.public(2), lan.public(3)]));

    // Forbidden addresses fail at once, the loopback interface works, and there is no IPv6.
    let code = r#"
import errno, os, socket, time
began = time.monotonic()
for target in os.environ["TARGETS"].split():
    host, port = target.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=20)
    except OSError as err:
        print(errno.errorcode[err.errno])
print(time.monotonic() - began < 15)
with socket.create_server(("127.0.0.1", 0)) as own:
    socket.create_connection(own.getsockname(), timeout=5)
for host, scope in [("2606:4700::1111", 0), ("fe80::1", socket.if_nametoindex("eth0")), ("ff02::1", socket.if_nametoindex("eth0"))]:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b"hello", (host, 9, 0, scope))
        print("sent to", host)
    except OSError:
        pass
"#;
    let private = [lan.private(), lan.machine(METADATA), lan.machine(&gateway)];
    let env = json!({"TARGETS": private.join(" ")});
    let answer = server.run_with(json!({"language": "python", "code": code, "env": env})).await;
    assert_eq!(stdout(&answer), "EHOSTUNREACH\nEHOSTUNREACH\nEHOSTUNREACH\nTrue\n", "{answer}");

    // Broadcast datagrams: this machine receives those of an ordinary container, and none from a sandbox.
    let ears = UdpSocket::bind("0.0.0.0:0").expect("a port");
    ears.set_read_timeout(Some(Duration::from_secs(2))).expect("a time");
    let port = ears.local_addr().expect("an address").port();
    let shout = format!(
        r#"
import socket
for own in [True, False]:
    voice = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    voice.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    if own:
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        probe.connect(("8.8.8.8", 9))
        voice.bind((probe.getsockname()[0], 0))
    else:
        voice.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    try:
        voice.sendto(b"hello", ("255.255.255.255", {port}))
    except OSError:
        pass
"#
    );
    let answer = server.run("python", &shout).await;
    assert_eq!(answer["outcome"]["kind"], "ok", "{answer}");
    let mut heard = [0; 16];
    assert!(ears.recv(&mut heard).is_err(), "a sandbox was heard");
    docker(&["run", "--rm", "--network", &network, "--entrypoint", "python3", "oncebox/python", "-c", &shout]);
    assert_eq!(ears.recv(&mut heard).expect("a container is heard"), 5);
}

async fn what_the_operator_allows_is_reached_and_its_neighbours_are_not() {
    let lan = Lan::new();
    let n = lan.number;
    let public = [lan.public(2), lan.public(3)];
    // The whole LAN is allowed: that includes its host, but not this machine's addresses there, private or public,
    // unless they are listed themselves.
    let (server, network) =
        start(&[("ONCEBOX_ALLOW_PRIVATE", &format!(r#"["10.213.{n}.0/24", "11.213.{n}.0/24"]"#))]).await;
    let expected = [&[lan.private()], &public[..]].concat();
    assert_eq!(reached(&server, &lan.everything(&network)).await, both_ways(&expected));

    let own = [format!("10.213.{n}.1"), format!("11.213.{n}.1"), METADATA.to_owned()];
    let allowed = json!(own.clone().map(|address| format!("{address}/32"))).to_string();
    let (server, network) = start(&[("ONCEBOX_ALLOW_PRIVATE", &allowed)]).await;
    let found = reached(&server, &lan.everything(&network)).await;
    for expected in own.iter().map(|address| lan.machine(address)).chain(public) {
        assert!(found.contains(&format!("{expected} plain")), "{expected}: {found:?}");
    }
    assert!(!found.iter().any(|found| found.starts_with(&lan.private())), "{found:?}");
    let others = found.iter().filter(|found| found.contains(&format!(":{} ", lan.port)));
    assert!(others.clone().all(|found| own.iter().any(|own| found.starts_with(&lan.machine(own)))), "{found:?}");
}

async fn an_allowlist_is_reached_and_nothing_else() {
    let lan = Lan::new();
    let n = lan.number;
    let (server, network) = start(&[
        ("ONCEBOX_TEMPLATES__PYTHON__NETWORK", "allowlist"),
        ("ONCEBOX_TEMPLATES__PYTHON__ALLOW", &format!(r#"["11.213.{n}.2/32", "10.213.{n}.0/24"]"#)),
        ("ONCEBOX_ALLOW_PRIVATE", r#"["169.254.169.254/32"]"#),
    ])
    .await;
    let targets = lan.everything(&network);
    assert_eq!(reached(&server, &targets).await, both_ways(&[lan.private(), lan.public(2)]));

    let env = json!({"TARGETS": targets.join(" ")});
    let request = json!({"language": "python", "code": PROBE, "env": env, "network": "none"});
    let (status, answer) = server.post("/v1/run", &request).await;
    assert_eq!((status, stdout(&answer).as_str()), (200, ""), "{answer}");
    let (status, answer) = server.post("/v1/run", &json!({"language": "python", "code": "1", "network": "full"})).await;
    let message = "network: `full` is not allowed here, only `allowlist` or `none`";
    assert_eq!((status, &answer["error"]["message"]), (400, &json!(message)));
}

async fn a_host_is_reached_by_its_name_and_what_the_name_does_not_mean_is_not() {
    let lan = Lan::new();
    let n = lan.number;
    let hosts = format!("11.213.{n}.2 named.test\n10.213.{n}.2 private.test\n{METADATA} metadata.test\n");
    let names = r#"["named.test", "private.test", "metadata.test", "unknown.test"]"#;
    let server = Server::start_with(
        "/etc/hosts",
        &hosts,
        &[("ONCEBOX_TEMPLATES__PYTHON__NETWORK", "allowlist"), ("ONCEBOX_TEMPLATES__PYTHON__ALLOW", names)],
    );
    let named = ["named.test:8000", "private.test:8000", "unknown.test:8000"].map(str::to_owned);
    let mut targets = named.to_vec();
    targets.push(lan.machine("metadata.test"));
    let network = format!("oncebox-{}", server.owner);
    server.run("python", "1").await;
    targets.extend(lan.everything(&network));
    // A name that resolves to a private address opens nothing there: an attacker may control it.
    let expected = ["named.test:8000".to_owned(), lan.public(2)];
    assert_eq!(reached(&server, &targets).await, both_ways(&expected));

    // The policy that a client requests.
    let asked = json!({"denyOut": ["0.0.0.0/0"], "allowOut": ["Named.test", "private.test"]});
    let create = json!({"templateID": "base", "network": asked});
    let (status, created) = server.post("/sandboxes", &create).await;
    assert_eq!(status, 201, "{created}");
    let id = created["sandboxID"].as_str().expect("an id");
    let (_, detail) = server.get(&format!("/sandboxes/{id}")).await;
    assert_eq!(detail["network"]["allowOut"], json!(["Named.test", "private.test"]));
    let script = format!("export TARGETS='{}'\npython3 - <<'END'\n{PROBE}\nEND", targets.join(" "));
    let process = json!({"process": {"cmd": "/bin/bash", "args": ["-c", script]}});
    let start = server.http.post(format!("{}/process.Process/Start", server.url));
    let start = start.header("E2b-Sandbox-Id", id).header("E2b-Sandbox-Port", e2b::ENVD);
    let start = start.header("content-type", "application/connect+json");
    let response = start.body(e2b::envelope(0, process.to_string().as_bytes())).send().await.expect("an answer");
    let messages = e2b::Stream::new(response).rest().await.expect("it ends well");
    assert_eq!(e2b::stdout(&messages).lines().collect::<Vec<_>>(), both_ways(&expected));
}

async fn a_silent_name_server_delays_nobody_else() {
    let silent = UdpSocket::bind("127.213.0.53:53").expect("an address of this machine's own");
    let server = Server::start_with("/etc/resolv.conf", "nameserver 127.213.0.53\noptions timeout:30\n", &[]);
    // More sandboxes than can launch at once.
    let creating: Vec<_> = (0..8)
        .map(|client| {
            let names: Vec<_> = (0..4).map(|name| format!("name-{client}-{name}.test")).collect();
            let network = json!({"denyOut": ["0.0.0.0/0"], "allowOut": names});
            let create = json!({"templateID": "base", "network": network});
            let post =
                server.http.post(format!("{}/sandboxes", server.url)).header("x-api-key", e2b::KEY).json(&create);
            tokio::spawn(async move { post.send().await.expect("an answer").status().as_u16() })
        })
        .collect();
    eventually("it was asked", async || silent.recv(&mut [0; 512]).is_ok()).await;
    let served = async || assert_eq!(stdout(&server.run("js", "console.log('served')").await), "served\n");
    served().await;
    assert!(creating.iter().all(|creation| !creation.is_finished()), "they were waited for");
    served().await;
    for creation in creating {
        assert_eq!(creation.await.expect("an answer"), 201, "what is not found is not reached");
    }
}

async fn a_client_chooses_among_public_addresses() {
    let lan = Lan::new();
    e2b::Sandbox::shared().await;
    let targets = lan.everything_before(&e2b_network());
    let probe = |targets: &[String]| format!("export TARGETS='{}'\npython3 - <<'END'\n{PROBE}\nEND", targets.join(" "));
    let network = |last: usize| format!("11.213.{}.{last}", lan.number);
    for (asked, expected) in [
        (json!({"denyOut": [network(2)]}), vec![lan.public(3)]),
        (json!({"denyOut": ["0.0.0.0/0"], "allowOut": [network(2), "10.0.0.0/8"]}), vec![lan.public(2)]),
        (json!({"denyOut": ["11.0.0.0/8", network(3)], "allowOut": [network(3)]}), vec![lan.public(3)]),
        (json!({"denyOut": ["0.0.0.0/0"]}), vec![]),
    ] {
        let sandbox = e2b::Sandbox::create(json!({"templateID": "base", "network": asked})).await;
        let said = sandbox.shell(&probe(&targets)).await;
        assert_eq!(said.lines().collect::<Vec<_>>(), both_ways(&expected), "{asked}");
        // The policy stays the same until the sandbox's end.
        assert_eq!(sandbox.api(Method::PUT, "/network", Some(asked.clone())).await.status, 204);
        let other = json!({"allowOut": ["1.1.1.1"], "denyOut": ["0.0.0.0/0"]});
        sandbox.api(Method::PUT, "/network", Some(other)).await.error(400);
        sandbox.kill().await;
    }
    let no_internet =
        json!({"templateID": "base", "allow_internet_access": false, "network": {"allowOut": [network(2)]}});
    let sandbox = e2b::Sandbox::create(no_internet).await;
    assert_eq!(sandbox.shell(&probe(&targets)).await.lines().collect::<Vec<_>>(), both_ways(&[lan.public(2)]));
    let detail = sandbox.api(Method::GET, "", None).await.json();
    assert_eq!((&detail["allowInternetAccess"], &detail["network"]["allowOut"]), (&json!(false), &json!([network(2)])));
    sandbox.kill().await;
    // The next sandbox, with no policy of its own, has nothing of the earlier policies.
    let sandbox = e2b::Sandbox::create(json!({"templateID": "base"})).await;
    let said = sandbox.shell(&probe(&targets)).await;
    assert_eq!(said.lines().collect::<Vec<_>>(), both_ways(&[lan.public(2), lan.public(3)]));
    sandbox.kill().await;
}

async fn nobody_inside_can_change_what_is_reached() {
    let lan = Lan::new();
    let sandbox = e2b::Sandbox::create(json!({"templateID": "base"})).await;
    let attack = r#"
import ctypes, os, socket, struct
print(os.getuid())
def refused(what, attempt):
    try:
        attempt()
        print(what, "was possible")
    except OSError:
        pass
def ask(kind, body):
    # Acknowledged, so that the kernel says whether it did it.
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.sendto(struct.pack("=IHHII", 16 + len(body), kind, 1 | 4, 1, 0) + body, (0, 0))
        error = struct.unpack_from("=i", netlink.recv(4096), 16)[0]
        if error:
            raise OSError(-error, os.strerror(-error))
interface = socket.if_nametoindex("eth0")
# RTM_DELROUTE of 10.0.0.0/8, RTM_DELQDISC of the filter's hook, RTM_DELTFILTER of all filters.
route = struct.pack("=BBBBBBBBI", 2, 8, 0, 0, 254, 0, 0, 7, 0) + struct.pack("=HH4B", 8, 1, 10, 0, 0, 0)
refused("removing a route", lambda: ask(25, route))
hook = struct.pack("=BBHiIII", 0, 0, 0, interface, 0xffff0000, 0xfffffff1, 0)
refused("removing the hook", lambda: ask(37, hook))
refused("removing the filter", lambda: ask(45, struct.pack("=BBHiIII", 0, 0, 0, interface, 0, 0xfffffff3, 0)))
refused("a packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
refused("a raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
refused("writing a sysctl", lambda: open("/proc/sys/net/ipv4/ip_forward", "w").write("1"))
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
print(libc.unshare(CLONE_NEWUSER), libc.unshare(CLONE_NEWNET))
"#;
    let probe = format!(
        "export TARGETS='{}'\npython3 - <<'END'\n{PROBE}\nEND",
        lan.everything_before(&e2b_network()).join(" ")
    );
    let own = sandbox.shell("id -u").await;
    for (who, uid) in [("", own.as_str()), ("sudo -n ", "0\n")] {
        let said = sandbox.shell(&format!("{who}python3 - <<'END'\n{attack}\nEND")).await;
        assert_eq!(said, format!("{uid}-1 -1\n"));
        let said = sandbox.shell(&format!("{who}bash -c \"$(cat <<'ALL'\n{probe}\nALL\n)\"")).await;
        assert_eq!(said.lines().collect::<Vec<_>>(), both_ways(&[lan.public(2), lan.public(3)]));
    }
    sandbox.kill().await;
}

async fn a_holder_that_may_not_restrict_says_so() {
    let egress = json!({"nameservers": [], "rules": [], "allow_unmatched": false}).to_string();
    let hold = |rights: &[&str]| {
        let name = format!("test-{}-holder-{}", std::process::id(), rights.len());
        let mut command = Command::new("docker");
        command.args(["run", "--interactive", "--rm", "--name", &name, "--cap-drop", "ALL"]).args(rights);
        command.args(["--entrypoint", "/oncebox-agent", "oncebox/agent", "hold", &egress]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("docker");
        // Closing its input ends the process in any case.
        drop(child.stdin.take());
        let output = child.wait_with_output().expect("its end");
        (output.status.success(), String::from_utf8(output.stdout).expect("text"))
    };
    let (well, said) = hold(&[]);
    let reason =
        "it cannot hook into the interface (kernel module `sch_ingress`): Operation not permitted (os error 1)";
    assert_eq!((well, said), (false, json!({"Err": reason}).to_string() + "\n"));
    assert_eq!(hold(&["--cap-add", "NET_ADMIN"]), (true, "{\"Ok\":null}\n".to_owned()));

    // A server that cannot restrict its sandboxes starts none.
    let long = json!((0..2000).map(|number| format!("10.{}.{}.0/24", number / 256, number % 256)).collect::<Vec<_>>());
    let server = Server::start_cold(&[("ONCEBOX_ALLOW_PRIVATE", &long.to_string())]);
    let (status, answer) = server.post("/v1/run", &json!({"language": "python", "code": "1"})).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("no_sandbox")), "{answer}");
    eventually("nothing is left of it", async || server.containers().is_empty()).await;
}
