//! What a container can reach.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// What a container can reach. There is no IPv6.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Network {
    /// Public addresses, less these, and DNS; of the others only what the engine was told to allow.
    Full(Choice),
    /// These addresses, private ones too, and nothing else.
    Allowlist(Vec<Ipv4Net>),
    /// Nothing.
    None,
}

/// What one client wants of the internet. What is allowed goes before what is denied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Choice {
    /// Reached in spite of `deny`, if it is public.
    pub allow: Vec<Ipv4Net>,
    /// Not reached.
    pub deny: Vec<Ipv4Net>,
}

impl Choice {
    /// Whether nothing is reached but what is allowed; name servers are not, either.
    pub fn denies_all(&self) -> bool {
        self.deny.contains(&Ipv4Net::default())
    }
}

impl Network {
    /// The internet, as the operator allows it.
    pub fn full() -> Self {
        Self::Full(Choice::default())
    }

    /// Whether the internet is within reach, except for what a client has denied.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Full(choice) if !choice.denies_all())
    }

    /// Whether it is one client's own wish, so that nobody else is likely to want the same.
    pub fn is_choice(&self) -> bool {
        matches!(self, Self::Full(choice) if *choice != Choice::default())
    }
}

/// An address, or a network in CIDR notation.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse_network(text: &str) -> Result<Ipv4Net, String> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(address.into());
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() || text.parse::<ipnet::Ipv6Net>().is_ok() {
        return Err(format!("`{text}` is IPv6, which sandboxes do not have"));
    }
    text.parse()
        .map_err(|_| format!("`{text}` is not an IPv4 network such as 192.168.1.0/24; names of hosts cannot be given"))
}

/// A list of networks of the configuration.
pub(crate) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Ipv4Net>, D::Error> {
    let strict = |text: &String| {
        let network = parse_network(text)?;
        // Either the network or the one address may be meant, and guessing wide would open what nobody meant to.
        match network.trunc() == network {
            true => Ok(network),
            false => Err(format!("`{text}` is an address within {}: name one of them", network.trunc())),
        }
    };
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(strict).collect::<Result<_, String>>().map_err(D::Error::custom)
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
            let said = parse_network(text).unwrap_err();
            assert!(said.starts_with(&format!("`{text}` is not an IPv4 network")), "{said}");
        }
        for text in ["::/0", "fd00::1"] {
            assert!(parse_network(text).unwrap_err().contains("is IPv6"));
        }
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
