//! Changes of `keys.toml`: by `oncebox keys`, and by a server whose clients may change keys. Comments, order and whatever
//! else a person has written stay.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, fchown, flock};
use serde_json::Value as Json;
use thiserror::Error;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value, value};

use super::format::{self, FileKey, FormatError};
use super::key::Key;
use super::profile::Profile;
use super::scope::Scope;
use super::secret::{Hash, Mask, new_key};
use super::times;
use crate::sandbox::{Allowance, Owner};

/// What a new file begins with.
const HEAD: &str =
    "# API keys: `oncebox keys` changes this file, and so may you (docs/keys.md). It has hashes of keys only.\n";

/// A file of keys that is to be changed.
#[derive(Debug, Clone)]
pub struct KeysFile {
    path: PathBuf,
}

/// A key that is to be added.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Its name.
    pub name: String,
    /// Its scopes.
    pub scopes: Vec<Scope>,
    /// Its profile; `None` for that of the configuration.
    pub profile: Option<Profile>,
    /// The time from which it is not valid any longer.
    pub expires: Option<SystemTime>,
    /// What it may have.
    pub allowance: Allowance,
}

impl NewKey {
    /// A key with the scopes that new keys have.
    pub fn named(name: impl Into<String>) -> Self {
        let scopes = Scope::OF_NEW_KEYS.to_vec();
        Self { name: name.into(), scopes, profile: None, expires: None, allowance: Allowance::default() }
    }
}

/// Why the file was not changed.
#[derive(Debug, Error)]
pub enum EditError {
    /// The file cannot be read or written.
    #[error("{}: cannot be changed", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file has a mistake, so it is not changed.
    #[error("{}: {mistake}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The mistake.
        mistake: FormatError,
    },
    /// A field of the changed key cannot be used.
    #[error("{field}: {reason}")]
    Field {
        /// The field.
        field: String,
        /// What is wrong.
        reason: String,
    },
    /// The keys are not written as tables, `[[key]]`.
    #[error("{}: write each key as a table, [[key]], so that it can be changed", .0.display())]
    Inline(PathBuf),
    /// There is a valid key of this name.
    #[error("there is a key `{0}` already")]
    Taken(String),
    /// There is no valid key of this name or id.
    #[error("there is no key `{name}` in {}", path.display())]
    Unknown {
        /// The name or id.
        name: String,
        /// The file.
        path: PathBuf,
    },
}

impl KeysFile {
    /// The file at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its place.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the keys, without what only a server can check.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or has a mistake.
    pub fn read(&self) -> Result<Vec<Key>, EditError> {
        let (text, _) = self.text()?;
        Ok(self.parse(&text)?.into_iter().map(|key| key.key).collect())
    }

    /// Adds a key. Returns its id and its text, which is nowhere else.
    ///
    /// # Errors
    ///
    /// When the file cannot be changed, or has such a key.
    pub fn add(&self, new: &NewKey) -> Result<(Owner, String), EditError> {
        self.edit(|tables, keys| {
            if find(keys, &new.name).is_some() {
                return Err(EditError::Taken(new.name.clone()));
            }
            let (owner, key) = (Owner::random(), new_key());
            tables.push(table(owner, &key, new));
            Ok((owner, key))
        })
    }

    /// Gives a key a new text and returns it. The texts that it has are valid for `overlap` longer.
    ///
    /// # Errors
    ///
    /// When the file cannot be changed, or has no such key.
    pub fn rotate(&self, name: &str, overlap: Duration) -> Result<String, EditError> {
        self.edit(|tables, keys| {
            let index = find(keys, name).ok_or_else(|| self.unknown(name))?;
            let (now, key) = (SystemTime::now(), new_key());
            let mut hashes = Array::new();
            hashes.push(hash_of(&key).to_string());
            for secret in &keys[index].hashes {
                let until = secret.until.map_or(now + overlap, |until| until.min(now + overlap));
                if until > now {
                    let mut old = InlineTable::new();
                    old.insert("hash", secret.hash.to_string().into());
                    old.insert("until", times::write(until).into());
                    hashes.push(old);
                }
            }
            let table = at(tables, index);
            set(table, "hashes", hashes);
            set(table, "mask", Mask::of(&key).to_string());
            Ok(key)
        })
    }

