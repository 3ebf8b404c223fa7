//! The addresses that sandboxes of a network can reach, as a list of rules of which the first match decides.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::engine::{Network, Target};
use crate::protocol::{Addresses, Egress, Rule};

/// Addresses that are not public: the entries of RFC 6890 and its registry that are not global, multicast, and the
/// metadata addresses of clouds that look public.
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

/// The facts that the rules of every network depend on, beside the network itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// The host's addresses and name servers.
    pub(super) host: Addresses,
    /// The bridge network of all sandboxes; the host has an address in it too.
    pub(super) bridge: Ipv4Net,
    /// Networks that are not public but that the operator allows.
    pub(super) allow_private: Vec<Ipv4Net>,
    /// The addresses of named hosts, by name.
    pub(super) hosts: BTreeMap<String, Vec<Ipv4Addr>>,
}

impl Surroundings {
    /// The hosts that a network names, with their known addresses.
    pub(super) fn addresses<'a>(&'a self, network: &'a Network) -> impl Iterator<Item = (&'a str, Ipv4Addr)> {
        network.hosts().flat_map(|name| {
            let addresses = self.hosts.get(name).map(Vec::as_slice).unwrap_or_default();
            addresses.iter().map(move |address| (name, *address))
        })
    }

    /// The rules of a network; `None` if it reaches nothing.
    pub(super) fn egress(&self, network: &Network) -> Option<Egress> {
        let rule = |reached| move |network: &Ipv4Net| Rule { network: *network, reached };
        let (named, choice) = match network {
            Network::None => return None,
            Network::Full(choice) => (self.allow_private.clone(), Some(choice)),
            Network::Allowlist(targets) => (networks(targets).collect(), None),
        };
        let hosts: Vec<Ipv4Net> = self.addresses(network).map(|(_, address)| address.into()).collect();
        let mut wide: Vec<_> = named.iter().map(rule(true)).collect();
        wide.extend(not_public().map(|network| rule(false)(&network)));
        match choice {
            Some(_) => wide.push(rule(true)(&Ipv4Net::default())),
            // The owner of a host name decides its addresses, so a name opens no private ones.
            None => wide.extend(hosts.iter().map(rule(true))),
        }
        // The host and the other sandboxes are reached only if they are named by their own address, not by a network
        // that contains them.
        let mut rules: Vec<_> = named.iter().filter(|network| network.prefix_len() == 32).map(rule(true)).collect();
        rules.push(rule(false)(&self.bridge));
        // Only the host's addresses that the other rules would reach: its private addresses come and go with other
        // networks of the engine, and must not change the rules.
        let host = self.host.addresses.iter().map(|address| Ipv4Net::from(*address));
        rules.extend(host.filter(|address| is_reached(&wide, address)).map(|address| rule(false)(&address)));
        rules.extend(wide);
        if let Some(choice) = choice {
            let allow: Vec<_> = networks(&choice.allow).chain(hosts).collect();
            rules = narrowed(rules, &allow, &choice.deny);
        }
        let resolves = choice.is_some_and(|choice| !choice.denies_all());
        let nameservers = if resolves { self.host.nameservers.clone() } else { Vec::new() };
        Some(Egress { nameservers, rules, allow_unmatched: false })
    }
}

fn networks(targets: &[Target]) -> impl Iterator<Item = Ipv4Net> {
    targets.iter().filter_map(|target| match target {
        Target::Network(network) => Some(*network),
        Target::Host(_) => None,
    })
}

fn is_reached(rules: &[Rule], address: &Ipv4Net) -> bool {
    rules.iter().find(|rule| rule.network.contains(address)).is_some_and(|rule| rule.reached)
}

