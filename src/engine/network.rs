//! Network policies: the addresses that a container can reach.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// The addresses that a container can reach. There is no IPv6.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Network {
    /// Public addresses, narrowed by the client's choice, and DNS; private addresses only if the operator allows them.
    Full(Choice),
    /// Only these networks, private ones too, and the public addresses of these hosts.
    Allowlist(Vec<Target>),
    /// Nothing.
    None,
}

/// A client's choice among the addresses of a full network. `allow` has precedence over `deny`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Choice {
    /// Reached in spite of `deny`, as far as public.
    pub allow: Vec<Target>,
    /// Not reached.
    pub deny: Vec<Ipv4Net>,
}

/// A network or a host that can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// The addresses of a network.
    Network(Ipv4Net),
    /// The public addresses of the host with this name, in lower case.
    Host(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Host(name) => name.fmt(f),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Choice {
    /// Whether everything is denied except `allow`. Name servers are then denied too.
    pub fn denies_all(&self) -> bool {
        self.deny.contains(&Ipv4Net::default())
    }
}

impl Network {
    /// The internet, as the operator allows it.
    pub fn full() -> Self {
        Self::Full(Choice::default())
    }

    /// The names of hosts in the policy.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        let targets = match self {
            Self::Full(choice) => choice.allow.as_slice(),
            Self::Allowlist(targets) => targets,
            Self::None => &[],
        };
        targets.iter().filter_map(|target| match target {
            Target::Host(name) => Some(name.as_str()),
            Target::Network(_) => None,
        })
    }

    /// Whether it holds a client's own choice, so that another sandbox is unlikely to have the same network.
    pub fn is_choice(&self) -> bool {
        matches!(self, Self::Full(choice) if *choice != Choice::default())
    }
}

/// Why a text names nothing that can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseTargetError {
    /// It is an address or a network of IPv6.
    #[error("`{0}` is IPv6, which sandboxes do not have")]
    Ipv6(String),
    /// It is no address and no network.
    #[error("`{0}` is not an IPv4 network such as 192.168.1.0/24")]
    NoNetwork(String),
    /// It stands for many hosts.
    #[error("`{0}`: name each host by itself, without `*`")]
    Wildcard(String),
    /// It may stand for a network, or for one address in it.
    #[error("`{text}` is an address within {network}: name one of them")]
    Ambiguous {
        /// The text.
        text: String,
        /// The network.
        network: Ipv4Net,
    },
}

/// Parses an address, or a network in CIDR notation.
///
/// # Errors
///
/// When the text is neither.
pub fn parse_network(text: &str) -> Result<Ipv4Net, ParseTargetError> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(address.into());
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() || text.parse::<ipnet::Ipv6Net>().is_ok() {
        return Err(ParseTargetError::Ipv6(text.to_owned()));
    }
    text.parse().map_err(|_| ParseTargetError::NoNetwork(text.to_owned()))
}

/// Parses an address, a network in CIDR notation, or the name of a host.
///
/// # Errors
///
/// When the text is none of them.
pub fn parse_target(text: &str) -> Result<Target, ParseTargetError> {
    match is_host_name(text) {
        true => Ok(Target::Host(text.trim_end_matches('.').to_ascii_lowercase())),
        false if text.contains('*') => Err(ParseTargetError::Wildcard(text.to_owned())),
        false => parse_network(text).map(Target::Network),
    }
}

/// Whether the text is a host name by RFC 1123 that cannot be meant as an address: addresses end in a number.
fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'-' || letter == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number = |label: &str| label.bytes().all(|letter| letter.is_ascii_digit());
    name.len() <= 253 && name.split('.').all(is_label) && !name.rsplit('.').next().is_none_or(is_number)
}

/// Reads a list of networks from the configuration.
pub(crate) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Ipv4Net>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts
        .iter()
        .map(|text| strict(parse_network(text)?, text))
        .collect::<Result<_, ParseTargetError>>()
        .map_err(D::Error::custom)
}

/// Reads a list of networks and hosts from the configuration.
pub(crate) fn targets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Target>, D::Error> {
    let target = |text: &String| match parse_target(text)? {
        Target::Network(network) => Ok(Target::Network(strict(network, text)?)),
        host @ Target::Host(_) => Ok(host),
    };
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(target).collect::<Result<_, ParseTargetError>>().map_err(D::Error::custom)
}

/// Refuses an address with a prefix shorter than itself: it may stand for the network or for the address, and to guess
/// the network could open more than was meant.
fn strict(network: Ipv4Net, text: &str) -> Result<Ipv4Net, ParseTargetError> {
    match network.trunc() == network {
        true => Ok(network),
        false => Err(ParseTargetError::Ambiguous { text: text.to_owned(), network: network.trunc() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_addresses_and_cidrs_and_nothing_else() {
        for (text, network) in [("10.0.0.1", "10.0.0.1/32"), ("10.0.0.0/8", "10.0.0.0/8"), ("0.0.0.0/0", "0.0.0.0/0")] {
            assert_eq!(parse_network(text).unwrap(), network.parse().unwrap());
        }
        for text in ["", "10", "10.0.0.0/33", "10.0.0/8", "example.com", "*.example.com", "10.0.0.1:80", " 10.0.0.1"] {
            assert_eq!(parse_network(text), Err(ParseTargetError::NoNetwork(text.to_owned())));
        }
        for text in ["::/0", "fd00::1"] {
            assert_eq!(parse_network(text), Err(ParseTargetError::Ipv6(text.to_owned())));
        }
    }

    #[test]
    fn targets_are_networks_or_names_of_hosts() {
        for (text, name) in
            [("example.com", "example.com"), ("API.Example.com.", "api.example.com"), ("tools", "tools")]
        {
            assert_eq!(parse_target(text).unwrap(), Target::Host(name.to_owned()));
        }
        assert_eq!(parse_target("10.0.0.0/8").unwrap(), Target::Network("10.0.0.0/8".parse().unwrap()));
        for text in ["", ".", "a..b", "-a.com", "a.com:80", "http://a.com", "10.0.0", "10.0.0.256", "a b", "a/24"] {
            assert_eq!(parse_target(text), Err(ParseTargetError::NoNetwork(text.to_owned())));
        }
        let wildcard = ParseTargetError::Wildcard("*.example.com".to_owned());
        assert_eq!(parse_target("*.example.com"), Err(wildcard));
    }

    #[test]
    fn a_network_of_the_configuration_has_no_bits_beyond_its_prefix() {
        let read = |text: &str| networks(serde_json::json!([text])).map_err(|err| err.to_string());
        assert_eq!(read("10.0.0.0/24").unwrap(), ["10.0.0.0/24".parse::<Ipv4Net>().unwrap()]);
        assert_eq!(
            read("10.0.0.5/24").unwrap_err(),
            "`10.0.0.5/24` is an address within 10.0.0.0/24: name one of them"
        );
    }
}
