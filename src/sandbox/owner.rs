//! The owner of a sandbox.

use std::fmt;

use sha2::{Digest, Sha256};

/// The owner of a sandbox: a stable id of an API key. It does not depend on other keys, and survives restarts.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner(pub(super) [u8; 8]);

impl Owner {
    /// The owner of all sandboxes if no API key is configured.
    pub const ANYBODY: Self = Self([0; 8]);

    /// The owner of an API key's sandboxes. The key cannot be derived from it.
    pub fn of_key(key: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(key));
        Self([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({:016x})", u64::from_be_bytes(self.0))
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
        assert_eq!(format!("{:?}", Owner::of_key("first-key")), "Owner(9e24b55356ef2a12)");
    }
}
