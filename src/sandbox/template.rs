//! Named recipes: which image and language, under which limits.

use serde::{Deserialize, Serialize};

use crate::engine::{Network, Spec, Target, targets};
use crate::protocol::Limits;

/// A named recipe for sandboxes, as `config/templates/NAME.toml` gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// What requests call it: the name of its file, unless that says otherwise.
    #[serde(default)]
    pub name: String,
    /// The name of its file, which is also how environment variables mean it.
    #[serde(skip)]
    pub file: String,
    /// Other names for it.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Endings of files that hold its language, without the dot.
    #[serde(default)]
    pub extensions: Vec<String>,
    /// The image.
    pub image: String,
    /// The language whose interpreter waits in its sandboxes, as the image's `language.json` calls it; none if empty.
    #[serde(default)]
    pub language: String,
    /// Languages that have a context from the start too, whose interpreter starts with its first execution.
    #[serde(default)]
    pub lazy_languages: Vec<String>,
    /// Whether single runs may ask for it by name. One that is only for kept sandboxes says no.
    #[serde(default = "yes")]
    pub runs: bool,
    /// How many sandboxes wait, ready, for requests.
    pub warm: usize,
    /// What sandboxes can reach.
    pub network: NetworkKind,
    /// What they reach where that is an allowlist.
    #[serde(default, deserialize_with = "targets")]
    pub allow: Vec<Target>,
    /// Memory, bytes; there is no swap, and files count.
    pub memory_bytes: u64,
    /// Processor time, thousandths of a core.
    pub cpu_millis: u64,
    /// Processes and threads at once.
    pub processes: u64,
    /// Room in each writable directory, bytes; in all of them together where the whole file system is writable.
    pub disk_bytes: u64,
    /// Whether the whole file system is writable, on the engine's disk. Otherwise the user's directories are, in memory.
    #[serde(default)]
    pub writable_root: bool,
    /// Whether the client, and code by `sudo`, may act as root inside. Otherwise only commands that the client names root for.
    #[serde(default)]
    pub superuser: bool,
    /// Open files of one process.
    pub open_files: u64,
    /// Wall time of a run that does not ask for another, milliseconds.
    pub timeout_ms: u64,
    /// The most wall time that a run may ask for, milliseconds.
    pub max_timeout_ms: u64,
    /// Output of a run, bytes.
    pub output_bytes: u64,
    /// The OCI runtime, if not the engine's default.
    #[serde(default)]
    pub oci_runtime: Option<String>,
}

/// What can be said of a network in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkKind {
    /// The internet and DNS.
    Full,
    /// What [`Template::allow`] names.
    Allowlist,
    /// Nothing.
    None,
}

impl Template {
    /// What its sandboxes can reach.
    pub fn network(&self) -> Network {
        match self.network {
            NetworkKind::Full => Network::full(),
            NetworkKind::Allowlist => Network::Allowlist(self.allow.clone()),
            NetworkKind::None => Network::None,
        }
    }

    /// What its containers are started with.
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

    /// What its runs are limited to.
    pub fn limits(&self) -> Limits {
        Limits {
            timeout_ms: self.timeout_ms,
            memory_bytes: self.memory_bytes,
            processes: self.processes,
            disk_bytes: self.disk_bytes,
            output_bytes: self.output_bytes,
        }
    }

    /// Whether a request may mean it by `name`.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }

    /// # Errors
    ///
    /// The key and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let least = [
            // Less than this, and no interpreter starts (Docker itself asks for 6 MiB).
            ("memory_bytes", self.memory_bytes, 64 << 20),
            ("cpu_millis", self.cpu_millis, 10),
            ("processes", self.processes, 16),
            ("disk_bytes", self.disk_bytes, 1 << 20),
            ("open_files", self.open_files, 64),
            ("timeout_ms", self.timeout_ms, 1),
            ("max_timeout_ms", self.max_timeout_ms, self.timeout_ms),
            ("output_bytes", self.output_bytes, 1024),
        ];
        for (key, value, least) in least {
            if value < least {
                return Err(format!("{key} must be at least {least}, not {value}"));
            }
        }
        for (key, value) in [("image", &self.image), ("name", &self.name)] {
            if value.is_empty() {
                return Err(format!("{key} must not be empty"));
            }
        }
        match (self.network, self.allow.is_empty()) {
            (NetworkKind::Allowlist, true) => {
                return Err("network = \"allowlist\" needs an allow that is not empty".to_owned());
            }
            (NetworkKind::Full | NetworkKind::None, false) => {
                return Err("allow is for network = \"allowlist\" only".to_owned());
            }
            _ => {}
        }
        if self.runs && self.language.is_empty() {
            return Err("language must not be empty where runs is true".to_owned());
        }
        Ok(())
    }
}

fn yes() -> bool {
    true
}
