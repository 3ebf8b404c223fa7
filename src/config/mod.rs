//! The configuration: read once from `config/` and the environment, checked, and handed down in pieces.

mod sources;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::providers::Env;
use ipnet::Ipv4Net;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::audit::AuditTarget;
use crate::engine::{EngineConfig, EngineKind, UserIdRange, networks, user_ids};
use crate::http::{ClientTimeouts, HttpConfig, TlsConfig};
use crate::keys::{EnvironmentKeys, Keys as ApiKeys, KeysConfig, KeysError, Profile};
use crate::sandbox::{SandboxesConfig, Template};
use sources::{
    PREFIX, Source, TEMPLATE_PREFIX, environment_error, extract, key_error, server_figment, source_name,
    template_sources,
};

pub use sources::ConfigError;

/// The name of the file of keys beside `oncebox.toml`.
const KEYS_FILE: &str = "keys.toml";

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Readable text.
    Text,
    /// One JSON object per line.
    Json,
}

/// The keys of `config/oncebox.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    listen: SocketAddr,
    #[serde(deserialize_with = "empty_is_none")]
    tls_listen: Option<SocketAddr>,
    tls_certificate: String,
    tls_key: String,
    keys: String,
    audit_log: String,
    engine: EngineKind,
    owner: String,
    max_sandboxes: usize,
    max_kept_sandboxes: usize,
    max_sandboxes_per_key: usize,
    max_kept_sandboxes_per_key: usize,
    max_starts_per_minute_per_key: u32,
    max_queued: usize,
    queue_timeout_ms: u64,
    max_body_bytes: usize,
    head_timeout_ms: u64,
    stall_timeout_ms: u64,
    domain: String,
    debug_ports: bool,
    profile: Profile,
    drain_timeout_ms: u64,
    engine_timeout_ms: u64,
    launch_timeout_ms: u64,
    log_format: LogFormat,
    #[serde(deserialize_with = "networks")]
    allow_private: Vec<Ipv4Net>,
    #[serde(deserialize_with = "user_ids")]
    user_ids: Option<UserIdRange>,
}

/// Everything that can be configured.
#[derive(Debug, Clone)]
pub struct Config {
    /// The part for `http`.
    pub http: HttpConfig,
    /// The part for `sandbox`.
    pub sandboxes: SandboxesConfig,
    /// Where the audit log is written, if there is one.
    pub audit: Option<AuditTarget>,
    /// The part for `engine`.
    pub engine: EngineConfig,
    /// The templates, sorted by the names of their files.
    pub templates: Vec<Template>,
    /// The longest time that runs may continue after the server received a signal to stop.
    pub drain_timeout: Duration,
    /// The format of log lines.
    pub log_format: LogFormat,
}

impl Config {
    /// Reads the files of `directory`, or the built-in ones, and the environment variables that begin with `ONCEBOX_`. The
    /// file of keys is left out: it is a server's, and others may not be able to read it.
    ///
    /// # Errors
    ///
    /// The first unreadable file, unknown key or invalid value.
    pub fn read(directory: Option<&Path>) -> Result<Self, ConfigError> {
        Self::read_with(directory, false)
    }

    /// Reads the same and the file of keys, and checks that a server does not listen where anybody could run code.
    ///
    /// # Errors
    ///
    /// The first unreadable file, unknown key or invalid value.
    pub fn read_for_server(directory: Option<&Path>) -> Result<Self, ConfigError> {
        Self::read_with(directory, true)
    }

