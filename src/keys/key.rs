//! An API key, as the server knows it: everything but its text.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::profile::Profile;
use super::scope::Scope;
use super::secret::Mask;
use crate::sandbox::{Allowance, Owner};

/// Where a key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A variable of the environment. It cannot be changed while the server runs.
    Environment,
    /// The file of keys.
    File,
}

/// An API key.
#[derive(Debug, Clone)]
pub struct Key {
    /// The owner of its sandboxes. Its written form is the id of the key.
    pub owner: Owner,
    /// Its name, for people.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// What it is for.
    pub scopes: Vec<Scope>,
    /// The kind of its client.
    pub profile: Profile,
    /// What it may have.
    pub allowance: Arc<Allowance>,
    /// When it was made, if that is known.
    pub created: Option<SystemTime>,
    /// The time from which it is not valid any longer.
    pub expires: Option<SystemTime>,
    /// When it was revoked.
    pub revoked: Option<SystemTime>,
    /// Whether its sandboxes are removed because it is revoked.
    pub kill: bool,
    /// What may be shown of its newest text.
    pub mask: Mask,
    pub(super) used: LastUse,
}

/// The time at which a key was used last, in seconds since 1970; 0 if it has not been.
#[derive(Debug, Clone, Default)]
pub(super) struct LastUse(Arc<AtomicU64>);

impl LastUse {
    pub(super) fn set(&self, now: SystemTime) {
        self.0.store(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(), Ordering::Relaxed);
    }
}

impl Key {
    /// The identity of everybody while no key is needed.
    pub(super) fn anybody(profile: Profile) -> Self {
        Self {
            owner: Owner::ANYBODY,
            name: "anybody".to_owned(),
            source: Source::Environment,
            scopes: Scope::ORDINARY.to_vec(),
            profile,
            allowance: Arc::default(),
            created: None,
            expires: None,
            revoked: None,
            kill: false,
            mask: Mask::default(),
            used: LastUse::default(),
        }
    }

    /// Returns whether the key is neither revoked nor has expired.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|expires| now < expires)
    }

    /// Returns whether the key has one of these scopes. No scope is needed if there are none.
    pub fn has_one_of(&self, scopes: &[Scope]) -> bool {
        scopes.is_empty() || scopes.iter().any(|scope| self.scopes.contains(scope))
    }

    /// Returns when the key was used last, since the server was started.
    pub fn last_used(&self) -> Option<SystemTime> {
        let seconds = self.used.0.load(Ordering::Relaxed);
        (seconds > 0).then(|| UNIX_EPOCH + Duration::from_secs(seconds))
    }
}
