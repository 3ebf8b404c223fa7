//! Scopes: what a key is for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A part of the API that a key opens. Each dialect has a table of the scopes that its routes need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Single runs.
    Run,
    /// Kept sandboxes, and the list of templates that they are made from.
    Sandboxes,
    /// Changes of templates.
    Build,
    /// The state of the server.
    Metrics,
    /// The keys.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 5] = [Self::Run, Self::Sandboxes, Self::Build, Self::Metrics, Self::Admin];

    /// The scopes of keys that cannot be given others, and of everybody while no key is needed: all but
    /// [`Scope::Admin`], with which a key could make others.
    pub const ORDINARY: [Self; 4] = [Self::Run, Self::Sandboxes, Self::Build, Self::Metrics];

    /// The scopes of a new key for which none are named.
    pub const OF_NEW_KEYS: [Self; 2] = [Self::Run, Self::Sandboxes];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Sandboxes => "sandboxes",
            Self::Build => "build",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no scope of this name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no scope `{0}`, only run, sandboxes, build, metrics and admin")]
pub struct ParseScopeError(String);

impl FromStr for Scope {
    type Err = ParseScopeError;

    fn from_str(text: &str) -> Result<Self, ParseScopeError> {
        Self::ALL.into_iter().find(|scope| scope.name() == text).ok_or_else(|| ParseScopeError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_one_name_everywhere() {
        for scope in Scope::ALL {
            assert_eq!(scope.name().parse(), Ok(scope));
            assert_eq!(serde_json::to_value(scope).expect("a string"), scope.name());
        }
        let err = "sandbox".parse::<Scope>().expect_err("there is none").to_string();
        assert!(Scope::ALL.iter().all(|scope| err.contains(scope.name())), "{err}");
    }
}
