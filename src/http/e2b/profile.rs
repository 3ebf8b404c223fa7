//! Which client an API key is for, where clients of E2B need different answers.

use serde::Deserialize;

/// The client that an API key is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Any that knows E2B.
    #[default]
    E2b,
    /// Letta's server. `docs/letta.md` describes what is different.
    Letta,
}
