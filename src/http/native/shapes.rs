//! The JSON of `POST /v1/run`: the request, which is checked and converted to a [`RunSpec`], and the response.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::engine::Network;
use crate::http::error::ApiError;
use crate::http::json::Pairs;
use crate::protocol::{Exception, Outcome, OutcomeKind, Output, Usage};
use crate::sandbox::{NetworkKind, Owner, Place, Report, RunSpec, Template};

/// The largest number of files in a request. More files can be sent as an archive.
const MAX_FILES: usize = 1000;

/// The least that a request can choose of each limit.
pub(super) const LEAST: Least = Least {
    timeout_ms: 1,
    memory_bytes: 64 << 20,
    cpu_millis: 10,
    processes: 16,
    disk_bytes: 1 << 20,
    output_bytes: 1024,
};

/// The least of each limit.
pub(super) struct Least {
    pub(super) timeout_ms: u64,
    pub(super) memory_bytes: u64,
    pub(super) cpu_millis: u64,
    pub(super) processes: u64,
    pub(super) disk_bytes: u64,
    pub(super) output_bytes: u64,
}

/// The body of `POST /v1/run`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RunRequest {
    /// The source text.
    code: String,
    /// The name of a language or one of its aliases, in any case.
    pub(super) language: String,
    /// The longest time that the code may run, milliseconds. The default is the template's.
    timeout_ms: Option<u64>,
    /// Environment variables.
    #[serde(default)]
    #[schema(schema_with = super::described::env)]
    env: Pairs,
    /// Files to write before the code starts.
    #[serde(default)]
    #[schema(max_items = 1000)]
    files: Vec<FileRequest>,
    /// The standard input of the code. The default is empty.
    stdin: Option<String>,
    /// `none`, or the template's own network, which is the default.
    #[schema(value_type = Option<String>)]
    network: Option<NetworkKind>,
    #[serde(default)]
    limits: LimitsRequest,
}

