//! The arguments of the tools.

use rmcp::model::JsonObject;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::Refused;
use crate::http::json;
use crate::http::run_request::{FileRequest, LimitsRequest, RunRequest};
use crate::sandbox::NetworkKind;

/// The arguments of `run_code`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunArguments {
    code: String,
    language: String,
    #[serde(default)]
    files: Vec<FileRequest>,
    stdin: Option<String>,
    timeout_ms: Option<u64>,
    network: Option<NetworkKind>,
}

impl From<RunArguments> for RunRequest {
    fn from(arguments: RunArguments) -> Self {
        Self {
            code: arguments.code,
            language: arguments.language,
            timeout_ms: arguments.timeout_ms,
            env: json::Pairs::default(),
            files: arguments.files,
            stdin: arguments.stdin,
            network: arguments.network,
            limits: LimitsRequest::default(),
        }
    }
}

/// The arguments of a tool that has none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoArguments {}

/// Reads the arguments of a call. An error names the argument.
pub(super) fn read<T: DeserializeOwned>(arguments: Option<JsonObject>) -> Result<T, Refused> {
    Ok(json::members(arguments.unwrap_or_default(), "arguments")?)
}

#[cfg(test)]
mod tests {
    use rmcp::model::CallToolResult;
    use serde_json::{Value, json};

    use super::*;

    fn refusal<T: DeserializeOwned>(arguments: Value) -> Option<String> {
        let result = CallToolResult::from(read::<T>(arguments.as_object().cloned()).err()?);
        assert_eq!(result.is_error, Some(true));
        Some(result.content[0].as_text().expect("text").text.clone())
    }

    #[test]
    fn an_argument_that_is_wrong_is_named_by_its_path() {
        let run = refusal::<RunArguments>;
        assert_eq!(run(json!({"code": "1", "language": "a"})), None);
        assert_eq!(run(json!({"code": "1", "language": "a", "stdin": null, "files": []})), None);
        for (arguments, begins) in [
            (json!({"code": "1"}), "arguments: missing field `language`"),
            (json!({"code": "1", "language": "a", "env": {}}), "env: unknown field `env`, expected one of "),
            (json!({"code": 1, "language": "a"}), "code: invalid type: integer `1`, expected a string"),
            (json!({"code": "1", "language": "a", "timeout_ms": "9"}), "timeout_ms: invalid type: string"),
            (json!({"code": "1", "language": "a", "network": "some"}), "network: unknown variant `some`"),
            (json!({"code": "1", "language": "a", "files": [{"path": "a"}]}), "files[0]: missing field `content`"),
        ] {
            let message = run(arguments).expect("refused");
            assert!(message.starts_with(begins), "{message}");
        }
        assert_eq!(refusal::<NoArguments>(json!({})), None);
        let message = refusal::<NoArguments>(json!({"all": true})).expect("refused");
        assert!(message.starts_with("all: unknown field `all`"), "{message}");
    }
}
