//! The format of `keys.toml`, and its checks. `docs/keys.md` describes it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use thiserror::Error;
use toml_edit::{Datetime, ImDocument, Item, de};

use super::key::{Key, LastUse, Source};
use super::profile::Profile;
use super::scope::Scope;
use super::secret::{Hash, Mask};
use super::times;
use crate::sandbox::{Allowance, NetworkKind, Owner, OwnerLimits};

/// The longest name of a key, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// What the names of keys from the environment begin with.
pub(super) const ENVIRONMENT_NAME: &str = "env-";

/// A mistake in the file: where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct FormatError {
    line: Option<usize>,
    field: String,
    reason: String,
}

impl FormatError {
    /// The field, without the key that it belongs to, and what is wrong with it.
    pub(super) fn field(&self) -> (&str, &str) {
        (self.field.rsplit('.').next().unwrap_or_default(), &self.reason)
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.reason)
    }
}

/// A key of the file, with its hashes.
#[derive(Debug, Clone)]
pub(super) struct FileKey {
    pub(super) key: Key,
    pub(super) hashes: Vec<Secret>,
}

/// A hash of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Secret {
    pub(super) hash: Hash,
    /// The time from which it is not valid any longer; `None` if it has no end.
    pub(super) until: Option<SystemTime>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    key: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: Owner,
    name: String,
    hashes: Vec<HashEntry>,
    scopes: Vec<Scope>,
    profile: Option<Profile>,
    #[serde(default)]
    templates: Vec<String>,
    network: Option<NetworkKind>,
    #[serde(default)]
    limits: OwnerLimits,
    #[serde(default)]
    mask: Mask,
    created: Option<Datetime>,
    expires: Option<Datetime>,
    revoked: Option<Datetime>,
    #[serde(default)]
    kill: bool,
}

/// A hash, or `{ hash = "…", until = … }`.
#[derive(Debug)]
struct HashEntry {
    hash: Hash,
    until: Option<Datetime>,
}