/// A file to write before the code starts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FileRequest {
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
struct LimitsRequest {
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
    pub(super) fn check(self, template: Arc<Template>, owner: Owner) -> Result<RunSpec, ApiError> {
        let (mut container, mut limits) = (template.spec(), template.limits());
        let (network_is_chosen, timeout_is_chosen) = (self.network.is_some(), self.timeout_ms.is_some());
        if let Some(network) = self.network {
            container.network = match (network, template.network) {
                (NetworkKind::None, _) => Network::None,
                (requested, allowed) if requested == allowed => template.network(),
                (requested, allowed) => return Err(ApiError::bad_request(network_refused(requested, allowed))),
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

fn network_refused(requested: NetworkKind, allowed: NetworkKind) -> String {
    let or_allowed = if allowed == NetworkKind::None { String::new() } else { format!("`{allowed}` or ") };
    format!("network: `{requested}` is not allowed here, only {or_allowed}`none`")
}

/// Sets `value` to the requested number, if there is one and it is within bounds.
fn set_within(field: &str, requested: Option<u64>, min: u64, max: u64, value: &mut u64) -> Result<(), ApiError> {
    let Some(requested) = requested else { return Ok(()) };
    // The template's own value, `max`, may be below the minimum of requests.
    let min = min.min(max);
    if requested < min || requested > max {
        return Err(ApiError::bad_request(format!("{field}: must be from {min} to {max}, not {requested}")));
    }
    *value = requested;
    Ok(())
}

fn check_env(env: &BTreeMap<String, String>) -> Result<(), ApiError> {
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let message =
                format!("env: `{name}` cannot be set: a name must not be empty or contain `=`, and NUL is not allowed");
            return Err(ApiError::bad_request(message));
        }
    }
    Ok(())
}

fn check_files(files: Vec<FileRequest>) -> Result<Vec<(String, Bytes)>, ApiError> {
    if files.len() > MAX_FILES {
        return Err(ApiError::bad_request(format!("files: at most {MAX_FILES} files, not {}", files.len())));
    }
    let content = |(index, file): (usize, FileRequest)| match file.encoding {
        Encoding::Utf8 => Ok((file.path, Bytes::from(file.content))),
        Encoding::Base64 => STANDARD
            .decode(&file.content)
            .map(|content| (file.path, content.into()))
            .map_err(|err| ApiError::bad_request(format!("files[{index}].content: not base64: {err}"))),
    };
    files.into_iter().enumerate().map(content).collect()
}

/// The response of `POST /v1/run`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunResponse {
    /// The `text/plain` of each element of `outputs`.
    results: Vec<String>,
    logs: Logs,
    /// The failure, for a person or a model. Present if, and only if, the outcome is not `ok`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    exception: Option<ExceptionResponse>,
    /// The value of the last expression, and everything that was displayed or drawn, in order.
    outputs: Vec<OutputResponse>,
    outcome: Outcome,
    usage: Usage,
    sandbox: Place,
}

/// The printed text. The elements of a list, joined, are exactly the text that was written to the stream.
#[derive(Debug, Serialize, ToSchema)]
struct Logs {
    stdout: Vec<String>,
    stderr: Vec<String>,
}

/// The exception that ended the code, as its language describes it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Exception)]
pub(super) struct ExceptionResponse {
    /// Its class.
    name: String,
    /// Its message.
    value: String,
    traceback: String,
}

impl From<Exception> for ExceptionResponse {
    fn from(exception: Exception) -> Self {
        Self { name: exception.name, value: exception.value, traceback: exception.traceback }
    }
}

impl From<Report> for RunResponse {
    fn from(report: Report) -> Self {
        let piece = |text: String| if text.is_empty() { Vec::new() } else { vec![text] };
        Self {
            results: report.outputs.iter().filter_map(|output| output.text("text/plain")).collect(),
            logs: Logs { stdout: piece(report.stdout), stderr: piece(report.stderr) },
            error: error_text(&report.outcome, report.exception.as_ref()),
            exception: report.exception.map(ExceptionResponse::from),
            outputs: report.outputs.into_iter().map(OutputResponse::from).collect(),
            outcome: report.outcome,
            usage: report.usage,
            sandbox: report.place,
        }
    }
}

/// An output: a member for each mime type, and `main`. Binary types are in base64, JSON is JSON.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Output)]
pub(super) struct OutputResponse {
    #[serde(flatten)]
    #[schema(value_type = BTreeMap<String, serde_json::Value>)]
    data: IndexMap<String, Box<RawValue>>,
    /// Whether this is the value of the last expression.
    main: bool,
}

impl From<Output> for OutputResponse {
    fn from(Output { mut data, main }: Output) -> Self {
        data.shift_remove("main");
        Self { data, main }
    }
}

/// Describes the failure for a person or a model: the limit that was hit, then the language's traceback.
pub(super) fn error_text(outcome: &Outcome, exception: Option<&Exception>) -> Option<String> {
    let traceback = exception.map(|exception| exception.traceback.as_str()).filter(|text| !text.is_empty());
    match (outcome.kind, traceback) {
        (OutcomeKind::Ok, _) => None,
        (OutcomeKind::Exception, Some(traceback)) => Some(traceback.to_owned()),
        (_, Some(traceback)) => Some(format!("{}\n{traceback}", outcome.message)),
        (_, None) => Some(outcome.message.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(kind: OutcomeKind) -> Outcome {
        Outcome { kind, message: "the reason".to_owned(), limit: None }
    }

    #[test]
    fn the_error_names_the_limit_before_the_traceback() {
        let raised =
            |traceback: &str| Exception { name: "E".to_owned(), value: String::new(), traceback: traceback.to_owned() };
        let text = |kind, exception: Option<&Exception>| error_text(&outcome(kind), exception);
        let exception = raised("one\ntwo");
        assert_eq!(text(OutcomeKind::Ok, None), None);
        assert_eq!(text(OutcomeKind::Exception, Some(&exception)).as_deref(), Some("one\ntwo"));
        assert_eq!(text(OutcomeKind::DiskFull, Some(&exception)).as_deref(), Some("the reason\none\ntwo"));
        assert_eq!(text(OutcomeKind::Exception, Some(&raised(""))).as_deref(), Some("the reason"));
        assert_eq!(text(OutcomeKind::Timeout, None).as_deref(), Some("the reason"));
    }

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

    #[test]
    fn an_output_has_its_mime_types_and_main() {
        let data = r#"{"text/plain": "1", "application/json": {"a": [1.50, null]}, "main": "x"}"#;
        let output = Output { data: serde_json::from_str(data).expect("JSON"), main: true };
        let json = serde_json::to_string(&OutputResponse::from(output)).expect("JSON");
        assert_eq!(json, r#"{"text/plain":"1","application/json":{"a": [1.50, null]},"main":true}"#);
    }
}
