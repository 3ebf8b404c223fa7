//! The network options of a sandbox.
//!
//! Source: e2b-dev/infra, `spec/openapi.yml`, schema `SandboxNetworkConfig`.

use std::net::Ipv4Addr;

use axum::http::uri::Authority;
use ipnet::Ipv4Net;
use serde::Deserialize;
use serde_json::Value;

use crate::engine::{Choice, Network, ParseTargetError, Target, parse_network, parse_target};
use crate::http::e2b::error::E2bError;
use crate::sandbox::{RequestedNetwork, Template, Traffic};

type E2bResult<T> = Result<T, E2bError>;

/// The network options of a request. Options that cannot be enforced are refused rather than ignored, and so are
/// unknown ones, which may be misspelt restrictions.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NetworkRequest {
    #[serde(rename = "allow_internet_access")]
    pub(super) allow_internet_access: Option<bool>,
    pub(super) allow_public_traffic: Option<bool>,
    pub(super) mask_request_host: Option<String>,
    https_ports: Option<Vec<Value>>,
    pub(super) allow_out: Option<Vec<Value>>,
    pub(super) deny_out: Option<Vec<Value>>,
    rules: Option<Value>,
    egress_proxy: Option<Value>,
    dns_servers: Option<Vec<Value>>,
}

impl NetworkRequest {
    /// Refuses options that cannot be enforced.
    pub(super) fn check(&self) -> Result<(), E2bError> {
        let is_not_empty = |value: &Option<Vec<Value>>| value.as_ref().is_some_and(|list| !list.is_empty());
        let unsupported = [
            ("rules", self.rules.as_ref().is_some_and(|rules| *rules != Value::Object(Default::default()))),
            ("egressProxy", self.egress_proxy.is_some()),
            ("dnsServers", is_not_empty(&self.dns_servers)),
            ("httpsPorts", is_not_empty(&self.https_ports)),
        ];
        match unsupported.iter().find(|(_, requested)| *requested) {
            None => Ok(()),
            Some((name, _)) => {
                let message = format!(
                    "network.{name} is not enforced here and is refused; use allowOut, denyOut or allow_internet_access"
                );
                Err(E2bError::bad_request(message))
            }
        }
    }

    /// Returns the network of the sandbox, which never exceeds its template's. If `internet` is false, only `allowOut`
    /// is reachable.
    pub(super) fn network(&self, template: &Template, internet: bool) -> Result<Network, E2bError> {
        let mut choice =
            Choice { allow: targets("allowOut", &self.allow_out)?, deny: networks("denyOut", &self.deny_out)? };
        if !internet {
            choice.deny = vec![EVERYTHING];
        }
        let hosts = choice.allow.iter().filter(|target| matches!(target, Target::Host(_))).count();
        if hosts > MAX_HOSTS {
            return Err(E2bError::bad_request(format!("network.allowOut: must have at most {MAX_HOSTS} host names")));
        }
        if hosts > 0 && !choice.denies_all() {
            let message = "network.allowOut: host names are accepted only if denyOut contains \"0.0.0.0/0\"";
            return Err(E2bError::bad_request(message));
        }
        match template.network() {
            _ if choice.denies_all() && choice.allow.is_empty() => Ok(Network::None),
            Network::Full(_) => Ok(Network::Full(choice)),
            own if choice == Choice::default() => Ok(own),
            _ => {
                let message =
                    format!("network: the network of template '{}' is fixed and cannot be chosen", template.name);
                Err(E2bError::bad_request(message))
            }
        }
    }

    /// Returns whether the client has chosen what the sandbox reaches. SDKs send `allow_internet_access: true` by
    /// themselves, and what is not reached is no wish.
    pub(super) fn chooses(&self) -> bool {
        self.allow_out.as_ref().is_some_and(|list| !list.is_empty())
    }

    /// Returns the options as the request spells them, for reports. [`Self::network`] has checked the lists.
    pub(super) fn requested(&self, internet: Option<bool>) -> RequestedNetwork {
        let texts = |list: &Option<Vec<Value>>| {
            let text = |entry: &Value| entry.as_str().unwrap_or_default().to_owned();
            list.as_ref().map(|list| list.iter().map(text).collect())
        };
        RequestedNetwork { internet, allow: texts(&self.allow_out), deny: texts(&self.deny_out) }
    }

    /// Returns the options of traffic to the sandbox's ports.
    pub(super) fn traffic(&self) -> Result<Traffic, E2bError> {
        let host = self.mask_request_host.clone().filter(|host| !host.is_empty());
        let is_host = |host: &String| host.replace("${PORT}", "1").parse::<Authority>().is_ok();
        if let Some(host) = host.as_ref().filter(|host| !is_host(host)) {
            return Err(E2bError::bad_request(format!("network.maskRequestHost: {host:?} is not a host")));
        }
        Ok(Traffic { private: self.allow_public_traffic == Some(false), host })
    }
}

/// Every address.
const EVERYTHING: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);

/// The largest number of entries in a list. A sandbox's whole list must fit into one filter of the kernel.
const MAX_NETWORKS: usize = 128;

/// The largest number of host names; each may have several addresses.
const MAX_HOSTS: usize = 32;

/// Parses a list of addresses, networks and host names.
fn targets(name: &str, list: &Option<Vec<Value>>) -> E2bResult<Vec<Target>> {
    entries(name, list, |text| match parse_target(text)? {
        Target::Network(network) => Ok(Target::Network(network.trunc())),
        host @ Target::Host(_) => Ok(host),
    })
}

/// Parses a list of addresses and networks.
fn networks(name: &str, list: &Option<Vec<Value>>) -> E2bResult<Vec<Ipv4Net>> {
    entries(name, list, |text| Ok(parse_network(text)?.trunc()))
}

fn entries<T>(
    name: &str,
    list: &Option<Vec<Value>>,
    read: impl Fn(&str) -> Result<T, ParseTargetError>,
) -> E2bResult<Vec<T>> {
    let refused = |reason: String| E2bError::bad_request(format!("network.{name}: {reason}"));
    let list = list.as_deref().unwrap_or_default();
    if list.len() > MAX_NETWORKS {
        return Err(refused(format!("must have at most {MAX_NETWORKS} entries")));
    }
    let entry = |entry: &Value| {
        let text = entry.as_str().ok_or_else(|| refused(format!("{entry} is not a string")))?;
        read(text).map_err(|err| refused(err.to_string()))
    };
    list.iter().map(entry).collect()
}
