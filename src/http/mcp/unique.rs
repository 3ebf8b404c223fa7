//! The check that no object of a JSON text has a name twice.
//!
//! Of two values of one name, programs on the way may choose different ones, so such a text is refused, as it is by the
//! other APIs. rmcp keeps the last value.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::error::McpError;

/// Checks a JSON text.
pub(super) fn check(text: &[u8]) -> Result<(), McpError> {
    serde_json::from_slice::<Unique>(text).map(|Unique| ()).map_err(|err| McpError::not_json(&err))
}

/// Any value, of which nothing is kept.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Unique, A::Error> {
        while elements.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Unique, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if names.contains(&name) {
                return Err(A::Error::custom(format_args!("duplicate name `{name}`")));
            }
            names.insert(name);
            members.next_value::<Unique>()?;
        }
        Ok(Unique)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_occur_once_in_each_object() {
        for text in [r#"{"a": {"a": [{"b": 1}, {"b": -1.5e3}]}, "b": null}"#, "[true, \"\"]", "1"] {
            assert!(check(text.as_bytes()).is_ok(), "{text}");
        }
        for text in [r#"{"a": 1, "a": 1}"#, r#"{"a": [{"b": 1, "\u0062": 2}]}"#, "", "{", "{} {}", "\"\\ud800\""] {
            assert!(check(text.as_bytes()).is_err(), "{text}");
        }
    }
}
