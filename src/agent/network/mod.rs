//! Holds a network namespace for sandboxes, and enforces their network policy.
//!
//! A filter on the interface and routes are set up before a sandbox joins. The holder then drops the capabilities to
//! change them. The filter enforces the policy. The routes only make a connection to a blocked address fail at once,
//! instead of by a timeout. Routes alone would not suffice: a socket that is bound to an interface needs no route, and
//! neither do broadcasts.

mod filter;
mod routes;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;

use futures::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::address::AddressAttribute;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::protocol::{Addresses, Egress, Readiness};

/// Files that a sandbox in the namespace shares with the holder and could write.
const SHARED_FILES: [&str; 3] = ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"];

/// The most that is read from a shared file, bytes.
const MAX_SHARED_BYTES: u64 = 1 << 20;

/// Holds the namespace until `input` closes. First prints a [`Readiness`] line. Each byte of `input` then asks whether the
/// namespace is unused: the shared files are unchanged, and no packet was sent. The answer is a line, `true` or
/// `false`. `egress` is the JSON of an [`Egress`]; without it, the namespace is not restricted.
///
/// # Errors
///
/// When `output` cannot be written, or the namespace could not be set up. The [`Readiness`] line then contains the reason.
pub async fn hold(
    egress: Option<&str>,
    mut input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let readiness: Readiness = match egress {
        Some(egress) => restrict(egress).await.map_err(|err| err.to_string()),
        None => Ok(()),
    };
    // Read before the `Readiness` line, after which sandboxes may join.
    let before = Traces::read();
    print(&mut output, &readiness).await?;
    readiness.map_err(io::Error::other)?;
    while input.read(&mut [0; 1]).await? > 0 {
        let is_unused = before.as_ref().is_ok_and(|before| Traces::read().is_ok_and(|now| now == *before));
        print(&mut output, &is_unused).await?;
    }
    Ok(())
}

/// The traces that a sandbox could leave in a namespace.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    shared: [Option<SharedFile>; SHARED_FILES.len()],
    /// Sent packets by interface. If none was sent, no connection is open, no answer can arrive, and the kernel has
    /// learned nothing about other hosts.
    sent: Vec<(String, u64)>,
}

impl Traces {
    fn read() -> io::Result<Self> {
        let sent = sent(&std::fs::read_to_string("/proc/net/dev")?);
        Ok(Self { shared: SHARED_FILES.map(SharedFile::read), sent: sent.ok_or(io::ErrorKind::InvalidData)? })
    }
}

/// The number of packets that each interface has sent, from the text of `/proc/net/dev`. After two lines of titles,
/// each line has the interface's name, eight numbers of received traffic and eight of sent traffic. The first of each
/// eight are bytes, the second packets.
fn sent(net_dev: &str) -> Option<Vec<(String, u64)>> {
    let interface = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        Some((name.trim().to_owned(), numbers.split_whitespace().nth(9)?.parse().ok()?))
    };
    net_dev.lines().skip(2).map(interface).collect()
}

/// The parts of a shared file in which a sandbox could leave data. Times are not compared, because the engine touches
/// the file for every container that joins.
#[derive(Debug, PartialEq, Eq)]
struct SharedFile {
    content: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    attributes: usize,
}

impl SharedFile {
    /// Reads a shared file; `None` if it cannot be read or is longer than [`MAX_SHARED_BYTES`].
    fn read(path: &str) -> Option<Self> {
        let found = std::fs::metadata(path).ok().filter(|found| found.len() <= MAX_SHARED_BYTES)?;
        let mut content = Vec::new();
        File::open(path).ok()?.take(MAX_SHARED_BYTES).read_to_end(&mut content).ok()?;
        // The size of their names. A file system without attributes counts as one where the file has none.
        let attributes = rustix::fs::listxattr(path, &mut [0_u8; 0]).unwrap_or_default();
        Some(Self { content, mode: found.mode(), owner: (found.uid(), found.gid()), attributes })
    }
}

/// Prints the namespace's own addresses and name servers as [`Addresses`].
///
/// # Errors
///
/// When the kernel does not list the addresses, or `output` cannot be written.
pub async fn addresses(mut output: impl AsyncWrite + Unpin) -> io::Result<()> {
    let handle = connect()?;
    let mut found = handle.address().get().execute();
    let mut addresses = Vec::new();
    while let Some(message) = found.try_next().await.map_err(io::Error::other)? {
        let own = |attribute: &AddressAttribute| match attribute {
            // Not `Address`, which is the other end of a point-to-point interface.
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        };
        addresses.extend(message.attributes.iter().find_map(own).filter(|address| !address.is_loopback()));
    }
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    print(&mut output, &Addresses { addresses, nameservers: nameservers(&resolv_conf) }).await
}

/// The name servers of a `resolv.conf`. Loopback ones are left out, because they belong to another namespace.
fn nameservers(resolv_conf: &str) -> Vec<Ipv4Addr> {
    let address = |line: &str| line.trim().strip_prefix("nameserver")?.trim().parse().ok();
    resolv_conf.lines().filter_map(address).filter(|address: &Ipv4Addr| !address.is_loopback()).collect()
}

/// Sets up the filter and the routes, and drops all capabilities.
async fn restrict(egress: &str) -> Result<(), Failure> {
    let egress: Egress = serde_json::from_str(egress).map_err(Failure::of("parse the network policy"))?;
    let mut handle = connect().map_err(Failure::of("open a netlink socket"))?;
    let default = routes::default_route(&handle).await?;
    filter::install(&mut handle, default.interface, &egress).await?;
    routes::replace(&handle, &default, &egress).await?;
    drop(handle);
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, none).map_err(Failure::of("drop its capabilities"))
}

fn connect() -> io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

async fn print(output: &mut (impl AsyncWrite + Unpin), value: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    output.write_all(&line).await?;
    output.flush().await
}

/// The action in which the holder failed, and the cause.
#[derive(Debug)]
struct Failure {
    action: &'static str,
    cause: String,
}

impl Failure {
    fn of<E: fmt::Display>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |cause| Self { action, cause: cause.to_string() }
    }

    /// A failure of a netlink request. The cause is the kernel's error alone, without the library's text around it.
    fn netlink(action: &'static str) -> impl FnOnce(rtnetlink::Error) -> Self {
        move |err| {
            let cause = match err {
                rtnetlink::Error::NetlinkError(refused) => refused.to_io().to_string(),
                err => err.to_string(),
            };
            Self { action, cause }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it cannot {}: {}", self.action, self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sent_packets_are_counted_by_interface() {
        let text = "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop \
                    fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    lo:     0 0 0 0 \
                    0 0 0 0 0 0 0 0 0 0 0 0\n  eth0:1516 18 0 0 0 0 0 0 270 7 0 0 0 0 0 0\n";
        assert_eq!(sent(text), Some(vec![("lo".to_owned(), 0), ("eth0".to_owned(), 7)]));
        assert_eq!(sent("a\nb\n eth0: 1 2 3\n"), None);
    }

    #[test]
    fn name_servers_are_the_ipv4_ones_that_are_not_loopback() {
        let text = "# nameserver 1.1.1.1\nsearch lan\nnameserver 127.0.0.53\n nameserver\t10.0.0.1 \nnameserver fe80::1\n\
                    nameserver 8.8.8.8\noptions edns0\n";
        assert_eq!(nameservers(text), ["10.0.0.1", "8.8.8.8"].map(|text| text.parse::<Ipv4Addr>().unwrap()));
        assert_eq!(nameservers(""), [] as [Ipv4Addr; 0]);
    }
}
