//! What a holder of a network namespace is told, and what it tells.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Where a namespace lets packets go: the one argument of `hold`, as JSON. The first rule that an address is in decides.
/// There is no IPv6.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// Reached at port 53, whatever the rules say.
    pub nameservers: Vec<Ipv4Addr>,
    /// In the order in which they are asked.
    pub rules: Vec<Rule>,
    /// Whether an address that is in no rule is reached.
    pub otherwise: bool,
}

/// What holds for the addresses of one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The addresses.
    pub network: Ipv4Net,
    /// Whether they are reached.
    pub reached: bool,
}

/// What `hold` prints, on one line, when it is ready for a sandbox, or why it never will be.
pub type Held = Result<(), String>;

/// What `addresses` prints about the network namespace that it is started in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Of all interfaces but the loopback one.
    pub addresses: Vec<Ipv4Addr>,
    /// Those of `/etc/resolv.conf`, without loopback ones.
    pub nameservers: Vec<Ipv4Addr>,
}
