//! Which addresses a network's sandboxes reach, put in the order in which they are asked about.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::engine::{Choice, Network};
use crate::protocol::{Addresses, Egress, Rule};

/// What is no public address: the entries of RFC 6890 and its registry that are not global, multicast, and what clouds serve
/// their metadata on under an address that looks public.
const NOT_PUBLIC: [(Ipv4Addr, u8); 17] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
    (Ipv4Addr::BROADCAST, 32),
    // Azure's.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
];

fn not_public() -> impl Iterator<Item = Ipv4Net> {
    NOT_PUBLIC.into_iter().map(|(address, length)| Ipv4Net::new_assert(address, length))
}

/// What the rules of a network are made of, beside what it asks for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// The host's own.
    pub(super) host: Addresses,
    /// That of the bridge that all sandboxes are on; the host has an address there too.
    pub(super) bridge: Ipv4Net,
    /// What the operator lets sandboxes reach although it is not public.
    pub(super) allow_private: Vec<Ipv4Net>,
}

impl Surroundings {
    /// The rules of a network that reaches anything.
    pub(super) fn egress(&self, network: &Network) -> Option<Egress> {
        let rule = |reached| move |network: &Ipv4Net| Rule { network: *network, reached };
        let (named, choice) = match network {
            Network::None => return None,
            Network::Full(choice) => (&self.allow_private, Some(choice)),
            Network::Allowlist(networks) => (networks, None),
        };
        let mut wide: Vec<_> = named.iter().map(rule(true)).collect();
        if choice.is_some() {
            wide.extend(not_public().map(|network| rule(false)(&network)));
            wide.push(rule(true)(&Ipv4Net::default()));
        }
        // The host and the other sandboxes are reached where they are named by themselves. That they lie within a network
        // that is named does not open them.
        let mut rules: Vec<_> = named.iter().filter(|network| network.prefix_len() == 32).map(rule(true)).collect();
        rules.push(rule(false)(&self.bridge));
        // Only those that are not out of reach anyway: a host's private addresses come and go with other networks of the engine.
        let host = self.host.addresses.iter().map(|address| Ipv4Net::from(*address));
        rules.extend(host.filter(|address| is_reached(&wide, address)).map(|address| rule(false)(&address)));
        rules.extend(wide);
        if let Some(choice) = choice {
            rules = narrowed(rules, choice);
        }
        let resolves = choice.is_some_and(|choice| !choice.denies_all());
        let nameservers = if resolves { self.host.nameservers.clone() } else { Vec::new() };
        Some(Egress { nameservers, rules, otherwise: false })
    }
}

fn is_reached(rules: &[Rule], address: &Ipv4Net) -> bool {
    rules.iter().find(|rule| rule.network.contains(address)).is_some_and(|rule| rule.reached)
}