    fn read_with(directory: Option<&Path>, serves: bool) -> Result<Self, ConfigError> {
        let (figment, file) = server_figment(directory)?;
        let keys: Keys = extract(&figment, &file)?;
        check_keys(&keys).map_err(|err| key_error(&figment, err.key, err))?;

        let mut templates = Vec::new();
        for (name, source) in template_sources(directory)? {
            templates.push(read_template(&name, &source)?);
        }
        check_templates(&templates)?;
        check_variables(&templates)?;

        let mut environment = EnvironmentKeys::default();
        for (variable, profile) in [("ONCEBOX_API_KEYS", keys.profile), ("ONCEBOX_LETTA_API_KEYS", Profile::Letta)] {
            environment = environment
                .with_keys(&std::env::var(variable).unwrap_or_default(), profile)
                .map_err(|err| environment_error(format!("{variable} {err}")))?;
        }
        let names = templates.iter().flat_map(|template| std::iter::once(&template.name).chain(&template.aliases));
        let keys_config = KeysConfig {
            environment,
            path: keys_path(directory, &keys.keys),
            must_exist: !keys.keys.is_empty(),
            profile: keys.profile,
            templates: names.cloned().collect(),
        };
        let api_keys = if serves { ApiKeys::open(keys_config)? } else { ApiKeys::without_file(keys_config) };
        let check_listen_address = |key, address| match serves {
            true => check_listen_address(key, address, &api_keys).map_err(|err| key_error(&figment, err.key, err)),
            false => Ok(()),
        };
        check_listen_address("listen", keys.listen)?;
        // Host names are case-insensitive.
        let domain = keys.domain.to_ascii_lowercase();
        let tls = match keys.tls_listen {
            Some(listen) => {
                check_listen_address("tls_listen", listen)?;
                let tls = TlsConfig::read(listen, &keys.tls_certificate, &keys.tls_key, &domain);
                Some(tls.map_err(|err| key_error(&figment, err.key, err))?)
            }
            None => None,
        };
        let owner = if keys.owner.is_empty() { format!("port-{}", keys.listen.port()) } else { keys.owner };
        Ok(Self {
            http: HttpConfig {
                listen: keys.listen,
                api_keys,
                domain: Some(domain).filter(|domain| !domain.is_empty()),
                tls,
                debug_ports: keys.debug_ports,
                max_body_bytes: keys.max_body_bytes,
                timeouts: ClientTimeouts {
                    head: Duration::from_millis(keys.head_timeout_ms),
                    stall: Duration::from_millis(keys.stall_timeout_ms),
                },
            },
            sandboxes: SandboxesConfig {
                max_sandboxes: keys.max_sandboxes,
                max_sandboxes_per_key: zero_is_unlimited(keys.max_sandboxes_per_key),
                max_kept_sandboxes: keys.max_kept_sandboxes,
                max_kept_sandboxes_per_key: zero_is_unlimited(keys.max_kept_sandboxes_per_key),
                max_starts_per_minute_per_key: NonZeroU32::new(keys.max_starts_per_minute_per_key),
                max_queued: keys.max_queued,
                queue_timeout: Duration::from_millis(keys.queue_timeout_ms),
                launch_timeout: Duration::from_millis(keys.launch_timeout_ms),
            },
            audit: match keys.audit_log.as_str() {
                "" => None,
                "stderr" => Some(AuditTarget::Stderr),
                path => Some(AuditTarget::File(path.into())),
            },
            engine: EngineConfig {
                kind: keys.engine,
                owner,
                timeout: Duration::from_millis(keys.engine_timeout_ms),
                allow_private: keys.allow_private,
                user_ids: keys.user_ids,
            },
            templates,
            drain_timeout: Duration::from_millis(keys.drain_timeout_ms),
            log_format: keys.log_format,
        })
    }
}

impl Config {
    /// Returns the place of the file of keys, whatever else the configuration holds.
    ///
    /// # Errors
    ///
    /// When `oncebox.toml` cannot be read.
    pub fn keys_path(directory: Option<&Path>) -> Result<PathBuf, ConfigError> {
        let (figment, _) = server_figment(directory)?;
        let keys = figment.extract_inner::<String>("keys").map_err(|err| {
            let source_name = err.metadata.as_ref().map(source_name).unwrap_or_default();
            ConfigError { source_name, reason: format!("keys: {}", err.kind) }
        })?;
        Ok(keys_path(directory, &keys))
    }

    /// Returns the name and the processor limit of each template, in thousandths of a processor.
    pub fn template_cpu_millis(&self) -> Vec<(String, u64)> {
        self.templates.iter().map(|template| (template.name.clone(), template.cpu_millis)).collect()
    }
}

/// Returns the place of the file of keys: the configured one, or beside `oncebox.toml`.
fn keys_path(directory: Option<&Path>, configured: &str) -> PathBuf {
    match configured {
        "" => directory.unwrap_or(Path::new("")).join(KEYS_FILE),
        configured => PathBuf::from(configured),
    }
}

impl From<KeysError> for ConfigError {
    fn from(err: KeysError) -> Self {
        Self { source_name: err.path.display().to_string(), reason: err.reason.to_string() }
    }
}

fn read_template(stem: &str, source: &Source) -> Result<Template, ConfigError> {
    let variables = Env::prefixed(&format!("{PREFIX}{TEMPLATE_PREFIX}{}__", stem.to_uppercase()));
    let figment = source.figment().merge(variables);
    let mut template: Template = extract(&figment, &source.name)?;
    stem.clone_into(&mut template.file);
    if template.name.is_empty() {
        stem.clone_into(&mut template.name);
    }
    template.check().map_err(|err| key_error(&figment, err.key(), err))?;
    Ok(template)
}

