//! A request to run code, in the shape that the dialects share. It is checked and converted to a [`RunSpec`].

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use thiserror::Error;
use utoipa::ToSchema;
use utoipa::openapi::schema::{AdditionalProperties, Object, ObjectBuilder, Schema, Type};

use super::json::Pairs;
use crate::engine::Network;
use crate::sandbox::{NetworkKind, Origin, Owner, RunSpec, SandboxError, Template};

/// The largest number of files in a request. More files can be sent as an archive.
pub(crate) const MAX_FILES: usize = 1000;

/// A field of a request that cannot be used: its path, the reason, and the values that are accepted.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct InvalidField(String);

/// The least that a request can choose of each limit.
pub(crate) const LEAST: Least = Least {
    timeout_ms: 1,
    memory_bytes: 64 << 20,
    cpu_millis: 10,
    processes: 16,
    disk_bytes: 1 << 20,
    output_bytes: 1024,
};

/// The least of each limit.
pub(crate) struct Least {
    pub(crate) timeout_ms: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) cpu_millis: u64,
    pub(crate) processes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) output_bytes: u64,
}

/// A request to run code. It is the body of `POST /v1/run`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunRequest {
    /// The source text.
    pub(crate) code: String,
    /// The name of a language or one of its aliases, in any case.
    pub(crate) language: String,
    /// The longest time that the code may run, milliseconds. The default is the template's.
    pub(crate) timeout_ms: Option<u64>,
    /// Environment variables.
    #[serde(default)]
    #[schema(schema_with = env)]
    pub(crate) env: Pairs,
    /// Files to write before the code starts.
    #[serde(default)]
    #[schema(max_items = 1000)]
    pub(crate) files: Vec<FileRequest>,
    /// The standard input of the code. The default is empty.
    pub(crate) stdin: Option<String>,
    /// `none`, or the template's own network, which is the default.
    #[schema(value_type = Option<String>)]
    pub(crate) network: Option<NetworkKind>,
    #[serde(default)]
    pub(crate) limits: LimitsRequest,
}

/// A file to write before the code starts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileRequest {
    /// The path. One that is relative starts at the home of the user; missing directories are made.
    path: String,
    /// The content, as `encoding` says.
    content: String,
    #[serde(default)]
    encoding: Encoding,
}

/// How the content of a file is written.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
enum Encoding {
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    #[serde(rename = "base64")]
    Base64,
}

/// Lower limits than the template's.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsRequest {
    /// Memory of the sandbox; the files in it count.
    memory_bytes: Option<u64>,
    /// Processor time, thousandths of a processor.
    cpu_millis: Option<u64>,
    /// Processes and threads at the same time.
    processes: Option<u64>,
    /// Room in each writable directory.
    disk_bytes: Option<u64>,
    /// Standard output, standard error and outputs together.
    output_bytes: Option<u64>,
}

impl RunRequest {
    /// Checks the request against the limits of its template.
    pub(crate) fn check(self, template: Arc<Template>, owner: Owner, origin: Origin) -> Result<RunSpec, InvalidField> {
        let (mut container, mut limits) = (template.spec(), template.limits());
        let (network_is_chosen, timeout_is_chosen) = (self.network.is_some(), self.timeout_ms.is_some());
        if let Some(network) = self.network {
            container.network = match (network, template.network) {
                (NetworkKind::None, _) => Network::None,
                (requested, allowed) if requested == allowed => template.network(),
                (requested, allowed) => return Err(InvalidField(network_refused(requested, allowed))),
            };
        }
        let requested = &self.limits;
        set_within("timeout_ms", self.timeout_ms, LEAST.timeout_ms, template.max_timeout_ms, &mut limits.timeout_ms)?;
        set_within(
            "limits.memory_bytes",
            requested.memory_bytes,
            LEAST.memory_bytes,
            template.memory_bytes,
            &mut container.memory_bytes,
        )?;
        set_within(
            "limits.cpu_millis",
            requested.cpu_millis,
            LEAST.cpu_millis,
            template.cpu_millis,
            &mut container.cpu_millis,
        )?;
        set_within(
            "limits.processes",
            requested.processes,
            LEAST.processes,
            template.processes,
            &mut container.processes,
        )?;
        set_within(
            "limits.disk_bytes",
            requested.disk_bytes,
            LEAST.disk_bytes,
            template.disk_bytes,
            &mut container.disk_bytes,
        )?;
        set_within(
            "limits.output_bytes",
            requested.output_bytes,
            LEAST.output_bytes,
            template.output_bytes,
            &mut limits.output_bytes,
        )?;
        limits.memory_bytes = container.memory_bytes;
        limits.processes = container.processes;
        limits.disk_bytes = container.disk_bytes;
        let Pairs(env) = self.env;
        check_env(&env)?;
        let files = check_files(self.files)?;
        Ok(RunSpec {
            template,
            owner,
            origin,
            container,
            network_is_chosen,
            timeout_is_chosen,
            limits,
            code: self.code,
            env,
            files,
            stdin: self.stdin,
        })
    }
}

