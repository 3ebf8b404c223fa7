//! API keys: whose requests are accepted, what for, and within which limits.
//!
//! Keys come from variables of the environment, for which nothing but their text is known, and from a file, `keys.toml`,
//! which has hashes, scopes and limits (`format.rs`). The file is read again when it changes ([`follow`]).
//! `oncebox keys` and E2B's API change it ([`KeysFile`]).

mod edit;
mod format;
mod key;
mod profile;
mod scope;
mod secret;
mod set;
mod times;
mod watch;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::sandbox::{Owner, Sandboxes};
use format::FileKey;
use key::LastUse;
use set::{EnvironmentKey, KeySet};

pub use edit::{EditError, KeysFile, NewKey};
pub use format::FormatError;
pub use key::{Key, Source};
pub use profile::Profile;
pub use scope::{ParseScopeError, Scope};
pub use secret::{Mask, new_key};
pub use set::Identity;
pub use watch::follow;

/// The keys of the environment.
#[derive(Clone, Default)]
pub struct EnvironmentKeys {
    keys: Vec<EnvironmentKey>,
}

impl fmt::Debug for EnvironmentKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a list of keys in the environment cannot be used. No key is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EnvironmentKeyError {
    /// A key cannot be sent in a header, or is short enough to be guessed.
    #[error("must hold keys of at least 8 visible ASCII characters, with commas between them")]
    Weak,
    /// A key is in the set already.
    #[error("holds a key that is already configured")]
    Duplicate,
}

impl EnvironmentKeys {
    /// Adds the keys of one profile; `text` separates them by commas.
    ///
    /// # Errors
    ///
    /// If a key cannot be sent in a header, is short enough to be guessed, or is already in the set.
    pub fn with_keys(mut self, text: &str, profile: Profile) -> Result<Self, EnvironmentKeyError> {
        for key in text.split(',').map(str::trim).filter(|key| !key.is_empty()) {
            if key.len() < 8 || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(EnvironmentKeyError::Weak);
            }
            let hash = secret::Hash::of_text(key);
            if self.keys.iter().any(|other| other.text == hash) {
                return Err(EnvironmentKeyError::Duplicate);
            }
            self.keys.push(EnvironmentKey {
                key: Key {
                    owner: Owner::of_key(key),
                    name: format!("{}{}", format::ENVIRONMENT_NAME, self.keys.len() + 1),
                    created: Some(SystemTime::now()),
                    mask: Mask::of(key),
                    used: LastUse::default(),
                    ..Key::anybody(profile)
                },
                text: hash,
                bytes: secret::Hash::of_key(key),
            });
        }
        Ok(self)
    }
}

/// Where keys come from.
#[derive(Debug, Clone)]
pub struct KeysConfig {
    /// The keys of the environment.
    pub environment: EnvironmentKeys,
    /// The file of keys.
    pub path: PathBuf,
    /// Whether it must be there.
    pub must_exist: bool,
    /// The profile of requests while no key is needed, and of keys in the file that have none.
    pub profile: Profile,
    /// The names and aliases of all templates.
    pub templates: Vec<String>,
}

/// Why the file of keys cannot be used.
#[derive(Debug, Error)]
#[error("{}: {reason}", path.display())]
pub struct KeysError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: KeysErrorReason,
}

/// What is wrong with a file of keys.
#[derive(Debug, Error)]
pub enum KeysErrorReason {
    /// It cannot be read or written.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// Others than its owner may change it.
    #[error("users other than its owner may write to it (mode {mode:03o}), and so make keys: chmod 600")]
    Writable {
        /// Its mode.
        mode: u32,
    },
    /// It has a mistake.
    #[error("{0}")]
    Format(FormatError),
}

/// The keys of the server. A clone is another handle.
#[derive(Clone)]
pub struct Keys(Arc<Shared>);

struct Shared {
    config: KeysConfig,
    anybody: Identity,
    set: ArcSwap<KeySet>,
    /// Whether requests need a key. It never becomes false again: a file that loses its keys opens nothing.
    are_required: AtomicBool,
    file: Mutex<FileState>,
    applied: Mutex<Applied>,
}

/// What is known of the file.
#[derive(Debug, Default)]
struct FileState {
    /// The file as it was read last, whether or not it could be used.
    read: Option<Fingerprint>,
    /// The file as it was seen last.
    seen: Option<Fingerprint>,
}