/// What the rules reach and the choice does not deny. Of two networks that overlap, one lies within the other.
fn narrowed(rules: Vec<Rule>, choice: &Choice) -> Vec<Rule> {
    let mut wishes: Vec<_> = choice.allow.iter().map(|network| Rule { network: *network, reached: true }).collect();
    wishes.extend(choice.deny.iter().map(|network| Rule { network: *network, reached: false }));
    wishes.push(Rule { network: Ipv4Net::default(), reached: true });
    let narrow = |rule: Rule| match rule.reached {
        false => vec![rule],
        true => {
            let within = wishes.iter().filter_map(|wish| {
                let parts = [rule.network, wish.network];
                let overlap = parts.into_iter().find(|part| parts.iter().all(|whole| whole.contains(part)))?;
                Some(Rule { network: overlap, reached: wish.reached })
            });
            within.collect()
        }
    };
    rules.into_iter().flat_map(narrow).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Ipv4Net> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn surroundings(allow_private: &[&str]) -> Surroundings {
        let host = Addresses {
            addresses: ["192.168.1.5", "5.6.7.8"].map(|text| text.parse().unwrap()).to_vec(),
            nameservers: vec!["192.168.1.1".parse().unwrap()],
        };
        let bridge = "172.30.0.0/16".parse().unwrap();
        Surroundings { host, bridge, allow_private: networks(allow_private) }
    }

    #[track_caller]
    fn check(egress: &Egress, reached: &[&str], unreached: &[&str]) {
        for (addresses, expected) in [(reached, true), (unreached, false)] {
            for text in addresses {
                let address: Ipv4Addr = text.parse().unwrap();
                let first = egress.rules.iter().find(|rule| rule.network.contains(&address));
                assert_eq!(first.map_or(egress.otherwise, |rule| rule.reached), expected, "{text}");
            }
        }
    }

    #[test]
    fn a_full_network_is_what_is_public_and_not_the_host() {
        let egress = surroundings(&[]).egress(&Network::full()).unwrap();
        let private = [
            "10.0.0.1",
            "172.17.0.1",
            "172.30.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.168.1.5",
            "5.6.7.8",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "169.254.169.254",
            "168.63.129.16",
            "192.0.0.192",
            "198.19.0.1",
            "224.0.0.251",
            "239.255.255.250",
            "255.255.255.255",
            "240.0.0.1",
            "0.0.0.0",
        ];
        check(&egress, &["8.8.8.8", "5.6.7.9", "172.32.0.1", "192.169.0.1", "100.128.0.1", "9.255.255.255"], &private);
        assert_eq!(egress.nameservers, ["192.168.1.1".parse::<Ipv4Addr>().unwrap()]);
    }

    #[test]
    fn what_the_operator_allows_opens_the_host_only_by_its_own_address() {
        let egress = surroundings(&["192.168.1.0/24", "172.16.0.0/12"]).egress(&Network::full()).unwrap();
        check(&egress, &["192.168.1.10", "172.17.0.1"], &["192.168.1.5", "172.30.0.1", "172.30.0.9", "192.168.2.1"]);
        let egress = surroundings(&["192.168.1.5/32", "172.30.0.1/32"]).egress(&Network::full()).unwrap();
        check(&egress, &["192.168.1.5", "172.30.0.1"], &["192.168.1.10", "172.30.0.9"]);
    }

    #[test]
    fn an_allowlist_is_what_it_names_and_has_no_dns() {
        let named = Network::Allowlist(networks(&["1.2.3.0/24", "10.0.0.0/8", "5.6.0.0/16"]));
        let egress = surroundings(&["192.168.1.10/32"]).egress(&named).unwrap();
        check(&egress, &["1.2.3.4", "10.9.8.7", "5.6.7.9"], &["8.8.8.8", "192.168.1.10", "5.6.7.8", "172.30.0.1"]);
        assert_eq!(egress.nameservers, [] as [Ipv4Addr; 0]);
    }

    #[test]
    fn a_client_may_choose_among_what_is_public_only() {
        let choose = |allow: &[&str], deny: &[&str]| {
            let choice = Choice { allow: networks(allow), deny: networks(deny) };
            surroundings(&["10.0.0.1/32"]).egress(&Network::Full(choice)).unwrap()
        };
        let egress =
            choose(&["1.1.1.0/24", "192.168.0.0/16", "0.0.0.0/2"], &["1.1.1.1/32", "8.0.0.0/8", "200.0.0.0/8"]);
        check(&egress, &["1.1.1.1", "8.8.8.8", "10.0.0.1", "201.0.0.1"], &["192.168.1.10", "200.1.1.1", "5.6.7.8"]);
        assert_eq!(egress.nameservers.len(), 1);
        let egress = choose(&["1.1.1.0/24"], &["0.0.0.0/0"]);
        check(&egress, &["1.1.1.1"], &["8.8.8.8", "192.168.1.10", "10.0.0.1"]);
        assert_eq!(egress.nameservers.len(), 0);
    }

    #[test]
    fn private_addresses_of_the_host_that_are_out_of_reach_anyway_change_nothing() {
        let (mut more, fewer) = (surroundings(&["10.0.0.0/8"]), surroundings(&["10.0.0.0/8"]));
        more.host.addresses.push("172.19.0.1".parse().unwrap());
        assert_eq!(more.egress(&Network::full()), fewer.egress(&Network::full()));
        more.host.addresses.push("10.0.0.1".parse().unwrap());
        assert_ne!(more.egress(&Network::full()), fewer.egress(&Network::full()));
    }

    #[test]
    fn no_network_has_no_rules() {
        assert_eq!(surroundings(&[]).egress(&Network::None), None);
    }
}