/// Returns the schema of environment variables.
fn env() -> Object {
    let text = |pattern: &str| Schema::from(ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some("Environment variables."))
        .property_names(Some(text("^[^=\\u0000]+$")))
        .additional_properties(Some(AdditionalProperties::from(text("^[^\\u0000]*$"))))
        .build()
}

fn network_refused(requested: NetworkKind, allowed: NetworkKind) -> String {
    let or_allowed = if allowed == NetworkKind::None { String::new() } else { format!("`{allowed}` or ") };
    format!("network: `{requested}` is not allowed here, only {or_allowed}`none`")
}

/// Sets `value` to the requested number, if there is one and it is within bounds.
fn set_within(field: &str, requested: Option<u64>, min: u64, max: u64, value: &mut u64) -> Result<(), InvalidField> {
    let Some(requested) = requested else { return Ok(()) };
    // The template's own value, `max`, may be below the minimum of requests.
    let min = min.min(max);
    if requested < min || requested > max {
        return Err(InvalidField(format!("{field}: must be from {min} to {max}, not {requested}")));
    }
    *value = requested;
    Ok(())
}

fn check_env(env: &BTreeMap<String, String>) -> Result<(), InvalidField> {
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let message =
                format!("env: `{name}` cannot be set: a name must not be empty or contain `=`, and NUL is not allowed");
            return Err(InvalidField(message));
        }
    }
    Ok(())
}

fn check_files(files: Vec<FileRequest>) -> Result<Vec<(String, Bytes)>, InvalidField> {
    if files.len() > MAX_FILES {
        return Err(InvalidField(format!("files: at most {MAX_FILES} files, not {}", files.len())));
    }
    let content = |(index, file): (usize, FileRequest)| match file.encoding {
        Encoding::Utf8 => Ok((file.path, Bytes::from(file.content))),
        Encoding::Base64 => STANDARD
            .decode(&file.content)
            .map(|content| (file.path, content.into()))
            .map_err(|err| InvalidField(format!("files[{index}].content: not base64: {err}"))),
    };
    files.into_iter().enumerate().map(content).collect()
}

/// Returns the path of the field that an error is about, if it is about one.
pub(crate) fn field(err: &SandboxError) -> Option<String> {
    match err {
        SandboxError::UnknownLanguage { .. } => Some("language".to_owned()),
        SandboxError::File { index, .. } => Some(format!("files[{index}].path")),
        SandboxError::TooLong { .. } => Some("timeout_ms".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requested_number_must_be_within_its_bounds() {
        let take = |requested, min, max| {
            let mut value = 7;
            set_within("field", requested, min, max, &mut value).map(|()| value).ok()
        };
        assert_eq!(take(None, 1, 10), Some(7));
        assert_eq!((take(Some(1), 1, 10), take(Some(10), 1, 10)), (Some(1), Some(10)));
        assert_eq!((take(Some(0), 1, 10), take(Some(11), 1, 10)), (None, None));
        // A template whose own value is below the minimum.
        assert_eq!((take(Some(5), 8, 5), take(Some(4), 8, 5)), (Some(5), None));
    }
}