/// What of the keys the sandboxes know already.
#[derive(Default)]
struct Applied {
    set: Arc<KeySet>,
    /// The owners whose keys are valid.
    valid: HashSet<Owner>,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Fingerprint {
    fn from(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What a look at the file has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// The file is as it was.
    Same,
    /// The file has changed since the last look, and may still be written.
    Changing,
    /// The file has been read again.
    Read,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Keys {
    /// Reads the keys.
    ///
    /// # Errors
    ///
    /// When the file cannot be used, or must exist and does not.
    pub fn open(config: KeysConfig) -> Result<Self, KeysError> {
        let keys = Self::without_file(config);
        keys.look(true)?;
        Ok(keys)
    }

    /// The keys of the environment alone. The file is read when it is looked at.
    pub fn without_file(config: KeysConfig) -> Self {
        let anybody = Identity { key: Arc::new(Key::anybody(config.profile)), ended: CancellationToken::new() };
        let set = KeySet::new(&config.environment.keys, Vec::new(), &KeySet::default());
        Self(Arc::new(Shared {
            anybody,
            set: ArcSwap::from_pointee(set),
            are_required: AtomicBool::new(!config.environment.keys.is_empty()),
            file: Mutex::default(),
            applied: Mutex::default(),
            config,
        }))
    }

    /// Returns whether requests need a key.
    pub fn are_required(&self) -> bool {
        self.0.are_required.load(Ordering::Relaxed)
    }

    /// Returns who a request without a key comes from; `None` if requests need a key.
    pub fn anybody(&self) -> Option<Identity> {
        (!self.are_required()).then(|| self.0.anybody.clone())
    }

    /// Finds the valid key with this text.
    pub fn find(&self, text: &str) -> Option<Identity> {
        self.0.set.load().find(text, SystemTime::now())
    }

    /// Returns the profile of an owner's key.
    pub fn profile(&self, owner: Owner) -> Profile {
        self.0.set.load().by_owner(owner).map_or(self.0.config.profile, |key| key.profile)
    }

    /// Returns whether an owner may use its sandboxes: whether its key is valid.
    pub fn is_valid(&self, owner: Owner) -> bool {
        if owner == Owner::ANYBODY {
            return !self.are_required();
        }
        self.0.set.load().by_owner(owner).is_some_and(|key| key.is_valid(SystemTime::now()))
    }

    /// Returns all keys, first those of the environment.
    pub fn all(&self) -> Vec<Arc<Key>> {
        self.0.set.load().keys().to_vec()
    }

    /// The file of keys.
    pub fn file(&self) -> KeysFile {
        KeysFile::new(&self.0.config.path)
    }

    /// The place of the file.
    fn path(&self) -> &Path {
        &self.0.config.path
    }

    /// Reads the file now, even if it has not changed, and applies the keys.
    ///
    /// # Errors
    ///
    /// When the file cannot be used. The keys stay as they were.
    pub fn reload(&self, sandboxes: &Sandboxes) -> Result<(), KeysError> {
        let looked = self.look(true);
        self.apply(sandboxes);
        looked.map(|_| ())
    }

    /// Gives sandboxes the limits of their owners, and ends what keys that are not valid any longer have begun.
    pub fn apply(&self, sandboxes: &Sandboxes) {
        let now = SystemTime::now();
        let mut applied = self.0.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let set = self.0.set.load_full();
        set.end_invalid(now);
        if !Arc::ptr_eq(&applied.set, &set) {
            let allowances = set.keys().iter().map(|key| (key.owner, Arc::clone(&key.allowance)));
            sandboxes.set_allowances(allowances.collect::<HashMap<_, _>>());
        }
        let anybody = (!self.are_required()).then_some(Owner::ANYBODY);
        let valid = set.keys().iter().filter(|key| key.is_valid(now)).map(|key| key.owner).chain(anybody);
        let valid: HashSet<_> = valid.collect();
        for owner in applied.valid.difference(&valid) {
            match applied.set.by_owner(*owner) {
                Some(key) => tracing::info!(key = key.name, "the key {owner} is not valid any longer"),
                None => tracing::info!("requests need a key from now on"),
            }
            sandboxes.cut_all_of(*owner);
        }
        // At each time: one that was just being created is there now.
        for key in set.keys().iter().filter(|key| key.kill && !valid.contains(&key.owner)) {
            let killed = sandboxes.kill_all_of(key.owner);
            if killed > 0 {
                tracing::info!(key = key.name, killed, "killed {killed} sandboxes of the key {}", key.owner);
            }
        }
        *applied = Applied { set, valid };
    }

    /// Looks at the file, and reads it if it has changed and is not being written, or if `at_once` is true. Until it can
    /// be used, the keys stay as they were.
    fn look(&self, at_once: bool) -> Result<Look, KeysError> {
        let path = &self.0.config.path;
        let fail = |reason| KeysError { path: path.clone(), reason };
        // To the end: of two looks at the same time, the one that began first could find less and finish last.
        let mut file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        let metadata = fs::metadata(path);
        let fingerprint = metadata.as_ref().ok().map(Fingerprint::from);
        let is_missing = metadata.as_ref().is_err_and(|err| err.kind() == io::ErrorKind::NotFound);
        if is_missing && file.read.is_none() && !self.0.config.must_exist {
            return Ok(Look::Same);
        }
        let is_settled = std::mem::replace(&mut file.seen, fingerprint) == fingerprint;
        if !at_once {
            if file.read == fingerprint {
                return Ok(Look::Same);
            }
            if !is_settled {
                return Ok(Look::Changing);
            }
        }
        file.read = fingerprint;
        // Also by a file that cannot be used: whoever put it there wants no open server.
        self.0.are_required.store(true, Ordering::Relaxed);
        let metadata = metadata.map_err(|err| fail(KeysErrorReason::Unreadable(err)))?;
        self.store(read_file(path, &metadata, &self.0.config).map_err(fail)?);
        Ok(Look::Read)
    }

    fn store(&self, file: Vec<FileKey>) {
        let before = self.0.set.load_full();
        let next = Arc::new(KeySet::new(&self.0.config.environment.keys, file, &before));
        self.0.set.store(Arc::clone(&next));
        before.end_missing(&next);
    }
}

fn read_file(path: &Path, metadata: &Metadata, config: &KeysConfig) -> Result<Vec<FileKey>, KeysErrorReason> {
    let mode = metadata.mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(KeysErrorReason::Writable { mode });
    }
    let text = fs::read_to_string(path).map_err(KeysErrorReason::Unreadable)?;
    let keys = format::read(&text, config.profile).map_err(KeysErrorReason::Format)?;
    let is_template = |name: &str| config.templates.iter().any(|template| template == name);
    set::check(&text, &keys, &config.environment.keys, is_template).map_err(KeysErrorReason::Format)?;
    Ok(keys)
}
