//! What one owner may have: templates, the network, and limits of its own.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::SandboxError;
use super::template::{NetworkKind, Template};
use crate::engine::Network;

/// What an owner may have. By default, everything that the server's configuration allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowance {
    /// The names or aliases of the templates that it may use; all if there are none.
    pub templates: Vec<String>,
    /// The most that its sandboxes reach; `None` if only templates decide.
    pub network: Option<NetworkKind>,
    /// Its limits.
    pub limits: OwnerLimits,
}

/// The limits of an owner. `None` is no limit, or the server's limit for each owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnerLimits {
    /// The most sandboxes that serve single runs at once.
    pub max_sandboxes: Option<NonZeroUsize>,
    /// The most sandboxes that are kept at once, including paused ones.
    pub max_kept_sandboxes: Option<NonZeroUsize>,
    /// The most runs and creations per minute.
    pub max_starts_per_minute: Option<NonZeroU32>,
    /// The longest time of a run, and the longest time to the deadline of a kept sandbox.
    pub max_timeout_ms: Option<NonZeroU64>,
    /// The processor time of all its sandboxes in a day.
    pub cpu_seconds_per_day: Option<NonZeroU64>,
}

impl Allowance {
    /// Checks that the owner may use a template.
    pub(super) fn check_template(&self, template: &Template) -> Result<(), SandboxError> {
        let is_named = |name: &String| template.is_called(name);
        if self.templates.is_empty() || self.templates.iter().any(is_named) {
            return Ok(());
        }
        let allowed = self.templates.join(", ");
        Err(SandboxError::TemplateForbidden { name: template.name.clone(), allowed })
    }

    /// The network of a sandbox. One that the client has chosen must be within the owner's; any other is lowered to what
    /// the owner may have.
    pub(super) fn network(&self, network: Network, is_chosen: bool) -> Result<Network, SandboxError> {
        let kind = kind(&network);
        match self.network {
            Some(most) if kind.reach() > most.reach() && is_chosen => {
                Err(SandboxError::NetworkForbidden { chosen: kind, most })
            }
            // There is no list that could be reached instead: a full network has none.
            Some(most) if kind.reach() > most.reach() => Ok(Network::None),
            _ => Ok(network),
        }
    }

    /// Checks the time of a run, or to the deadline of a kept sandbox.
    pub(super) fn check_timeout(&self, timeout: Duration) -> Result<(), SandboxError> {
        match self.longest().filter(|longest| timeout > *longest) {
            Some(longest) => Err(SandboxError::TooLong { max_timeout_ms: longest.as_millis() as u64 }),
            None => Ok(()),
        }
    }

    /// The longest time of a run, and to the deadline of a kept sandbox.
    pub(super) fn longest(&self) -> Option<Duration> {
        self.limits.max_timeout_ms.map(|limit| Duration::from_millis(limit.get()))
    }
}

/// The kind of network that reaches as much.
fn kind(network: &Network) -> NetworkKind {
    match network {
        Network::Full(choice) if choice.denies_all() => NetworkKind::Allowlist,
        Network::Full(_) => NetworkKind::Full,
        Network::Allowlist(_) => NetworkKind::Allowlist,
        Network::None => NetworkKind::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Choice, Target};

    fn allowance(network: NetworkKind) -> Allowance {
        Allowance { network: Some(network), ..Allowance::default() }
    }

    #[test]
    fn a_chosen_network_is_within_the_owners_and_any_other_is_lowered_to_it() {
        let all = ipnet::Ipv4Net::default();
        let listed = Network::Allowlist(vec![Target::Host("example.com".to_owned())]);
        let chosen = Network::Full(Choice { allow: vec![Target::Network(all)], deny: vec![all] });
        let narrowed =
            Network::Full(Choice { allow: Vec::new(), deny: vec!["10.0.0.0/8".parse().expect("a network")] });
        let most = |network| allowance(network);
        for (most, network, is_chosen, expected) in [
            (most(NetworkKind::Full), Network::full(), true, Some(Network::full())),
            (most(NetworkKind::Allowlist), listed.clone(), true, Some(listed.clone())),
            (most(NetworkKind::Allowlist), chosen.clone(), true, Some(chosen.clone())),
            (most(NetworkKind::Allowlist), Network::full(), true, None),
            (most(NetworkKind::Allowlist), narrowed.clone(), true, None),
            (most(NetworkKind::Allowlist), Network::full(), false, Some(Network::None)),
            (most(NetworkKind::None), chosen, true, None),
            (most(NetworkKind::None), listed, false, Some(Network::None)),
            (most(NetworkKind::None), Network::None, true, Some(Network::None)),
            (Allowance::default(), narrowed.clone(), true, Some(narrowed)),
        ] {
            let shown = format!("{most:?} {network:?} {is_chosen}");
            assert_eq!(most.network(network, is_chosen).ok(), expected, "{shown}");
        }
    }

    #[test]
    fn a_time_is_at_most_the_owners() {
        let limits = OwnerLimits { max_timeout_ms: NonZeroU64::new(1000), ..OwnerLimits::default() };
        let allowance = Allowance { limits, ..Allowance::default() };
        assert!(allowance.check_timeout(Duration::from_millis(1000)).is_ok());
        let err = allowance.check_timeout(Duration::from_millis(1001)).expect_err("too long");
        assert!(matches!(err, SandboxError::TooLong { max_timeout_ms: 1000 }), "{err}");
        assert!(Allowance::default().check_timeout(Duration::MAX).is_ok());
    }
}
