//! Profiles: kinds of clients that need different responses.

use serde::{Deserialize, Serialize};

/// The client that an API key is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Any client of E2B.
    #[default]
    E2b,
    /// Letta's server. `docs/letta.md` describes the differences.
    Letta,
}
