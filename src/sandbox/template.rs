//! Templates: named recipes for sandboxes, with image, language and limits.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::engine::{Network, Spec, Target, targets};
use crate::protocol::Limits;

/// A named recipe for sandboxes, read from `config/templates/NAME.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// The name in requests: the name of the template's file, unless the file sets another one.
    #[serde(default)]
    pub name: String,
    /// The name of its file, by which environment variables refer to it.
    #[serde(skip)]
    pub file: String,
    /// Other names for it.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// File extensions of its language, without the dot.
    #[serde(default)]
    pub extensions: Vec<String>,
    /// The image.
    pub image: String,
    /// The language whose interpreter is started with each sandbox, as named in the image's `language.json`; none if
    /// empty.
    #[serde(default)]
    pub language: String,
    /// More languages with a context from the start. Their interpreters start at the first execution.
    #[serde(default)]
    pub lazy_languages: Vec<String>,
    /// Whether single runs can use it; false for a template that is only for kept sandboxes.
    #[serde(default = "yes")]
    pub runs: bool,
    /// The number of warm sandboxes.
    pub warm: usize,
    /// The kind of network that sandboxes have.
    pub network: NetworkKind,
    /// The networks and hosts that sandboxes can reach if `network` is an allowlist.
    #[serde(default, deserialize_with = "targets")]
    pub allow: Vec<Target>,
    /// Memory, bytes. There is no swap, and files in memory count.
    pub memory_bytes: u64,
    /// Processor time, thousandths of a core.
    pub cpu_millis: u64,
    /// The most processes and threads at once.
    pub processes: u64,
    /// Room in each writable directory, bytes; for the whole file system if that is writable.
    pub disk_bytes: u64,
    /// Whether the whole file system is writable, on the engine's disk. Otherwise only the user's directories are, in
    /// memory.
    #[serde(default)]
    pub writable_root: bool,
    /// Whether the client, and code through `sudo`, may act as root inside. Otherwise only commands that the client
    /// starts as root may.
    #[serde(default)]
    pub superuser: bool,
    /// The most open files of one process.
    pub open_files: u64,
    /// The default wall time of a run, milliseconds.
    pub timeout_ms: u64,
    /// The most wall time that a run can request, milliseconds.
    pub max_timeout_ms: u64,
    /// The most output of a run, bytes.
    pub output_bytes: u64,
    /// The OCI runtime, if not the engine's default.
    #[serde(default)]
    pub oci_runtime: Option<String>,
}

/// The kind of a template's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkKind {
    /// The internet and DNS.
    Full,
    /// The networks and hosts in [`Template::allow`].
    Allowlist,
    /// Nothing.
    None,
}

impl NetworkKind {
    /// How much it reaches: more than every kind for which this is less.
    pub(super) fn reach(self) -> u8 {
        match self {
            Self::Full => 2,
            Self::Allowlist => 1,
            Self::None => 0,
        }
    }
}

impl fmt::Display for NetworkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Allowlist => "allowlist",
            Self::None => "none",
        })
    }
}

impl Template {
    /// The network of its sandboxes.
    pub fn network(&self) -> Network {
        match self.network {
            NetworkKind::Full => Network::full(),
            NetworkKind::Allowlist => Network::Allowlist(self.allow.clone()),
            NetworkKind::None => Network::None,
        }
    }

    /// The spec of its containers.
    pub fn spec(&self) -> Spec {
        Spec {
            image: self.image.clone(),
            memory_bytes: self.memory_bytes,
            cpu_millis: self.cpu_millis,
            processes: self.processes,
            disk_bytes: self.disk_bytes,
            writable_root: self.writable_root,
            superuser: self.superuser,
            open_files: self.open_files,
            network: self.network(),
            oci_runtime: self.oci_runtime.clone(),
        }
    }

    /// The default limits of its runs.
    pub fn limits(&self) -> Limits {
        Limits {
            timeout_ms: self.timeout_ms,
            memory_bytes: self.memory_bytes,
            processes: self.processes,
            disk_bytes: self.disk_bytes,
            output_bytes: self.output_bytes,
        }
    }

    /// Whether `name` is its name or one of its aliases.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }

    /// Checks the values.
    ///
    /// # Errors
    ///
    /// The first value that cannot be used.
    pub fn check(&self) -> Result<(), TemplateError> {
        let minimums = [
            // With less memory than this no interpreter starts (Docker's own minimum is 6 MiB).
            ("memory_bytes", self.memory_bytes, 64 << 20),
            ("cpu_millis", self.cpu_millis, 10),
            ("processes", self.processes, 16),
            ("disk_bytes", self.disk_bytes, 1 << 20),
            ("open_files", self.open_files, 64),
            ("timeout_ms", self.timeout_ms, 1),
            ("max_timeout_ms", self.max_timeout_ms, self.timeout_ms),
            ("output_bytes", self.output_bytes, 1024),
        ];
        for (key, value, minimum) in minimums {
            if value < minimum {
                return Err(TemplateError::TooSmall { key, value, minimum });
            }
        }
        for (key, value) in [("image", &self.image), ("name", &self.name)] {
            if value.is_empty() {
                return Err(TemplateError::Empty(key));
            }
        }
        match (self.network, self.allow.is_empty()) {
            (NetworkKind::Allowlist, true) => return Err(TemplateError::NothingAllowed),
            (NetworkKind::Full | NetworkKind::None, false) => return Err(TemplateError::AllowUnused),
            _ => {}
        }
        if self.runs && self.language.is_empty() {
            return Err(TemplateError::NoLanguage);
        }
        Ok(())
    }
}

/// A value of a template that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// A number is too small.
    #[error("{key} must be at least {minimum}, not {value}")]
    TooSmall {
        /// The key.
        key: &'static str,
        /// Its value.
        value: u64,
        /// The smallest value that it may have.
        minimum: u64,
    },
    /// The value of this key is empty.
    #[error("{0} must not be empty")]
    Empty(&'static str),
    /// An allowlist has no entry.
    #[error("network = \"allowlist\" needs at least one entry in allow")]
    NothingAllowed,
    /// There are entries of an allowlist, and the network is another one.
    #[error("allow is for network = \"allowlist\" only")]
    AllowUnused,
    /// Single runs need a language.
    #[error("language must not be empty where runs is true")]
    NoLanguage,
}

impl TemplateError {
    /// The key whose value cannot be used.
    pub fn key(&self) -> &'static str {
        match self {
            Self::TooSmall { key, .. } | Self::Empty(key) => key,
            Self::NothingAllowed => "network",
            Self::AllowUnused => "allow",
            Self::NoLanguage => "language",
        }
    }
}

fn yes() -> bool {
    true
}