    /// Revokes a key. With `kill`, its sandboxes are removed too, also if it is revoked already.
    ///
    /// # Errors
    ///
    /// When the file cannot be changed, or has no such key.
    pub fn revoke(&self, name: &str, kill: bool) -> Result<(), EditError> {
        self.edit(|tables, keys| {
            let revoked = || keys.iter().rposition(|key| kill && is_called(key, name));
            let index = find(keys, name).or_else(revoked).ok_or_else(|| self.unknown(name))?;
            let table = at(tables, index);
            if keys[index].key.revoked.is_none() {
                set(table, "revoked", times::write(SystemTime::now()));
            }
            if kill {
                set(table, "kill", true);
            }
            Ok(())
        })
    }

    /// Gives a key another name.
    ///
    /// # Errors
    ///
    /// When the file cannot be changed, has no such key, or has one of the new name.
    pub fn rename(&self, name: &str, new: &str) -> Result<(), EditError> {
        self.edit(|tables, keys| {
            let index = find(keys, name).ok_or_else(|| self.unknown(name))?;
            if find(keys, new).is_some_and(|other| other != index) {
                return Err(EditError::Taken(new.to_owned()));
            }
            set(at(tables, index), "name", new);
            Ok(())
        })
    }

    fn unknown(&self, name: &str) -> EditError {
        EditError::Unknown { name: name.to_owned(), path: self.path.clone() }
    }

    /// Changes the file, while nobody else does.
    fn edit<T>(
        &self,
        change: impl FnOnce(&mut ArrayOfTables, &[FileKey]) -> Result<T, EditError>,
    ) -> Result<T, EditError> {
        // A link stays a link: the file that it leads to is replaced.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let lock = File::open(directory).map_err(|err| self.failed(err))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|err| self.failed(err.into()))?;
        let (text, exists) = self.text()?;
        let keys = self.parse(&text)?;
        // In a file without keys, comments would end up behind the first key.
        let (head, rest) = if keys.is_empty() { (text.as_str(), "") } else { ("", text.as_str()) };
        let mut document: DocumentMut = rest.parse().expect("it was parsed before");
        let tables = document.entry("key").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        let tables = tables.as_array_of_tables_mut().ok_or_else(|| EditError::Inline(self.path.clone()))?;
        let result = change(tables, &keys)?;
        let text = format!("{head}{document}");
        format::read(&text, Profile::default()).map_err(|mistake| {
            let (field, reason) = mistake.field();
            EditError::Field { field: field.to_owned(), reason: reason.to_owned() }
        })?;
        replace(&path, directory, &text, exists).map_err(|err| self.failed(err))?;
        Ok(result)
    }

    /// The text of the file, and whether the file exists.
    fn text(&self) -> Result<(String, bool), EditError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok((text, true)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok((HEAD.to_owned(), false)),
            Err(err) => Err(self.failed(err)),
        }
    }

    fn parse(&self, text: &str) -> Result<Vec<FileKey>, EditError> {
        format::read(text, Profile::default()).map_err(|mistake| EditError::Format { path: self.path.clone(), mistake })
    }

    fn failed(&self, source: io::Error) -> EditError {
        EditError::Io { path: self.path.clone(), source }
    }
}

/// Writes a new file beside the old one and renames it, so that a reader finds one or the other. The owner and the mode
/// of the old one stay.
fn replace(path: &Path, directory: &Path, text: &str, exists: bool) -> io::Result<()> {
    // Its mode is 0600.
    let mut new = tempfile::Builder::new().prefix(".keys").tempfile_in(directory)?;
    new.write_all(text.as_bytes())?;
    if exists {
        let (old, own) = (fs::metadata(path)?, new.as_file().metadata()?);
        if (old.uid(), old.gid()) != (own.uid(), own.gid()) {
            let (uid, gid) = (rustix::fs::Uid::from_raw(old.uid()), rustix::fs::Gid::from_raw(old.gid()));
            fchown(new.as_file(), Some(uid), Some(gid))?;
        }
        // Except that others cannot write, which the server would refuse.
        new.as_file().set_permissions(Permissions::from_mode(old.mode() & 0o755))?;
    }
    new.as_file().sync_all()?;
    new.persist(path)?;
    Ok(())
}

fn is_called(key: &FileKey, name: &str) -> bool {
    key.key.name == name || key.key.owner.to_string() == name
}

/// The index of the key with this name or id that is not revoked.
fn find(keys: &[FileKey], name: &str) -> Option<usize> {
    keys.iter().position(|key| key.key.revoked.is_none() && is_called(key, name))
}

fn at(tables: &mut ArrayOfTables, index: usize) -> &mut Table {
    tables.get_mut(index).expect("each key that was read is a table")
}

