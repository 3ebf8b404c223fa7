//! The sources of the configuration: files of a directory or built in, and the environment. Errors name the source of the
//! value that is wrong.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use include_dir::{Dir, include_dir};
use serde::Deserialize;
use thiserror::Error;

/// The files of `config/`, built into this program: the configuration without `--config`. Nothing else of `config/`, where
/// a file of keys may be.
static DEFAULTS: &str = include_str!("../../config/oncebox.toml");
static DEFAULT_TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/config/templates");

pub(super) const PREFIX: &str = "ONCEBOX_";
pub(super) const TEMPLATE_PREFIX: &str = "TEMPLATES__";

/// Variables that begin with `ONCEBOX_` and are not keys of the configuration.
pub(super) const OTHER_VARIABLES: [&str; 8] =
    ["api_key", "api_keys", "letta_api_keys", "config", "log", "languages", "unsafe_process_engine", "url"];

/// A configuration error: the source, the key and the reason.
#[derive(Debug, Error)]
#[error("{source_name}: {reason}")]
pub struct ConfigError {
    pub(super) source_name: String,
    pub(super) reason: String,
}

/// Returns the sources of the keys of `oncebox.toml`, and the name of the file itself.
pub(super) fn server_figment(directory: Option<&Path>) -> Result<(Figment, String), ConfigError> {
    let file = Source::new(directory, "oncebox.toml")?;
    let ignored = |key: &figment::value::UncasedStr| {
        OTHER_VARIABLES.iter().any(|other| key == *other) || key.as_str().to_uppercase().starts_with(TEMPLATE_PREFIX)
    };
    // The built-in file supplies the keys that are missing from the file in `directory`.
    let defaults = Source::new(None, "oncebox.toml")?.figment();
    let figment = defaults.merge(file.figment()).merge(Env::prefixed(PREFIX).filter(move |key| !ignored(key)));
    Ok((figment, file.name))
}

/// A configuration file, read from the disk or built in.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) text: String,
}

impl Source {
    pub(super) fn new(directory: Option<&Path>, file: &str) -> Result<Self, ConfigError> {
        let Some(directory) = directory else {
            let template = |name| DEFAULT_TEMPLATES.get_file(name).and_then(|file| file.contents_utf8());
            let text = file.strip_prefix("templates/").map_or(Some(DEFAULTS), template);
            let text = text.expect("every configuration file is built in").to_owned();
            return Ok(Self { name: format!("config/{file} (built in)"), text });
        };
        let path = directory.join(file);
        let name = path.display().to_string();
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self { name, text }),
            Err(err) => Err(ConfigError { source_name: name, reason: format!("cannot be read: {err}") }),
        }
    }

    pub(super) fn figment(&self) -> Figment {
        Figment::from(self)
    }
}

/// Attaches the source's name to each value, for error messages.
impl figment::Provider for &Source {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named(self.name.clone())
    }

    fn data(&self) -> figment::error::Result<figment::value::Map<figment::Profile, figment::value::Dict>> {
        let dict: figment::value::Dict =
            Toml::from_str(&self.text).map_err(|err| figment::Error::from(err.to_string()))?;
        Ok(figment::Profile::Default.collect(dict))
    }
}

pub(super) fn template_sources(directory: Option<&Path>) -> Result<BTreeMap<String, Source>, ConfigError> {
    let files: Vec<_> = match directory {
        None => DEFAULT_TEMPLATES.files().map(|file| Path::new("templates").join(file.path())).collect(),
        Some(directory) => {
            let templates = directory.join("templates");
            let unreadable = |err: std::io::Error| ConfigError {
                source_name: templates.display().to_string(),
                reason: format!("cannot be read: {err}"),
            };
            let entries = std::fs::read_dir(&templates).map_err(unreadable)?;
            let names =
                entries.filter_map(|entry| entry.ok()).map(|entry| Path::new("templates").join(entry.file_name()));
            names.collect()
        }
    };
    let mut sources = BTreeMap::new();
    for file in files.iter().filter(|file| file.extension() == Some(OsStr::new("toml"))) {
        let stem = file.file_stem().and_then(OsStr::to_str).unwrap_or_default().to_owned();
        sources.insert(stem, Source::new(directory, &file.to_string_lossy())?);
    }
    Ok(sources)
}

/// Deserializes the merged sources. `file` is named as the source of an error that has none, such as a missing key.
pub(super) fn extract<'a, T: Deserialize<'a>>(figment: &Figment, file: &str) -> Result<T, ConfigError> {
    figment.extract().map_err(|err| {
        let source_name = err.metadata.as_ref().map_or_else(|| file.to_owned(), source_name);
        let key = err.path.join(".");
        let reason = if key.is_empty() { err.kind.to_string() } else { format!("{key}: {}", err.kind) };
        ConfigError { source_name, reason }
    })
}

pub(super) fn source_name(metadata: &figment::Metadata) -> String {
    match metadata.name.contains("environment") {
        true => "environment".to_owned(),
        false => metadata.name.to_string(),
    }
}

/// Returns an error about a key, with the source that set the key's value.
pub(super) fn key_error(figment: &Figment, key: &str, reason: impl ToString) -> ConfigError {
    let source_name = figment.find_metadata(key).map_or_else(String::new, source_name);
    ConfigError { source_name, reason: reason.to_string() }
}

pub(super) fn environment_error(reason: String) -> ConfigError {
    ConfigError { source_name: "environment".to_owned(), reason }
}