/// Reads an address; an empty string is `None`.
fn empty_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| D::Error::custom(format!("`{text}` is not an address with a port")))
}

/// Converts a limit of 0 to "unlimited".
fn zero_is_unlimited(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}

/// A key of `oncebox.toml` whose value cannot be used.
#[derive(Debug, Error)]
#[error("{key} {reason}")]
struct InvalidKey {
    key: &'static str,
    reason: String,
}

fn check_keys(keys: &Keys) -> Result<(), InvalidKey> {
    let minimums = [
        ("max_sandboxes", keys.max_sandboxes as u64, 1),
        ("queue_timeout_ms", keys.queue_timeout_ms, 1),
        ("max_body_bytes", keys.max_body_bytes as u64, 1024),
        ("head_timeout_ms", keys.head_timeout_ms, 1),
        ("stall_timeout_ms", keys.stall_timeout_ms, 1),
        ("engine_timeout_ms", keys.engine_timeout_ms, 100),
        ("launch_timeout_ms", keys.launch_timeout_ms, 100),
    ];
    for (key, value, minimum) in minimums {
        if value < minimum {
            return Err(InvalidKey { key, reason: format!("must be at least {minimum}, not {value}") });
        }
    }
    let allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    if keys.owner.len() > 32 || !keys.owner.chars().all(allowed) {
        let reason = "must be at most 32 lower-case letters, digits and dashes".to_owned();
        return Err(InvalidKey { key: "owner", reason });
    }
    Ok(())
}

/// Refuses to listen on any address but loopback while no API key is needed.
fn check_listen_address(key: &'static str, address: SocketAddr, api_keys: &ApiKeys) -> Result<(), InvalidKey> {
    if address.ip().is_loopback() || api_keys.are_required() {
        return Ok(());
    }
    let reason = format!(
        "= \"{address}\" is not loopback, and anyone who reaches it could run code: add a key first, by `oncebox keys add` \
         or in ONCEBOX_API_KEYS"
    );
    Err(InvalidKey { key, reason })
}

/// Refuses a name or alias that two templates share.
fn check_templates(templates: &[Template]) -> Result<(), ConfigError> {
    let mut template_by_name = BTreeMap::new();
    for template in templates {
        for name in std::iter::once(&template.name).chain(&template.aliases) {
            if let Some(other) = template_by_name.insert(name.to_lowercase(), &template.name) {
                let reason = format!("`{name}` is a name of both `{other}` and `{}`", template.name);
                return Err(ConfigError { source_name: "config/templates".to_owned(), reason });
            }
        }
    }
    Ok(())
}

