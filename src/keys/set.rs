//! The keys that are there at one time, found by their texts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

use super::format::{FileKey, FormatError, Mistake, Secret};
use super::key::Key;
use super::secret::Hash;
use crate::sandbox::Owner;

/// A key from the environment, which may have any form.
#[derive(Debug, Clone)]
pub(super) struct EnvironmentKey {
    pub(super) key: Key,
    /// The hash of its text.
    pub(super) text: Hash,
    /// The hash of its bytes, by which a file would name it.
    pub(super) bytes: Option<Hash>,
}

/// Whose key a request has.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The key.
    pub key: Arc<Key>,
    /// Cancelled when the text that the request has is not valid any longer. What it began must end then.
    pub ended: CancellationToken,
}

/// One text of a key.
#[derive(Debug)]
struct Text {
    key: Arc<Key>,
    until: Option<SystemTime>,
    ended: CancellationToken,
}

impl Text {
    fn is_valid(&self, now: SystemTime) -> bool {
        self.key.is_valid(now) && self.until.is_none_or(|until| now < until)
    }
}

/// The keys that are there at one time. They are found by hashes, so the duration of a search reveals nothing of a key.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    /// First those of the environment, then those of the file, each in their order.
    keys: Vec<Arc<Key>>,
    by_owner: HashMap<Owner, Arc<Key>>,
    /// The texts of keys from the environment, by the hash of the text.
    environment: HashMap<Hash, Text>,
    /// The texts of keys in the file, by the hash of the bytes.
    file: HashMap<Hash, Text>,
}

impl KeySet {
    /// Returns the set of these keys. What began with a key of `before` goes on if the key is still valid.
    pub(super) fn new(environment: &[EnvironmentKey], file: Vec<FileKey>, before: &Self) -> Self {
        let mut set = Self::default();
        for EnvironmentKey { key, text, .. } in environment {
            let key = set.add(key.clone(), before);
            // Nothing that begins with it ends: the environment does not change.
            set.environment.insert(*text, Text { key, until: None, ended: CancellationToken::new() });
        }
        for FileKey { key, hashes } in file {
            let key = set.add(key, before);
            for Secret { hash, until } in hashes {
                let was_there = before.file.get(&hash).filter(|text| text.key.owner == key.owner);
                // An ended text that is valid again begins anew.
                let ended = was_there.map(|text| text.ended.clone()).filter(|ended| !ended.is_cancelled());
                set.file.insert(hash, Text { key: Arc::clone(&key), until, ended: ended.unwrap_or_default() });
            }
        }
        set
    }

    fn add(&mut self, mut key: Key, before: &Self) -> Arc<Key> {
        if let Some(before) = before.by_owner.get(&key.owner) {
            key.used = before.used.clone();
        }
        let key = Arc::new(key);
        self.keys.push(Arc::clone(&key));
        self.by_owner.insert(key.owner, Arc::clone(&key));
        key
    }

    /// All keys.
    pub(super) fn keys(&self) -> &[Arc<Key>] {
        &self.keys
    }

    /// The key of an owner.
    pub(super) fn by_owner(&self, owner: Owner) -> Option<&Arc<Key>> {
        self.by_owner.get(&owner)
    }

    /// Finds the valid key with this text.
    pub(super) fn find(&self, text: &str, now: SystemTime) -> Option<Identity> {
        let in_file = || self.file.get(&Hash::of_key(text)?);
        let found = self.environment.get(&Hash::of_text(text)).or_else(in_file)?;
        if !found.is_valid(now) {
            return None;
        }
        found.key.used.set(now);
        Some(Identity { key: Arc::clone(&found.key), ended: found.ended.clone() })
    }

    /// Ends what began with texts that are not valid any longer.
    pub(super) fn end_invalid(&self, now: SystemTime) {
        for text in self.file.values().filter(|text| !text.is_valid(now)) {
            text.ended.cancel();
        }
    }

    /// Ends what began with texts of this set that are not in `next`.
    pub(super) fn end_missing(&self, next: &Self) {
        for (hash, text) in &self.file {
            if next.file.get(hash).is_none_or(|next| next.key.owner != text.key.owner) {
                text.ended.cancel();
            }
        }
    }
}

