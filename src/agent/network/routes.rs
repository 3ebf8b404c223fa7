//! Routes for the same policy as the filter, so that code gets an error at once instead of a timeout.

use std::net::Ipv4Addr;

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::Failure;
use crate::protocol::{Egress, Rule};

/// The default route of the namespace, as the engine has set it up.
#[derive(Debug)]
pub(super) struct DefaultRoute {
    pub(super) interface: u32,
    gateway: Ipv4Addr,
}

/// Finds the default route.
pub(super) async fn default_route(handle: &Handle) -> Result<DefaultRoute, Failure> {
    let find = |route: &RouteMessage| {
        let is_default = route.header.destination_prefix_length == 0;
        let interface = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(interface) => Some(*interface),
            _ => None,
        });
        let gateway = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => Some(*gateway),
            _ => None,
        });
        interface.zip(gateway).filter(|_| is_default).map(|(interface, gateway)| DefaultRoute { interface, gateway })
    };
    let found = existing(handle).await?.iter().find_map(find);
    found.ok_or_else(|| Failure::of("find a gateway")("the namespace has no default route"))
}

/// The routes of the main table. The table for local addresses belongs to the kernel.
async fn existing(handle: &Handle) -> Result<Vec<RouteMessage>, Failure> {
    let all = handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
    let routes: Vec<_> = all.try_collect().await.map_err(Failure::netlink("list the routes"))?;
    Ok(routes.into_iter().filter(|route| route.header.table == RouteHeader::RT_TABLE_MAIN).collect())
}

/// Replaces the existing routes by those of the policy. The route to the namespace's own subnet is removed too, because
/// the gateway is the host.
pub(super) async fn replace(handle: &Handle, default: &DefaultRoute, egress: &Egress) -> Result<(), Failure> {
    for route in existing(handle).await? {
        handle.route().del(route).execute().await.map_err(Failure::netlink("remove a route"))?;
    }
    for Rule { network, reached } in decisive(egress) {
        let route = RouteMessageBuilder::<Ipv4Addr>::new();
        let route = match reached {
            true => route.output_interface(default.interface).gateway(default.gateway).onlink(),
            false => route.kind(RouteType::Unreachable),
        };
        let route = route.destination_prefix(network.network(), network.prefix_len()).build();
        handle.route().add(route).execute().await.map_err(Failure::netlink("add a route"))?;
    }
    Ok(())
}

/// The rules without those that an earlier rule for a network around theirs makes ineffective. If two of the remaining
/// networks overlap, the smaller one is inside the larger one and comes first. So the most specific route decides the
/// same as the first rule.
fn decisive(egress: &Egress) -> Vec<Rule> {
    let nameservers = egress.nameservers.iter().map(|address| Rule { network: (*address).into(), reached: true });
    let rest = Rule { network: Ipv4Net::default(), reached: egress.allow_unmatched };
    let mut decisive: Vec<Rule> = Vec::new();
    for rule in nameservers.chain(egress.rules.iter().copied()).chain([rest]) {
        if !decisive.iter().any(|earlier| earlier.network.contains(&rule.network)) {
            decisive.push(rule);
        }
    }
    decisive
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(egress: &Egress) -> Vec<String> {
        let sign = |reached| if reached { '+' } else { '-' };
        decisive(egress).iter().map(|rule| format!("{}{}", sign(rule.reached), rule.network)).collect()
    }

    #[test]
    fn the_first_rule_that_contains_an_address_is_the_most_specific_route() {
        let rule = |network: &str, reached| Rule { network: network.parse().unwrap(), reached };
        let rules = vec![
            rule("10.1.0.0/16", true),
            // Inside a network that is already reachable, so this rule has no effect.
            rule("10.1.2.0/24", false),
            rule("10.0.0.0/8", false),
            rule("10.1.0.0/16", false),
        ];
        let egress = Egress { nameservers: vec!["10.2.0.1".parse().unwrap()], rules, allow_unmatched: true };
        assert_eq!(shown(&egress), ["+10.2.0.1/32", "+10.1.0.0/16", "-10.0.0.0/8", "+0.0.0.0/0"]);
        let nothing = Egress { nameservers: Vec::new(), rules: vec![rule("0.0.0.0/0", false)], allow_unmatched: true };
        assert_eq!(shown(&nothing), ["-0.0.0.0/0"]);
    }
}
