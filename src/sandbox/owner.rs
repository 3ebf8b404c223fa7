//! The owner of a sandbox.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use thiserror::Error;

/// The owner of a sandbox: a stable id of an API key. It does not depend on other keys, and survives restarts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Owner(pub(super) [u8; 8]);

/// What the written form of an id begins with.
const PREFIX: &str = "k_";

impl Owner {
    /// The owner of all sandboxes if no API key is needed.
    pub const ANYBODY: Self = Self([0; 8]);

    /// The owner of the sandboxes of an API key that has no other id. The key cannot be derived from it.
    pub fn of_key(key: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(key));
        Self([a, b, c, d, e, f, g, h])
    }

    /// A new owner, whom nobody else is.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({self})")
    }
}

/// A text is not the id of an owner.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is no id: an id is `{PREFIX}` and 16 hexadecimal digits in lower case, not all of them 0")]
pub struct ParseOwnerError(String);

impl FromStr for Owner {
    type Err = ParseOwnerError;

    fn from_str(text: &str) -> Result<Self, ParseOwnerError> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        text.strip_prefix(PREFIX)
            .filter(|digits| digits.len() == 16 && digits.bytes().all(is_digit))
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .map(|id| Self(id.to_be_bytes()))
            .filter(|owner| *owner != Self::ANYBODY)
            .ok_or_else(|| ParseOwnerError(text.to_owned()))
    }
}

impl TryFrom<String> for Owner {
    type Error = ParseOwnerError;

    fn try_from(text: String) -> Result<Self, ParseOwnerError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_depends_on_the_key_and_does_not_reveal_it() {
        assert_eq!(Owner::of_key("first-key"), Owner::of_key("first-key"));
        assert_ne!(Owner::of_key("first-key"), Owner::of_key("second-key"));
        // The first 16 digits that `printf first-key | sha256sum` prints.
        assert_eq!(format!("{:?}", Owner::of_key("first-key")), "Owner(k_9e24b55356ef2a12)");
    }

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let owner = Owner::random();
        assert_eq!(owner.to_string().parse(), Ok(owner));
        for other in ["", "k_", "9e24b55356ef2a12", "k_9E24b55356ef2a12", "k_9e24b55356ef2a1", "k_0000000000000000"] {
            assert!(other.parse::<Owner>().is_err(), "{other}");
        }
    }
}
