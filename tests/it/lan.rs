//! Real hosts that sandboxes must not reach: this machine, and a simulated network next to it.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::docker;

/// The address of the metadata service of clouds.
pub(crate) const METADATA: &str = "169.254.169.254";

/// Sends a greeting on every connection.
pub(crate) const GREETER: &str = r#"
import socket
listener = socket.create_server(("0.0.0.0", 8000))
while True:
    listener.accept()[0].sendall(b"hello")
"#;

/// A network next to this machine, with one host that has an address in every private range and two public ones. On
/// that network, this machine has a private and a public address too, and the address of the metadata service.
/// Everything ends with the one container.
pub(crate) struct Lan {
    container: String,
    /// The number in `10.213.NUMBER.2`.
    pub(crate) number: usize,
    /// The port of this machine's greeter, on all its addresses.
    pub(crate) port: u16,
}

impl Lan {
    pub(crate) fn new() -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        // Tests of another process may have their networks at the same time.
        let number = (std::process::id() as usize * 8 + STARTED.fetch_add(1, Ordering::Relaxed)) % 256;
        let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            use std::io::Write;
            for mut stream in listener.incoming().flatten() {
                let _ = stream.write_all(b"hello");
            }
        });
        let container = format!("test-{}-lan-{number}", std::process::id());
        let lan = Self { container, number, port };
        let run = ["run", "--detach", "--rm", "--network", "none", "--name", &lan.container, "--entrypoint", "python3"];
        docker(&[&run[..], &["oncebox/python", "-c", GREETER]].concat());
        let pid = docker(&["inspect", "-f", "{{.State.Pid}}", &lan.container]);
        let (pid, device) = (pid.trim(), format!("lan{number}p{}", std::process::id()));
        let beside = lan.beside().map(|address| format!("{address}/32")).join(" ");
        on_this_machine(&format!(
            "set -e
            ip link add {device} type veth peer name eth0 netns {pid}
            ip addr add 10.213.{number}.1/24 dev {device}
            ip addr add 11.213.{number}.1/32 dev {device}
            ip addr add 169.254.169.254/32 dev {device}
            ip link set {device} up
            for to in 11.213.{number}.0/24 {beside}; do
                ip route add $to via 10.213.{number}.2 onlink dev {device}
            done
            nsenter -t {pid} -n sh -c '
                ip addr add 10.213.{number}.2/24 dev eth0
                ip addr add 11.213.{number}.2/32 dev eth0
                for own in 11.213.{number}.3/32 {beside}; do ip addr add $own dev eth0; done
                ip link set eth0 up
                ip route add default via 10.213.{number}.1'",
        ));
        until_greeted(&lan.private());
        lan
    }

    /// The host's private address.
    pub(crate) fn private(&self) -> String {
        format!("10.213.{}.2:8000", self.number)
    }

    /// The host's addresses in the other private ranges, and in the one that providers share with their customers.
    pub(crate) fn beside(&self) -> [String; 3] {
        ["172.31", "192.168", "100.64"].map(|range| format!("{range}.{}.213", self.number))
    }

    /// One of the host's public addresses: 2 or 3.
    pub(crate) fn public(&self, last: usize) -> String {
        format!("11.213.{}.{last}:8000", self.number)
    }

    /// This machine's greeter at one of its addresses.
    pub(crate) fn machine(&self, address: &str) -> String {
        format!("{address}:{}", self.port)
    }

    /// All targets: the host, and this machine by addresses of each kind, including the one on the bridge.
    pub(crate) fn everything(&self, network: &str) -> Vec<String> {
        let way_out = UdpSocket::bind("0.0.0.0:0").expect("a port");
        way_out.connect("8.8.8.8:9").expect("a way out");
        let own = way_out.local_addr().expect("an address").ip().to_string();
        let [private, public] = [10, 11].map(|first| format!("{first}.213.{}.1", self.number));
        let machine = [gateway(network), own, private, public, METADATA.to_owned()];
        let machine = machine.iter().map(|address| self.machine(address));
        let all: Vec<_> = [self.private(), self.public(2), self.public(3)].into_iter().chain(machine).collect();
        // An attempt on a target that does not exist would fail anyway, and show nothing.
        all.iter().for_each(|target| until_greeted(target));
        all
    }

    /// The targets for a server that was started earlier: without the public address that this machine has only now.
    pub(crate) fn everything_before(&self, network: &str) -> Vec<String> {
        let new = self.machine(&format!("11.213.{}.1", self.number));
        self.everything(network).into_iter().filter(|target| *target != new).collect()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "-f", &self.container]).stdout(Stdio::null()).status();
    }
}

/// Waits until `HOST:PORT` greets this machine. Panics if it does not.
pub(crate) fn until_greeted(target: &str) {
    let address = target.parse().unwrap_or_else(|err| panic!("{target}: {err}"));
    let greeting = || {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        stream.read(&mut [0; 9])
    };
    let greets = || greeting().is_ok_and(|read| read > 0);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !greets() {
        assert!(Instant::now() < deadline, "{target} does not greet this machine, and so nothing is tested with it");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// This machine's address on a network of the engine.
pub(crate) fn gateway(network: &str) -> String {
    let gateway = docker(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", network]);
    let address: Ipv4Addr = gateway.trim().parse().unwrap_or_else(|err| panic!("{network} has no gateway: {err}"));
    address.to_string()
}

/// The output of a script that is run as root, outside of any container.
pub(crate) fn on_this_machine(script: &str) -> String {
    let is_root = rustix::process::geteuid().is_root();
    let command: &[&str] = if is_root { &["sh", "-c", script] } else { &["sudo", "-n", "sh", "-c", script] };
    let output = Command::new(command[0]).args(&command[1..]).output().expect("a shell");
    assert!(output.status.success(), "these tests make a network: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