/// Sets a value. What a person has written around it stays.
fn set(table: &mut Table, name: &str, new: impl Into<Value>) {
    let mut new = new.into();
    match table.get_mut(name).and_then(Item::as_value_mut) {
        Some(old) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        None => drop(table.insert(name, value(new))),
    }
}

fn hash_of(key: &str) -> Hash {
    Hash::of_key(key).expect("a new key has the form of one")
}

fn table(owner: Owner, key: &str, new: &NewKey) -> Table {
    let mut table = Table::new();
    let list = |names: Vec<&str>| Array::from_iter(names);
    set(&mut table, "id", owner.to_string());
    set(&mut table, "name", new.name.as_str());
    set(&mut table, "hashes", Array::from_iter([hash_of(key).to_string()]));
    set(&mut table, "mask", Mask::of(key).to_string());
    set(&mut table, "created", times::write(SystemTime::now()));
    if let Some(expires) = new.expires {
        set(&mut table, "expires", times::write(expires));
    }
    set(&mut table, "scopes", list(new.scopes.iter().map(|scope| scope.name()).collect()));
    if let Some(Json::String(profile)) = new.profile.map(|profile| serde_json::json!(profile)) {
        set(&mut table, "profile", profile);
    }
    let Allowance { templates, network, limits } = &new.allowance;
    if !templates.is_empty() {
        set(&mut table, "templates", list(templates.iter().map(String::as_str).collect()));
    }
    if let Some(network) = network {
        set(&mut table, "network", network.to_string());
    }
    let Json::Object(limits) = serde_json::json!(limits) else { unreachable!("limits are an object") };
    let limits = limits.into_iter().filter_map(|(name, limit)| Some((name, limit.as_i64()?)));
    let limits = InlineTable::from_iter(limits);
    if !limits.is_empty() {
        set(&mut table, "limits", limits);
    }
    // An empty line before it.
    table.decor_mut().set_prefix("\n");
    table
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU64, NonZeroUsize};

    use super::*;
    use crate::sandbox::{NetworkKind, OwnerLimits};

    fn file() -> (tempfile::TempDir, KeysFile) {
        let directory = tempfile::tempdir().expect("a directory");
        let file = KeysFile::new(directory.path().join("keys.toml"));
        (directory, file)
    }

    fn text(file: &KeysFile) -> String {
        fs::read_to_string(file.path()).expect("a file")
    }

    fn mode(file: &KeysFile) -> u32 {
        fs::metadata(file.path()).expect("a file").mode() & 0o777
    }

    #[test]
    fn a_key_that_is_added_is_read_with_all_that_it_was_given() {
        let (_directory, file) = file();
        let limits = OwnerLimits {
            max_sandboxes: NonZeroUsize::new(4),
            cpu_seconds_per_day: NonZeroU64::new(3600),
            ..OwnerLimits::default()
        };
        let allowance =
            Allowance { templates: vec!["python".to_owned()], network: Some(NetworkKind::Allowlist), limits };
        // In whole seconds, as it is written.
        let expires = humantime::parse_rfc3339("2027-06-30T00:00:00Z").ok();
        let new = NewKey {
            scopes: vec![Scope::Sandboxes, Scope::Metrics],
            profile: Some(Profile::Letta),
            expires,
            allowance: allowance.clone(),
            ..NewKey::named("letta \"prod\"")
        };
        let (owner, key) = file.add(&new).expect("it is added");
        file.add(&NewKey::named("other")).expect("it is added");
        assert_eq!(mode(&file), 0o600);
        assert!(text(&file).starts_with(HEAD) && !text(&file).contains(&key[4..]), "{}", text(&file));
        let keys = file.read().expect("a good file");
        let [first, second] = keys.as_slice() else { panic!("{keys:?}") };
        assert_eq!((first.owner, first.name.as_str(), first.expires), (owner, "letta \"prod\"", expires));
        assert_eq!((&first.scopes, first.profile, &*first.allowance), (&new.scopes, Profile::Letta, &allowance));
        assert_eq!(first.mask, Mask::of(&key));
        assert!(first.created.is_some_and(|created| created <= SystemTime::now()));
        assert_eq!((second.scopes.as_slice(), second.expires), (&Scope::OF_NEW_KEYS[..], None));
        assert!(matches!(file.add(&NewKey::named("other")), Err(EditError::Taken(_))));
        assert!(matches!(file.add(&NewKey::named(owner.to_string())), Err(EditError::Taken(_))));
        let err = file.add(&NewKey::named("env-1")).expect_err("such a name is not accepted");
        assert!(matches!(&err, EditError::Field { field, .. } if field == "name"), "{err}");
        assert_eq!(file.read().expect("a good file").len(), 2);
    }

    #[test]
    fn what_a_person_has_written_stays() {
        let (_directory, file) = file();
        for name in ["first", "second"] {
            file.add(&NewKey::named(name)).expect("it is added");
        }
        let written = text(&file)
            .replace("[[key]]\nid", "# Of the team.\n[[key]] # one\nid")
            .replace("name = \"second\"", "# Its name.\nname   =  'second' # not the first");
        fs::write(file.path(), &written).expect("a file");
        file.rename("second", "third").expect("it is renamed");
        assert_eq!(text(&file), written.replace("'second'", "\"third\""));
        file.rotate("first", Duration::from_secs(60)).expect("it is rotated");
        file.revoke("third", true).expect("it is revoked");
        let now = text(&file);
        assert_eq!(now.matches("# Of the team.\n[[key]] # one\nid").count(), 2, "{now}");
        assert!(now.contains("# not the first") && now.starts_with(HEAD), "{now}");
    }

    #[test]
    fn a_rotation_keeps_the_texts_that_it_replaces_for_a_while() {
        let (_directory, file) = file();
        let (owner, first) = file.add(&NewKey::named("key")).expect("it is added");
        let hashes = || {
            let keys = format::read(&text(&file), Profile::E2b).expect("a good file");
            assert_eq!((keys.len(), keys[0].key.owner), (1, owner));
            keys[0].hashes.clone()
        };
        let began = SystemTime::now();
        let second = file.rotate("key", Duration::from_secs(3600)).expect("it is rotated");
        let [new, old] = hashes()[..] else { panic!("{:?}", hashes()) };
        assert_eq!((new.hash, new.until), (hash_of(&second), None));
        let left = old.until.expect("an end").duration_since(began).expect("it is later").as_secs();
        assert!(old.hash == hash_of(&first) && (3599..3700).contains(&left), "{left}");
        // A shorter overlap applies to all; a longer one does not give back what was to end.
        file.rotate(&owner.to_string(), Duration::from_secs(7200)).expect("it is rotated");
        let found = hashes();
        assert_eq!((found.len(), found[2]), (3, old));
        let last = file.rotate("key", Duration::ZERO).expect("it is rotated");
        assert_eq!(hashes(), [format::Secret { hash: hash_of(&last), until: None }]);
        assert_eq!(file.read().expect("a good file")[0].mask, Mask::of(&last));
    }

    #[test]
    fn a_revoked_key_stays_and_its_name_is_free() {
        let (_directory, file) = file();
        file.add(&NewKey::named("key")).expect("it is added");
        file.revoke("key", false).expect("it is revoked");
        assert!(matches!(file.revoke("key", false), Err(EditError::Unknown { .. })));
        assert!(matches!(file.rotate("key", Duration::ZERO), Err(EditError::Unknown { .. })));
        // Its sandboxes can still be killed.
        file.revoke("key", true).expect("it is changed");
        file.add(&NewKey::named("key")).expect("it is added");
        let keys = file.read().expect("a good file");
        assert_eq!(
            keys.iter().map(|key| (key.revoked.is_some(), key.kill)).collect::<Vec<_>>(),
            [(true, true), (false, false)]
        );
    }

    #[test]
    fn the_file_keeps_its_place_and_mode_and_a_bad_one_is_not_changed() {
        let (directory, file) = file();
        file.add(&NewKey::named("key")).expect("it is added");
        fs::set_permissions(file.path(), Permissions::from_mode(0o660)).expect("its mode");
        let link = directory.path().join("link.toml");
        std::os::unix::fs::symlink(file.path(), &link).expect("a link");
        KeysFile::new(&link).add(&NewKey::named("other")).expect("it is added");
        assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
        assert_eq!((file.read().expect("a good file").len(), mode(&file)), (2, 0o640));
        fs::write(file.path(), "[[key]]\nname = 1\n").expect("a file");
        assert!(matches!(file.add(&NewKey::named("third")), Err(EditError::Format { .. })));
        assert_eq!(text(&file), "[[key]]\nname = 1\n");
        let names: Vec<_> = fs::read_dir(directory.path()).expect("a directory").collect();
        assert_eq!(names.len(), 2, "nothing else is left: {names:?}");
    }
}
