//! The tools: their names, descriptions and schemas.

use std::sync::Arc;

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

use super::result::MAX_TEXT;
use crate::http::run_request::MAX_FILES;
use crate::sandbox::{NetworkKind, Template};

/// The name of the tool that runs code.
pub(super) const RUN_CODE: &str = "run_code";
/// The name of the tool that lists the languages.
pub(super) const LIST_LANGUAGES: &str = "list_languages";

/// What a client may show its model about the whole server.
pub(super) const INSTRUCTIONS: &str = "Runs code in fresh sandboxes. Nothing is kept from one run to the next: no \
    variables, no files, no packages. Send whole programs, with the files that they read.";

/// Returns the tools, always in the same order, for these templates.
pub(super) fn tools(templates: &[Arc<Template>]) -> Vec<Tool> {
    let runs: Vec<_> = templates.iter().filter(|template| template.runs).map(Arc::as_ref).collect();
    vec![run_code(&runs), list_languages()]
}

fn run_code(templates: &[&Template]) -> Tool {
    let names: Vec<_> = templates.iter().map(|template| &template.name).collect();
    let max_timeout_ms = templates.iter().map(|template| template.max_timeout_ms).max();
    let is_open = templates.iter().any(|template| template.network != NetworkKind::None);
    let mut networks = vec![NetworkKind::None];
    for template in templates {
        if !networks.contains(&template.network) {
            networks.push(template.network);
        }
    }
    let file = json!({
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "Absolute, or relative to the working directory of the code."},
            "content": {"type": "string"},
            "encoding": {"type": "string", "enum": ["utf-8", "base64"], "default": "utf-8"},
        },
        "required": ["path", "content"],
        "additionalProperties": false,
    });
    let arguments = json!({
        "type": "object",
        "properties": {
            "code": {"type": "string", "description": "The source text of a whole program."},
            "language": {"type": "string", "enum": names},
            "files": {
                "type": "array",
                "items": file,
                "maxItems": MAX_FILES,
                "description": "Files that are written before the code starts.",
            },
            "stdin": {"type": "string", "description": "The standard input of the code; empty by default."},
            "timeout_ms": {
                "type": "integer",
                "minimum": 1,
                "maximum": max_timeout_ms,
                "description": "The longest time that the code may run, in milliseconds.",
            },
            "network": {
                "type": "string",
                "enum": networks,
                "description": "What the code reaches: by default what its language allows, see `list_languages`; `none` is always allowed.",
            },
        },
        "required": ["code", "language"],
        "additionalProperties": false,
    });
    let text = |description: &str| json!({"type": "string", "description": description});
    let count = json!({"type": "integer", "minimum": 0});
    let result = json!({
        "type": "object",
        "properties": {
            "outcome": {
                "type": "object",
                "properties": {
                    "kind": text("How the code ended: `ok`, or what ended it."),
                    "message": text("One line that describes the end, and names the limit that was reached."),
                    "limit": {
                        "type": "object",
                        "properties": {"name": {"type": "string"}, "value": count},
                        "required": ["name", "value"],
                    },
                },
                "required": ["kind", "message"],
            },
            "results": {
                "type": "array",
                "items": {"type": "string"},
                "description": "The values and figures that the code showed, as text.",
            },
            "stdout": {"type": "string"},
            "stderr": {"type": "string"},
            "exception": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "value": {"type": "string"},
                    "traceback": {"type": "string"},
                },
                "required": ["name", "value", "traceback"],
            },
            "usage": {
                "type": "object",
                "properties": {"wall_ms": count, "cpu_ms": count, "peak_memory_bytes": count},
                "required": ["wall_ms"],
            },
            "truncated": {
                "type": "boolean",
                "description": format!("Whether a text had more than {MAX_TEXT} characters, or something was omitted."),
            },
            "omitted": {
                "type": "array",
                "items": {"type": "string"},
                "description": "What was omitted as a whole.",
            },
        },
        "required": ["outcome", "results", "stdout", "stderr", "usage", "truncated"],
    });
    let description = "Runs a program in a fresh sandbox that is removed afterwards. The result has what the program \
        printed, the value of its last expression if the language has one, and figures as images. Figures are shown, not \
        saved: no file can be fetched afterwards, so print what is needed. If the program fails or reaches a limit, \
        `outcome` and `exception` describe it.";
    Tool::new(RUN_CODE, description, object(arguments))
        .with_title("Run code")
        .with_raw_output_schema(Arc::new(object(result)))
        .with_annotations(hints(false).open_world(is_open))
}

fn list_languages() -> Tool {
    let nullable = |kind: &str| json!({"type": [kind, "null"]});
    let language = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "aliases": {"type": "array", "items": {"type": "string"}},
            "extensions": {"type": "array", "items": {"type": "string"}},
            "version": nullable("string"),
            "packages": nullable("object"),
            "network": {"type": "string"},
            "limits": {"type": "object", "additionalProperties": {"type": "integer"}},
        },
        "required": ["name", "aliases", "extensions", "version", "packages", "network", "limits"],
    });
    let result = json!({
        "type": "object",
        "properties": {"languages": {"type": "array", "items": language}},
        "required": ["languages"],
    });
    let arguments = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let description = "Lists the languages of `run_code`, with their versions, installed packages, network and limits. \
        Version and packages are null until the first sandbox of the language has started.";
    Tool::new(LIST_LANGUAGES, description, object(arguments))
        .with_title("List languages")
        .with_raw_output_schema(Arc::new(object(result)))
        .with_annotations(hints(true).open_world(false))
}

fn hints(reads_only: bool) -> ToolAnnotations {
    ToolAnnotations::new().read_only(reads_only).destructive(false).idempotent(reads_only)
}

fn object(schema: Value) -> JsonObject {
    match schema {
        Value::Object(members) => members,
        _ => unreachable!("a schema is an object"),
    }
}
