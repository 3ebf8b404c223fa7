//! Holds a network namespace for others, and sees to it that they reach what they may and nothing else.
//!
//! Two things are set up before anybody joins, and cannot be changed afterwards, because the right to do so is given up: a
//! filter on the interface, which is what holds, and routes, by which code hears at once that an address is out of reach
//! instead of waiting for an answer. Routes alone would not do: a socket bound to an interface needs none, and broadcasts
//! ask for none.

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

use crate::protocol::{Addresses, Egress, Held};

/// What those who join the namespace see too, and could write.
const SHARED_FILES: [&str; 3] = ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"];

/// The most that is read of such a file, bytes.
const MAX_SHARED: u64 = 1 << 20;

/// Keeps the namespace until `input` closes. Each byte of it asks whether those who have joined left nothing in it: the files that
/// are shared with them are as they were, and nothing was sent. The answer is a line, `true` or `false`. With `egress`, the JSON of
/// an [`Egress`], only what that says gets out of it.
///
/// # Errors
///
/// When `output` cannot be written, and when the namespace could not be set up, which is also said there.
pub async fn hold(
    egress: Option<&str>,
    mut input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let held: Held = match egress {
        Some(egress) => restrict(egress).await.map_err(|err| err.to_string()),
        None => Ok(()),
    };
    // From here on anybody may join.
    let before = Traces::read();
    print(&mut output, &held).await?;
    held.map_err(io::Error::other)?;
    while input.read(&mut [0; 1]).await? > 0 {
        let is_unused = before.as_ref().is_ok_and(|before| Traces::read().is_ok_and(|now| now == *before));
        print(&mut output, &is_unused).await?;
    }
    Ok(())
}

/// What those who join a namespace could leave in it.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    shared: [Option<Shared>; SHARED_FILES.len()],
    /// Packets that were sent, by interface. Without any there is no connection that lives on, nothing that comes in answer, and
    /// nothing that the kernel has learned of others.
    sent: Vec<(String, u64)>,
}

impl Traces {
    fn read() -> io::Result<Self> {
        let sent = sent(&std::fs::read_to_string("/proc/net/dev")?);
        Ok(Self { shared: SHARED_FILES.map(Shared::read), sent: sent.ok_or(io::ErrorKind::InvalidData)? })
    }
}

/// The packets that each interface has sent, as `/proc/net/dev` tells: after two lines of titles, the name, eight numbers of what
/// was received, and eight of what was sent, bytes first.
fn sent(net_dev: &str) -> Option<Vec<(String, u64)>> {
    let interface = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        Some((name.trim().to_owned(), numbers.split_whitespace().nth(9)?.parse().ok()?))
    };
    net_dev.lines().skip(2).map(interface).collect()
}

/// What could be left in a file for others: nothing of it tells when it was, as the daemon touches it for each who joins.
#[derive(Debug, PartialEq, Eq)]
struct Shared {
    content: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    attributes: usize,
}

impl Shared {
    /// `None`: it cannot be read, or is longer than it should ever be.
    fn read(path: &str) -> Option<Self> {
        let found = std::fs::metadata(path).ok().filter(|found| found.len() <= MAX_SHARED)?;
        let mut content = Vec::new();
        File::open(path).ok()?.take(MAX_SHARED).read_to_end(&mut content).ok()?;
        // Their names alone: a file system without them has none.
        let attributes = rustix::fs::listxattr(path, &mut [0_u8; 0]).unwrap_or_default();
        Some(Self { content, mode: found.mode(), owner: (found.uid(), found.gid()), attributes })
    }
}

/// Prints what this namespace's addresses and name servers are.
///
/// # Errors
///
/// When the kernel will not tell, or `output` cannot be written.
pub async fn addresses(mut output: impl AsyncWrite + Unpin) -> io::Result<()> {
    let handle = connect()?;
    let mut found = handle.address().get().execute();
    let mut addresses = Vec::new();
    while let Some(message) = found.try_next().await.map_err(io::Error::other)? {
        let own = |attribute: &AddressAttribute| match attribute {
            // Of a point-to-point interface `Address` is the other end's.
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        };
        addresses.extend(message.attributes.iter().find_map(own).filter(|address| !address.is_loopback()));
    }
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    print(&mut output, &Addresses { addresses, nameservers: nameservers(&resolv_conf) }).await
}

/// The name servers of a `resolv.conf`. A loopback one belongs to a namespace that is not ours.
fn nameservers(resolv_conf: &str) -> Vec<Ipv4Addr> {
    let address = |line: &str| line.trim().strip_prefix("nameserver")?.trim().parse().ok();
    resolv_conf.lines().filter_map(address).filter(|address: &Ipv4Addr| !address.is_loopback()).collect()
}

async fn restrict(egress: &str) -> Result<(), Failure> {
    let egress: Egress = serde_json::from_str(egress).map_err(Failure::of("understand what it was told"))?;
    let mut handle = connect().map_err(Failure::of("speak to the kernel"))?;
    let way_out = routes::way_out(&handle).await?;
    filter::install(&mut handle, way_out.interface, &egress).await?;
    routes::replace(&handle, &way_out, &egress).await?;
    drop(handle);
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, none).map_err(Failure::of("give up its rights"))
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

/// What the holder could not do, and why.
#[derive(Debug)]
struct Failure {
    action: &'static str,
    cause: String,
}

impl Failure {
    fn of<E: fmt::Display>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |cause| Self { action, cause: cause.to_string() }
    }

    /// The kernel's own word for it, without the library's around it.
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
    fn what_was_sent_is_told_by_interface() {
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
