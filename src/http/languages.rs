//! The languages of single runs, in the shape that the dialects share.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::sandbox::{NetworkKind, Sandboxes, ShelfStatus};

/// The response of `GET /v1/languages`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Languages {
    languages: Vec<Language>,
}

/// A language that code can be run in.
#[derive(Debug, Serialize, ToSchema)]
struct Language {
    /// The name in requests.
    name: String,
    /// Other names for it.
    aliases: Vec<String>,
    /// The endings of its files, without the dot.
    extensions: Vec<String>,
    /// The version of the interpreter; `null` until the first sandbox of the language has started.
    #[schema(required)]
    version: Option<String>,
    /// The preinstalled packages and their versions; `null` until the first sandbox of the language has started.
    #[schema(required)]
    packages: Option<BTreeMap<String, String>>,
    network: NetworkKind,
    limits: LanguageLimits,
}

/// The limits of a language's template.
#[derive(Debug, Serialize, ToSchema)]
struct LanguageLimits {
    /// The default time of a run, milliseconds.
    timeout_ms: u64,
    /// The longest time that a run can request, milliseconds.
    max_timeout_ms: u64,
    memory_bytes: u64,
    /// Processor time, thousandths of a processor.
    cpu_millis: u64,
    processes: u64,
    disk_bytes: u64,
    output_bytes: u64,
}

impl From<&ShelfStatus> for Language {
    fn from(shelf: &ShelfStatus) -> Self {
        let template = &shelf.template;
        Self {
            name: template.name.clone(),
            aliases: template.aliases.clone(),
            extensions: template.extensions.clone(),
            version: shelf.language.as_ref().map(|language| language.version.clone()),
            packages: shelf.language.as_ref().map(|language| language.packages.clone()),
            network: template.network,
            limits: LanguageLimits {
                timeout_ms: template.timeout_ms,
                max_timeout_ms: template.max_timeout_ms,
                memory_bytes: template.memory_bytes,
                cpu_millis: template.cpu_millis,
                processes: template.processes,
                disk_bytes: template.disk_bytes,
                output_bytes: template.output_bytes,
            },
        }
    }
}

/// Returns the languages. The image reports version and packages.
pub(crate) fn languages(sandboxes: &Sandboxes) -> Languages {
    let shelves = sandboxes.status().shelves;
    Languages { languages: shelves.iter().filter(|shelf| shelf.template.runs).map(Language::from).collect() }
}