/// Checks that no key of the file is one of the environment, and that its templates exist.
///
/// # Errors
///
/// The first mistake; `text` is that of the file.
pub(super) fn check(
    text: &str,
    file: &[FileKey],
    environment: &[EnvironmentKey],
    is_template: impl Fn(&str) -> bool,
) -> Result<(), FormatError> {
    for (index, FileKey { key, hashes }) in file.iter().enumerate() {
        let refuse = |field, reason: String| Err(Mistake::new(field, reason).at(text, index));
        for EnvironmentKey { key: other, bytes, .. } in environment {
            if key.owner == other.owner {
                return refuse("id", format!("is that of the key {} of the environment", other.name));
            }
            if hashes.iter().any(|secret| Some(secret.hash) == *bytes) {
                return refuse("hashes", format!("one is that of the key {} of the environment", other.name));
            }
        }
        if let Some(name) = key.allowance.templates.iter().find(|name| !is_template(name)) {
            return refuse("templates", format!("there is no template `{name}`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::keys::format;
    use crate::keys::profile::Profile;
    use crate::keys::secret::new_key;

    /// A time after which the times in these tests are written.
    fn now() -> SystemTime {
        humantime::parse_rfc3339("2026-12-01T00:00:00Z").expect("a time")
    }

    /// A key of the file; `rest` has more of its fields.
    fn entry(id: u64, hashes: &str, rest: &str) -> String {
        format!("[[key]]\nid = \"k_{id:016x}\"\nname = \"{id}\"\nhashes = [{hashes}]\nscopes = [\"run\"]\n{rest}\n")
    }

    fn quoted(key: &str) -> String {
        format!("\"{}\"", Hash::of_key(key).expect("a hash"))
    }

    fn set(entries: &[String], before: &KeySet) -> KeySet {
        let file = format::read(&entries.concat(), Profile::E2b).expect("a good file");
        let set = KeySet::new(&[], file, before);
        before.end_missing(&set);
        set.end_invalid(now());
        set
    }

    #[test]
    fn a_key_is_found_by_its_text_while_it_is_valid() {
        let [valid, expiring, revoked, rotated] = [(); 4].map(|()| new_key());
        let until = format!("{}, {{ hash = {}, until = 2026-12-01T01:00:00Z }}", quoted(&new_key()), quoted(&rotated));
        let set = set(
            &[
                entry(1, &quoted(&valid), ""),
                entry(2, &quoted(&expiring), "expires = 2026-12-01T01:00:00Z"),
                entry(3, &quoted(&revoked), "revoked = 2026-12-01T00:00:00Z"),
                entry(4, &until, ""),
            ],
            &KeySet::default(),
        );
        let find = |key: &str, now| set.find(key, now).map(|found| found.key.name.clone());
        let later = now() + Duration::from_secs(3600);
        let names = |now| [&valid, &expiring, &revoked, &rotated].map(|key| find(key, now));
        assert_eq!(names(now()).map(|name| name.is_some()), [true, true, false, true]);
        assert_eq!(names(later), [Some("1".to_owned()), None, None, None]);
        assert_eq!(find(&valid[4..], now()), None);
        assert_eq!(find(&valid.to_uppercase(), now()), None);
        assert_eq!(set.keys()[0].last_used(), Some(later));
        assert_eq!(set.keys()[2].last_used(), None);
    }

    #[test]
    fn what_began_with_a_text_ends_with_it_and_not_with_a_change_of_the_file() {
        let [stays, removed, revoked, replaced] = [(); 4].map(|()| new_key());
        let texts = [&stays, &removed, &revoked, &replaced];
        let entries: Vec<_> = (1..).zip(texts).map(|(id, key)| entry(id, &quoted(key), "")).collect();
        let first = set(&entries, &KeySet::default());
        let ended = texts.map(|key| first.find(key, now()).expect("it is valid").ended);
        let new = new_key();
        let second = set(
            &[
                entry(4, &quoted(&new), ""),
                entry(3, &quoted(&revoked), "revoked = 2026-12-01T00:00:00Z"),
                entry(1, &quoted(&stays), "expires = 2026-12-02T00:00:00Z"),
            ],
            &first,
        );
        assert_eq!(ended.each_ref().map(CancellationToken::is_cancelled), [false, true, true, true]);
        assert!(second.find(&new, now()).is_some());
        // The use is remembered, although the key has been read again.
        assert_eq!(second.keys()[2].last_used(), Some(now()));
        second.end_invalid(now() + Duration::from_secs(24 * 3600));
        assert!(ended[0].is_cancelled(), "it has expired");
        // It is valid again, and what begins now goes on.
        let third = set(&[entry(1, &quoted(&stays), "")], &second);
        assert!(!third.find(&stays, now()).expect("it is valid").ended.is_cancelled());
    }

    #[test]
    fn a_text_that_another_key_has_now_ends_what_it_began() {
        let key = new_key();
        let first = set(&[entry(1, &quoted(&key), "")], &KeySet::default());
        let ended = first.find(&key, now()).expect("it is valid").ended;
        let second = set(&[entry(2, &quoted(&key), "")], &first);
        assert!(ended.is_cancelled());
        assert_eq!(second.find(&key, now()).expect("it is valid").key.name, "2");
    }
}