/// Narrows the rules to addresses that the client does not deny. Of two overlapping networks, one lies within the
/// other.
fn narrowed(rules: Vec<Rule>, allow: &[Ipv4Net], deny: &[Ipv4Net]) -> Vec<Rule> {
    let mut wishes: Vec<_> = allow.iter().map(|network| Rule { network: *network, reached: true }).collect();
    wishes.extend(deny.iter().map(|network| Rule { network: *network, reached: false }));
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
    use crate::engine::{Choice, parse_target};

    fn networks(texts: &[&str]) -> Vec<Ipv4Net> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn targets(texts: &[&str]) -> Vec<Target> {
        texts.iter().map(|text| parse_target(text).unwrap()).collect()
    }

    fn surroundings(allow_private: &[&str]) -> Surroundings {
        let host = Addresses {
            addresses: ["192.168.1.5", "5.6.7.8"].map(|text| text.parse().unwrap()).to_vec(),
            nameservers: vec!["192.168.1.1".parse().unwrap()],
        };
        let bridge = "172.30.0.0/16".parse().unwrap();
        let addresses = ["1.2.3.4", "5.6.7.8", "10.0.0.1", "169.254.169.254"].map(|text| text.parse().unwrap());
        let hosts = BTreeMap::from([("named.example".to_owned(), addresses.to_vec())]);
        Surroundings { host, bridge, allow_private: networks(allow_private), hosts }
    }

    #[track_caller]
    fn check(egress: &Egress, reached: &[&str], unreached: &[&str]) {
        for (addresses, expected) in [(reached, true), (unreached, false)] {
            for text in addresses {
                let address: Ipv4Addr = text.parse().unwrap();
                let first = egress.rules.iter().find(|rule| rule.network.contains(&address));
                assert_eq!(first.map_or(egress.allow_unmatched, |rule| rule.reached), expected, "{text}");
            }
        }
    }

    #[test]
    fn a_full_network_reaches_public_addresses_but_not_the_host() {
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
    fn an_allowed_network_opens_the_host_only_if_it_is_the_hosts_own_address() {
        let egress = surroundings(&["192.168.1.0/24", "172.16.0.0/12"]).egress(&Network::full()).unwrap();
        check(&egress, &["192.168.1.10", "172.17.0.1"], &["192.168.1.5", "172.30.0.1", "172.30.0.9", "192.168.2.1"]);
        let egress = surroundings(&["192.168.1.5/32", "172.30.0.1/32"]).egress(&Network::full()).unwrap();
        check(&egress, &["192.168.1.5", "172.30.0.1"], &["192.168.1.10", "172.30.0.9"]);
    }

    #[test]
    fn an_allowlist_reaches_its_entries_and_no_name_server() {
        let named = Network::Allowlist(targets(&["1.2.3.0/24", "10.0.0.0/8", "5.6.0.0/16"]));
        let egress = surroundings(&["192.168.1.10/32"]).egress(&named).unwrap();
        check(&egress, &["1.2.3.4", "10.9.8.7", "5.6.7.9"], &["8.8.8.8", "192.168.1.10", "5.6.7.8", "172.30.0.1"]);
        assert_eq!(egress.nameservers, [] as [Ipv4Addr; 0]);
    }

    #[test]
    fn a_client_can_choose_among_public_addresses_only() {
        let choose = |allow: &[&str], deny: &[&str]| {
            let choice = Choice { allow: targets(allow), deny: networks(deny) };
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
    fn a_name_opens_its_public_addresses_and_never_the_host() {
        let unreached = ["5.6.7.8", "10.0.0.1", "169.254.169.254", "8.8.8.8"];
        let named = Network::Allowlist(targets(&["named.example", "unknown.example"]));
        check(&surroundings(&[]).egress(&named).unwrap(), &["1.2.3.4"], &unreached);
        let choice = Choice { allow: targets(&["named.example"]), deny: networks(&["0.0.0.0/0"]) };
        check(&surroundings(&[]).egress(&Network::Full(choice)).unwrap(), &["1.2.3.4"], &unreached);
        // If the allowlist has the address itself too, the address is reached.
        let both = Network::Allowlist(targets(&["named.example", "10.0.0.1"]));
        check(&surroundings(&[]).egress(&both).unwrap(), &["1.2.3.4", "10.0.0.1"], &["5.6.7.8", "10.0.0.2"]);
    }

    #[test]
    fn private_addresses_of_the_host_that_no_rule_reaches_change_nothing() {
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
