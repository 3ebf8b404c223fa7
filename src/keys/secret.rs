//! The text of a key, which only its holder has, and what is kept of it: a hash and a mask.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use thiserror::Error;

/// What every key that is made here begins with. Some SDKs refuse any other form before they send it.
const PREFIX: &str = "e2b_";

/// The number of hexadecimal digits that follow.
const DIGITS: usize = 40;

const HASH_PREFIX: &str = "$sha256$";

/// Returns a new key: `e2b_` and 40 hexadecimal digits, which are 160 random bits.
pub fn new_key() -> String {
    let bytes: [u8; DIGITS / 2] = rand::random();
    bytes.iter().fold(PREFIX.to_owned(), |key, byte| format!("{key}{byte:02x}"))
}

/// Returns the random bytes of a key that has the form of [`new_key`].
fn bytes(key: &str) -> Option<Vec<u8>> {
    let digits = key.strip_prefix(PREFIX).filter(|digits| digits.len() == DIGITS)?;
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    digits.as_bytes().chunks(2).map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?)).collect()
}

/// The SHA-256 of a key. It needs no salt, and no function that takes long: nobody can try all keys of 160 random bits.
/// It is written as E2B writes it: `$sha256$` and Base64 without padding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Hash([u8; 32]);

impl Hash {
    /// Returns the hash of a key that has the form of [`new_key`]: that of its bytes.
    pub(super) fn of_key(key: &str) -> Option<Self> {
        bytes(key).map(|bytes| Self(Sha256::digest(bytes).into()))
    }

    /// Returns the hash of any text.
    pub(super) fn of_text(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HASH_PREFIX}{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    /// Writes enough to recognise the hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HASH_PREFIX}{}…", &STANDARD_NO_PAD.encode(self.0)[..6])
    }
}

/// A text is not the hash of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a hash is `{HASH_PREFIX}` and 43 characters of Base64, as `oncebox keys add` writes it")]
pub(super) struct ParseHashError;

impl FromStr for Hash {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Self, ParseHashError> {
        let base64 = text.strip_prefix(HASH_PREFIX).ok_or(ParseHashError)?;
        let bytes = STANDARD_NO_PAD.decode(base64).map_err(|_| ParseHashError)?;
        bytes.try_into().map(Self).map_err(|_| ParseHashError)
    }
}

impl TryFrom<String> for Hash {
    type Error = ParseHashError;

    fn try_from(text: String) -> Result<Self, ParseHashError> {
        text.parse()
    }
}

/// The parts of a key by which a person recognises it. It is written as `e2b_12...3456`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mask {
    /// The part that many keys share.
    pub prefix: String,
    /// The number of characters after it.
    pub length: usize,
    /// The first of these characters.
    pub first: String,
    /// The last of these characters.
    pub last: String,
}

impl Mask {
    /// Returns the mask of a key. Of one that has not the form of [`new_key`], it shows nothing: it may be short.
    pub(super) fn of(key: &str) -> Self {
        match key.strip_prefix(PREFIX) {
            Some(digits) if bytes(key).is_some() => Self::new(&digits[..2], &digits[DIGITS - 4..]),
            _ => Self { prefix: String::new(), length: key.len(), first: String::new(), last: String::new() },
        }
    }

    fn new(first: &str, last: &str) -> Self {
        Self { prefix: PREFIX.to_owned(), length: DIGITS, first: first.to_owned(), last: last.to_owned() }
    }
}

impl Default for Mask {
    /// The mask of a key of which nothing is known but its form.
    fn default() -> Self {
        Self::new("", "")
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}...{}", self.prefix, self.first, self.last)
    }
}

/// A text is not the mask of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a mask shows at most 2 digits at the start and 4 at the end of a key, such as `e2b_12...3456`")]
pub struct ParseMaskError;

impl TryFrom<String> for Mask {
    type Error = ParseMaskError;

    fn try_from(text: String) -> Result<Self, ParseMaskError> {
        let (first, last) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once("...")).ok_or(ParseMaskError)?;
        let is_part = |part: &str, most: usize| part.len() <= most && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        // More of it may be the key itself.
        if is_part(first, 2) && is_part(last, 4) { Ok(Self::new(first, last)) } else { Err(ParseMaskError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "e2b_00112233445566778899aabbccddeeff01234567";

    #[test]
    fn a_new_key_has_the_form_that_sdks_accept() {
        let key = new_key();
        assert!(bytes(&key).is_some_and(|bytes| bytes.len() == 20), "{key}");
        assert_ne!(key, new_key());
        for other in ["", "e2b_", &KEY[1..], &KEY[..43], &format!("{KEY}8"), &KEY.to_uppercase(), "e2b_é"] {
            assert_eq!(bytes(other), None, "{other}");
        }
    }

    #[test]
    fn a_hash_is_that_of_the_bytes_and_is_read_as_it_is_written() {
        let hash = Hash::of_key(KEY).expect("a hash");
        // `printf 00112233445566778899aabbccddeeff01234567 | xxd -r -p | openssl dgst -sha256 -binary | base64`, without the padding
        assert_eq!(hash.to_string(), "$sha256$Kxvu6rCxuSeFL4DNapjLmL2RKOdWhSHrJvp/neBHWsY");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_ne!(Hash::of_text(KEY), hash);
        for other in ["", "$sha256$", &hash.to_string()[8..], &format!("{hash}="), &hash.to_string()[..50]] {
            assert_eq!(other.parse::<Hash>(), Err(ParseHashError), "{other}");
        }
        assert!(!format!("{hash:?}").contains(&hash.to_string()), "it is not shown whole");
    }

    #[test]
    fn a_mask_shows_little_of_a_key() {
        let mask = Mask::of(KEY);
        assert_eq!(mask.to_string(), "e2b_00...4567");
        assert_eq!(Mask::try_from(mask.to_string()), Ok(mask));
        assert_eq!(Mask::of("short-key").to_string(), "...");
        for other in ["", "e2b_0011...4567", "e2b_00...45678", KEY, "00...4567"] {
            assert_eq!(Mask::try_from(other.to_owned()), Err(ParseMaskError), "{other}");
        }
    }
}
