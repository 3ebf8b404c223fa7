//! `oncebox keys`: makes, lists, rotates and revokes API keys in the file that the server reads.

use std::error::Error;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use oncebox::config::Config;
use oncebox::keys::{Key, KeysFile, NewKey, Profile, Scope, new_key};
use oncebox::sandbox::{Allowance, NetworkKind, OwnerLimits};
use serde::de::DeserializeOwned;
use serde::de::value::{Error as ValueError, StrDeserializer};

use super::{CliResult, print};

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Print a new key without storing it, for ONCEBOX_API_KEYS.
    New,
    /// Add a key and print it. It is not shown again: the file has its hash only.
    Add(AddArgs),
    /// List the keys.
    List,
    /// Give a key a new text and print it. The old one stays valid for a while.
    Rotate(RotateArgs),
    /// Revoke a key. Its requests are refused and its streams end at once.
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// Its name, in the log and in lists.
    name: String,
    /// What it is for: run, sandboxes, build, metrics, admin, with commas between several. By default run,sandboxes.
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
    scopes: Vec<Scope>,
    /// The kind of its client: e2b or letta. By default that of the configuration.
    #[arg(long, value_parser = from_name::<Profile>)]
    profile: Option<Profile>,
    /// How long it is valid, such as 90d, or until when, such as 2027-06-30T00:00:00Z. By default, for ever.
    #[arg(long, value_name = "TIME", value_parser = time)]
    expires: Option<SystemTime>,
    /// The templates that it may use, with commas between several. By default all.
    #[arg(long = "template", value_name = "NAME", value_delimiter = ',')]
    templates: Vec<String>,
    /// The most that its sandboxes reach: full, allowlist or none.
    #[arg(long, value_parser = from_name::<NetworkKind>)]
    network: Option<NetworkKind>,
    /// The most single runs at the same time.
    #[arg(long, value_name = "N")]
    max_sandboxes: Option<NonZeroUsize>,
    /// The most kept sandboxes, paused ones included.
    #[arg(long, value_name = "N")]
    max_kept_sandboxes: Option<NonZeroUsize>,
    /// The most runs and new sandboxes in a minute.
    #[arg(long, value_name = "N")]
    max_starts_per_minute: Option<NonZeroU32>,
    /// The longest time of a run, and to the deadline of a kept sandbox.
    #[arg(long, value_name = "MS")]
    max_timeout_ms: Option<NonZeroU64>,
    /// The processor time of all its sandboxes in a day.
    #[arg(long, value_name = "SECONDS")]
    cpu_seconds_per_day: Option<NonZeroU64>,
}

#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    /// The name or id of the key.
    name: String,
    /// How long the old text stays valid; 0s after a leak.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    overlap: Duration,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The name or id of the key.
    name: String,
    /// Also kill its sandboxes. Without this, they live to their deadlines.
    #[arg(long)]
    kill: bool,
}

/// Runs the command. `config` is the directory of the configuration.
pub(super) fn keys(command: KeysCommand, config: Option<&Path>) -> CliResult {
    let file = || Config::keys_path(config).map(KeysFile::new);
    match command {
        KeysCommand::New => print(&format!("{}\n", new_key())),
        KeysCommand::Add(args) => print(&format!("{}\n", add(args, &file()?, config)?)),
        KeysCommand::List => print(&list(&file()?.read()?, SystemTime::now())),
        KeysCommand::Rotate(RotateArgs { name, overlap }) => {
            print(&format!("{}\n", file()?.rotate(&name, overlap)?));
        }
        KeysCommand::Revoke(RevokeArgs { name, kill }) => file()?.revoke(&name, kill)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn add(args: AddArgs, file: &KeysFile, config: Option<&Path>) -> Result<String, Box<dyn Error>> {
    if !args.templates.is_empty() {
        check_templates(&args.templates, config)?;
    }
    let limits = OwnerLimits {
        max_sandboxes: args.max_sandboxes,
        max_kept_sandboxes: args.max_kept_sandboxes,
        max_starts_per_minute: args.max_starts_per_minute,
        max_timeout_ms: args.max_timeout_ms,
        cpu_seconds_per_day: args.cpu_seconds_per_day,
    };
    let mut new = NewKey {
        profile: args.profile,
        expires: args.expires,
        allowance: Allowance { templates: args.templates, network: args.network, limits },
        ..NewKey::named(args.name)
    };
    if !args.scopes.is_empty() {
        new.scopes = args.scopes;
    }
    let (_, key) = file.add(&new)?;
    Ok(key)
}

/// Refuses templates that do not exist: the server would refuse the whole file because of them.
fn check_templates(names: &[String], config: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let templates = Config::read(config)?.templates;
    match names.iter().find(|name| !templates.iter().any(|template| template.is_called(name))) {
        None => Ok(()),
        Some(name) => {
            let known: Vec<_> = templates.iter().map(|template| template.name.as_str()).collect();
            Err(format!("--template: there is no template `{name}`, only {}", known.join(", ")).into())
        }
    }
}

/// Returns a table of keys.
fn list(keys: &[Key], now: SystemTime) -> String {
    let head = ["NAME", "ID", "KEY", "SCOPES", "CREATED", "STATE"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(keys.iter().map(|key| row(key, now))).collect();
    let widths = [0, 1, 2, 3, 4].map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  "));
        format!("{}{}\n", cells.collect::<String>(), row[5])
    };
    rows.iter().map(line).collect()
}

fn row(key: &Key, now: SystemTime) -> [String; 6] {
    let at = |time| humantime::format_rfc3339_seconds(time).to_string();
    let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.name()).collect();
    let state = match (key.revoked, key.expires) {
        (Some(revoked), _) => format!("revoked {}", at(revoked)),
        (None, Some(expires)) if expires <= now => format!("expired {}", at(expires)),
        (None, Some(expires)) => format!("expires {}", at(expires)),
        (None, None) => "valid".to_owned(),
    };
    let created = key.created.map(at).unwrap_or_default();
    [key.name.clone(), key.owner.to_string(), key.mask.to_string(), scopes.join(","), created, state]
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|err| format!("{err}; write 24h or 90d"))
}

fn time(text: &str) -> Result<SystemTime, String> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(time);
    }
    let after = humantime::parse_duration(text).map_err(|err| format!("{err}; write 90d or 2027-06-30T00:00:00Z"))?;
    SystemTime::now().checked_add(after).ok_or_else(|| "it is too far away".to_owned())
}

/// Reads a value by its name in files.
fn from_name<T: DeserializeOwned>(text: &str) -> Result<T, ValueError> {
    T::deserialize(StrDeserializer::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_duration_from_now_or_a_date() {
        let now = SystemTime::now();
        let left = time("90d").expect("a time").duration_since(now).expect("it is later").as_secs();
        assert!((90 * 86400..90 * 86400 + 60).contains(&left), "{left}");
        assert_eq!(time("2027-06-30T00:00:00Z").ok(), humantime::parse_rfc3339("2027-06-30T00:00:00Z").ok());
        for other in ["", "90", "soon", "2027-06-30"] {
            assert!(time(other).is_err(), "{other}");
        }
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn a_name_is_that_of_the_file() {
        assert_eq!(from_name::<Profile>("letta"), Ok(Profile::Letta));
        assert_eq!(from_name::<NetworkKind>("none"), Ok(NetworkKind::None));
        assert!(from_name::<NetworkKind>("some").is_err());
    }
}