impl<'de> Deserialize<'de> for HashEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Until {
            hash: Hash,
            until: Datetime,
        }

        struct Either;

        // An untagged enum would forget why neither form fits.
        impl<'de> Visitor<'de> for Either {
            type Value = HashEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a hash or { hash = …, until = … }")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<HashEntry, E> {
                Ok(HashEntry { hash: text.parse().map_err(E::custom)?, until: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HashEntry, A::Error> {
                let Until { hash, until } = Until::deserialize(MapAccessDeserializer::new(map))?;
                Ok(HashEntry { hash, until: Some(until) })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Reads the keys of a file. Keys that name no profile have `profile`.
///
/// # Errors
///
/// The first mistake.
pub(super) fn read(text: &str, profile: Profile) -> Result<Vec<FileKey>, FormatError> {
    let deserializer = de::Deserializer::parse(text).map_err(|err| read_error(text, String::new(), &err))?;
    let file: File = serde_path_to_error::deserialize(deserializer).map_err(|err| {
        let path = err.path().to_string();
        read_error(text, if path == "." { String::new() } else { path }, err.inner())
    })?;
    let mut keys = Vec::new();
    for (index, entry) in file.key.into_iter().enumerate() {
        let key = convert(entry, profile).map_err(|mistake| mistake.at(text, index))?;
        keys.push(key);
    }
    check_unique(&keys).map_err(|(index, mistake)| mistake.at(text, index))?;
    Ok(keys)
}

fn read_error(text: &str, field: String, err: &de::Error) -> FormatError {
    FormatError {
        line: err.span().map(|span| line(text, &span)),
        field,
        reason: err.message().trim().replace('\n', ", "),
    }
}

/// A mistake in a field of a key.
#[derive(Debug)]
pub(super) struct Mistake {
    field: &'static str,
    reason: String,
}

impl Mistake {
    pub(super) fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field, reason: reason.into() }
    }

    /// Finds the line of the mistake in the key at `index`.
    pub(super) fn at(self, text: &str, index: usize) -> FormatError {
        let Self { field, reason } = self;
        let document = ImDocument::parse(text).ok();
        let key = document.as_ref().and_then(|document| document.get("key")?.get(index));
        let span = key.and_then(|key| key.get(field).and_then(Item::span).or_else(|| key.span()));
        FormatError { line: span.map(|span| line(text, &span)), field: format!("key[{index}].{field}"), reason }
    }
}

/// The line in which a part of the text begins, from 1.
fn line(text: &str, span: &Range<usize>) -> usize {
    text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1
}

fn convert(entry: Entry, profile: Profile) -> Result<FileKey, Mistake> {
    check_name(&entry.name)?;
    if entry.scopes.is_empty() {
        return Err(Mistake::new("scopes", "must name at least one scope"));
    }
    let mut hashes = Vec::new();
    for HashEntry { hash, until } in entry.hashes {
        hashes.push(Secret { hash, until: time("hashes", until)? });
    }
    if hashes.iter().all(|secret| secret.until.is_some()) {
        return Err(Mistake::new("hashes", "must have a hash without `until`"));
    }
    let revoked = time("revoked", entry.revoked)?;
    if entry.kill && revoked.is_none() {
        return Err(Mistake::new("kill", "is for a key with `revoked` only"));
    }
    let allowance = Allowance { templates: entry.templates, network: entry.network, limits: entry.limits };
    let key = Key {
        owner: entry.id,
        name: entry.name,
        source: Source::File,
        scopes: entry.scopes,
        profile: entry.profile.unwrap_or(profile),
        allowance: Arc::new(allowance),
        created: time("created", entry.created)?,
        expires: time("expires", entry.expires)?,
        revoked,
        kill: entry.kill,
        mask: entry.mask,
        used: LastUse::default(),
    };
    Ok(FileKey { key, hashes })
}

fn check_name(name: &str) -> Result<(), Mistake> {
    let reason = if name.trim() != name || name.is_empty() {
        "must not be empty, and neither begin nor end with a space".to_owned()
    } else if name.len() > MAX_NAME_BYTES {
        format!("must have at most {MAX_NAME_BYTES} bytes, not {}", name.len())
    } else if name.chars().any(char::is_control) {
        "must be one line, without control characters".to_owned()
    } else if name.starts_with(ENVIRONMENT_NAME) {
        format!("must not begin with `{ENVIRONMENT_NAME}`: such keys come from the environment")
    } else {
        return Ok(());
    };
    Err(Mistake::new("name", reason))
}

fn time(field: &'static str, time: Option<Datetime>) -> Result<Option<SystemTime>, Mistake> {
    let read = |time| times::read(&time).ok_or_else(|| Mistake::new(field, times::EXPECTED));
    time.map(read).transpose()
}

/// Checks that no two keys have one id or one hash, and that names tell valid keys apart. Returns the index of a key that
/// has what an earlier one has.
fn check_unique(keys: &[FileKey]) -> Result<(), (usize, Mistake)> {
    let (mut ids, mut names, mut hashes) = (HashMap::new(), HashSet::new(), HashMap::new());
    for (index, FileKey { key, hashes: own }) in keys.iter().enumerate() {
        let refuse = |field, other| {
            let reason = format!("is also that of the key `{other}`");
            Err((index, Mistake::new(field, reason)))
        };
        if let Some(other) = ids.insert(key.owner, &key.name) {
            return refuse("id", other);
        }
        // A revoked key stays in the file, so that its id is not used again. Its name is free.
        if key.revoked.is_none() && !names.insert(&key.name) {
            return refuse("name", &key.name);
        }
        for secret in own {
            if let Some(other) = hashes.insert(secret.hash, &key.name) {
                return refuse("hashes", other);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::secret::new_key;

    /// A file with two keys; the text of the first key is returned too.
    fn example() -> (String, String) {
        let (first, second) = (new_key(), new_key());
        let hash = |key: &str| Hash::of_key(key).expect("a hash");
        let text = format!(
            r#"# Comments stay.
[[key]]
id = "k_9f2c61d07be45a18"
name = "letta-prod"
hashes = ["{}", {{ hash = "{}", until = 2027-01-01T00:00:00Z }}]
scopes = ["run", "sandboxes"]
profile = "letta"
expires = 2027-06-30T00:00:00+02:00
templates = ["python", "code-interpreter-v1"]
network = "allowlist"
limits = {{ max_sandboxes = 4, max_kept_sandboxes = 8, max_starts_per_minute = 120, max_timeout_ms = 60000, cpu_seconds_per_day = 3600 }}

[[key]]
id = "k_0000000000000001"
name = "ci"
hashes = ["{}"]
scopes = ["metrics"]
"#,
            hash(&first),
            hash(&new_key()),
            hash(&second),
        );
        (text, first)
    }

    #[test]
    fn every_field_is_read() {
        let (text, first) = example();
        let keys = read(&text, Profile::E2b).expect("a good file");
        let [letta, ci] = keys.as_slice() else { panic!("{keys:?}") };
        assert_eq!(letta.key.owner.to_string(), "k_9f2c61d07be45a18");
        assert_eq!((letta.key.name.as_str(), letta.key.profile), ("letta-prod", Profile::Letta));
        assert_eq!(letta.key.scopes, [Scope::Run, Scope::Sandboxes]);
        assert_eq!(letta.hashes.len(), 2);
        assert_eq!(letta.hashes[0], Secret { hash: Hash::of_key(&first).expect("a hash"), until: None });
        let at = |text: &str| Some(humantime::parse_rfc3339(text).expect("a time"));
        assert_eq!(letta.hashes[1].until, at("2027-01-01T00:00:00Z"));
        assert_eq!(letta.key.expires, at("2027-06-29T22:00:00Z"));
        let allowance = &letta.key.allowance;
        assert_eq!(allowance.templates, ["python", "code-interpreter-v1"]);
        assert_eq!(allowance.network, Some(NetworkKind::Allowlist));
        let limits = serde_json::to_value(allowance.limits).expect("JSON");
        let expected = serde_json::json!({"max_sandboxes": 4, "max_kept_sandboxes": 8, "max_starts_per_minute": 120,
            "max_timeout_ms": 60000, "cpu_seconds_per_day": 3600});
        assert_eq!(limits, expected);
        assert_eq!((ci.key.profile, ci.key.expires, ci.key.revoked), (Profile::E2b, None, None));
        assert_eq!(*ci.key.allowance, Allowance::default());
        assert_eq!(read(&text, Profile::Letta).expect("a good file")[1].key.profile, Profile::Letta);
        assert!(read("# none yet\n", Profile::E2b).expect("a good file").is_empty());
    }

    #[test]
    fn a_mistake_is_named_with_its_line_and_field() {
        let (good, _) = example();
        let second = good.match_indices("[[key]]").nth(1).expect("two keys").0;
        for (old, new, line, field) in [
            ("name = \"letta-prod\"", "name = letta-prod", 4, ""),
            ("name = \"letta-prod\"", "nam = \"letta-prod\"", 4, "key[0].nam"),
            ("name = \"letta-prod\"", "name = \"\"", 4, "key[0].name"),
            ("name = \"letta-prod\"", "name = \"env-1\"", 4, "key[0].name"),
            ("name = \"letta-prod\"", "name = \"a\\nb\"", 4, "key[0].name"),
            ("name = \"letta-prod\"", "name = \"ci\"", 15, "key[1].name"),
            ("id = \"k_9f2c61d07be45a18\"", "id = \"9f2c61d07be45a18\"", 3, "key[0].id"),
            ("id = \"k_9f2c61d07be45a18\"", "id = \"k_0000000000000001\"", 14, "key[1].id"),
            ("\"run\", \"sandboxes\"", "\"run\", \"sandbox\"", 6, "key[0].scopes[1]"),
            ("[\"run\", \"sandboxes\"]", "[]", 6, "key[0].scopes"),
            ("\"letta\"\n", "\"letters\"\n", 7, "key[0].profile"),
            ("2027-06-30T00:00:00+02:00", "2027-06-30", 8, "key[0].expires"),
            ("2027-06-30T00:00:00+02:00", "2027-06-30T00:00:00", 8, "key[0].expires"),
            ("2027-06-30T00:00:00+02:00", "\"never\"", 8, "key[0].expires"),
            ("\"allowlist\"", "\"some\"", 10, "key[0].network"),
            ("max_sandboxes = 4", "max_sandboxes = 0", 11, "key[0].limits.max_sandboxes"),
            ("max_sandboxes = 4", "max_sandbox = 4", 11, "key[0].limits.max_sandbox"),
            ("$sha256$", "$sha512$", 5, "key[0].hashes[0]"),
            ("{ hash = \"$sha256$", "{ hash = \"$sha512$", 5, "key[0].hashes[1].hash"),
            (", until = 2027-01-01T00:00:00Z", "", 5, "key[0].hashes[1]"),
            ("scopes = [\"metrics\"]", "scopes = [\"metrics\"]\nkill = true", 18, "key[1].kill"),
            ("scopes = [\"metrics\"]", "", 13, "key[1]"),
        ] {
            let bad = good.replacen(old, new, 1);
            assert_ne!(bad, good, "{old}");
            let err = read(&bad, Profile::E2b).expect_err(new);
            assert_eq!((err.line, err.field.as_str()), (Some(line), field), "{new}: {err}");
            assert!(!err.reason.is_empty() && !err.to_string().contains('\n'), "{err}");
        }
        let hash = &good[good.find("$sha256$").expect("a hash")..][..51];
        let (before, after) = good.split_at(second);
        let again = after.replace(&after[after.find("$sha256$").expect("a hash")..][..51], hash);
        let err = read(&format!("{before}{again}"), Profile::E2b).expect_err("one hash twice");
        assert_eq!((err.line, err.field.as_str()), (Some(16), "key[1].hashes"));
        let only_until = good.replacen(&format!("\"{hash}\", "), "", 1);
        assert_eq!(read(&only_until, Profile::E2b).expect_err("no hash for ever").field, "key[0].hashes");
    }

    #[test]
    fn the_name_of_a_revoked_key_can_be_used_again_and_its_id_cannot() {
        let (good, _) = example();
        let revoked = good.replacen("profile = \"letta\"", "revoked = 2026-12-01T00:00:00Z\nkill = true", 1);
        let keys = read(&revoked.replace("name = \"ci\"", "name = \"letta-prod\""), Profile::E2b).expect("a good file");
        assert!(keys[0].key.kill && keys[0].key.revoked.is_some());
        let one_id = revoked.replace("k_0000000000000001", "k_9f2c61d07be45a18");
        assert_eq!(read(&one_id, Profile::E2b).expect_err("one id").field, "key[1].id");
    }
}