/// Refuses a variable for a template that does not exist; it would have no effect.
fn check_variables(templates: &[Template]) -> Result<(), ConfigError> {
    let prefix = format!("{PREFIX}{TEMPLATE_PREFIX}");
    let files: Vec<_> = templates.iter().map(|template| template.file.to_uppercase()).collect();
    for (name, _) in std::env::vars_os() {
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(&prefix)) else { continue };
        let file = rest.split("__").next().unwrap_or_default();
        if !files.iter().any(|known| known == file) {
            let known = files.join(", ");
            return Err(environment_error(format!("{prefix}{rest} names no template; there are {known}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use figment::providers::{Format, Toml};
    use figment::value::{Dict, Value};
    use serde::de::value::Error as DeError;
    use serde::de::{DeserializeOwned, Visitor};

    use super::sources::OTHER_VARIABLES;
    use super::*;

    const PAGE: &str = include_str!("../../docs/configuration.md");

    /// A source that gives nothing, and remembers which keys it was asked for.
    struct Asked<'a>(&'a mut BTreeSet<String>);

    impl<'de> Deserializer<'de> for Asked<'_> {
        type Error = DeError;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            fields: &'static [&'static str],
            _visitor: V,
        ) -> Result<V::Value, DeError> {
            self.0.extend(fields.iter().map(|field| (*field).to_owned()));
            Err(DeError::custom("it was only asked"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, DeError> {
            Err(DeError::custom("a struct is asked for"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    /// The keys that a struct is read from.
    fn keys_of<T: DeserializeOwned>() -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        assert!(T::deserialize(Asked(&mut keys)).is_err());
        assert!(keys.len() > 10, "{keys:?}");
        keys
    }

    /// The rows of the page's table with this head: their cells.
    fn rows(head: &str) -> Vec<Vec<&'static str>> {
        let (_, table) =
            PAGE.split_once(&format!("\n{head}\n")).unwrap_or_else(|| panic!("no table has the head {head}"));
        let lines = table.lines().skip(1).take_while(|line| line.starts_with('|'));
        lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
    }

    fn quoted(cell: &str) -> String {
        cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`')).unwrap_or_else(|| panic!("{cell}")).to_owned()
    }

    fn first_cells(rows: &[Vec<&str>]) -> BTreeSet<String> {
        let keys: BTreeSet<_> = rows.iter().map(|row| quoted(row[0])).collect();
        assert_eq!(keys.len(), rows.len(), "a key has two rows");
        keys
    }

    fn file(name: &str) -> Dict {
        Toml::from_str(&Source::new(None, name).expect("a file").text).expect("TOML")
    }

    #[test]
    fn the_page_has_every_key_of_the_server_with_its_default() {
        let rows = rows("| key | default | unit | meaning |");
        let defaults = file("oncebox.toml");
        assert_eq!(first_cells(&rows), keys_of::<Keys>());
        assert_eq!(defaults.keys().cloned().collect::<BTreeSet<_>>(), keys_of::<Keys>(), "config/oncebox.toml");
        for row in rows {
            let key = quoted(row[0]);
            let shown: Dict = Toml::from_str(&format!("{key} = {}", quoted(row[1]))).expect("TOML");
            assert_eq!(shown[&key], defaults[&key], "the default of {key}");
            assert!(!row[3].is_empty(), "{key} has no meaning");
        }
    }

    #[test]
    fn the_page_has_every_key_of_a_template() {
        let rows = rows("| key | if left out | unit | meaning |");
        assert_eq!(first_cells(&rows), keys_of::<Template>());
        let whole = file("templates/full.toml");
        let read = |dict: Dict| Value::from(dict).deserialize::<Template>().ok();
        let left_out = |key: &str| {
            let mut less = whole.clone();
            less.remove(key);
            read(less)
        };
        for row in &rows {
            let key = quoted(row[0]);
            let read = left_out(&key);
            assert_eq!(read.is_none(), row[1] == "required", "{key} is shown as {}", row[1]);
            let Some(template) = read else { continue };
            let template = Value::serialize(template).expect("it can be written");
            let (Some(cell), Some(default)) = (row[1].strip_prefix('`'), template.find_ref(&key)) else { continue };
            let shown: Dict = Toml::from_str(&format!("{key} = {}", cell.trim_end_matches('`'))).expect("TOML");
            assert_eq!(&shown[&key], default, "what {key} is if it is left out");
        }
    }

    #[test]
    fn the_page_has_every_template_with_its_values() {
        let mut lines = PAGE.lines().filter(|line| line.starts_with("| value | "));
        let head = lines.next().expect("the table of templates");
        let files: Vec<_> = head.trim_matches('|').split('|').skip(1).map(|cell| quoted(cell.trim())).collect();
        let sources = template_sources(None).expect("the defaults");
        assert_eq!(files.iter().collect::<BTreeSet<_>>(), sources.keys().collect::<BTreeSet<_>>());
        let rows = rows(head);
        for (column, name) in files.iter().enumerate() {
            let template = Value::serialize(read_template(name, &sources[name]).expect("a template")).expect("values");
            for row in &rows {
                let (key, shown) = (quoted(row[0]), row[column + 1].replace('`', ""));
                let value = template.find_ref(&key).unwrap_or_else(|| panic!("{key} is no key"));
                let value = match value {
                    Value::Array(_, names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
                    Value::String(_, text) => text.clone(),
                    Value::Bool(_, value) => value.to_string(),
                    value => value.to_u128().expect("a number").to_string(),
                };
                assert_eq!(shown, value, "{key} of {name}");
            }
        }
    }

    #[test]
    fn the_parts_of_templates_on_the_page_can_be_used() {
        let mut parts = PAGE.split("```toml\n").skip(1).map(|rest| rest.split("```").next().expect("an end"));
        let used = |part: &str| {
            let mut template = file("templates/python.toml");
            template.extend(Toml::from_str::<Dict>(part).expect("TOML"));
            template.insert("name".to_owned(), "own".into());
            Value::from(template)
                .deserialize::<Template>()
                .map_err(|err| err.to_string())?
                .check()
                .map_err(|err| err.to_string())
        };
        assert_eq!(parts.clone().count(), 1);
        assert_eq!(parts.try_for_each(used), Ok(()));
    }

    #[test]
    fn the_page_has_every_variable() {
        let rows = rows("| variable | meaning |");
        let mut variables: BTreeSet<_> =
            OTHER_VARIABLES.iter().map(|name| format!("{PREFIX}{}", name.to_uppercase())).collect();
        variables.insert("DOCKER_HOST".to_owned());
        assert_eq!(first_cells(&rows), variables);
    }
}
