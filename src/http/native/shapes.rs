//! The JSON of the response to `POST /v1/run`.

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::protocol::{Exception, Outcome, OutcomeKind, Output, Usage};
use crate::sandbox::{Place, Report};

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
    fn an_output_has_its_mime_types_and_main() {
        let data = r#"{"text/plain": "1", "application/json": {"a": [1.50, null]}, "main": "x"}"#;
        let output = Output { data: serde_json::from_str(data).expect("JSON"), main: true };
        let json = serde_json::to_string(&OutputResponse::from(output)).expect("JSON");
        assert_eq!(json, r#"{"text/plain":"1","application/json":{"a": [1.50, null]},"main":true}"#);
    }
}
