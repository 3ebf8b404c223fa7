//! The input and output of a process that holds a network namespace.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The network policy of a namespace: the one argument of `hold`, as JSON. The first rule that contains an address
/// decides. IPv6 is always blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Egress {
    /// Name servers, which are reachable at port 53 regardless of the rules.
    pub nameservers: Vec<Ipv4Addr>,
    /// The rules, in the order of their evaluation.
    pub rules: Vec<Rule>,
    /// Whether an address that no rule contains is reachable.
    pub allow_unmatched: bool,
}

/// The policy for the addresses of one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rule {
    /// The addresses.
    #[cfg_attr(test, schemars(with = "String"))]
    pub network: Ipv4Net,
    /// Whether they are reachable.
    pub reached: bool,
}

/// The line that `hold` prints: `Ok` when the namespace is ready for a sandbox, or the reason why it never will be.
pub type Readiness = Result<(), String>;

/// The output of `addresses`: the addresses of the network namespace in which it was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Addresses {
    /// The addresses of all interfaces except loopback.
    pub addresses: Vec<Ipv4Addr>,
    /// The name servers in `/etc/resolv.conf`, without loopback ones.
    pub nameservers: Vec<Ipv4Addr>,
}
