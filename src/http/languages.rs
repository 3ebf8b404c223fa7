//! The languages of single runs, in the shape that the dialects share.

use serde_json::{Value, json};

use crate::sandbox::{Sandboxes, ShelfStatus};

/// Returns the names, aliases, versions, preinstalled packages and limits. The image reports version and packages; they
/// are `null` until the first sandbox of the language has started.
pub(crate) fn languages(sandboxes: &Sandboxes) -> Value {
    let language = |shelf: &ShelfStatus| {
        let template = &shelf.template;
        json!({
            "name": template.name,
            "aliases": template.aliases,
            "extensions": template.extensions,
            "version": shelf.language.as_ref().map(|language| &language.version),
            "packages": shelf.language.as_ref().map(|language| &language.packages),
            "network": template.network,
            "limits": {
                "timeout_ms": template.timeout_ms,
                "max_timeout_ms": template.max_timeout_ms,
                "memory_bytes": template.memory_bytes,
                "cpu_millis": template.cpu_millis,
                "processes": template.processes,
                "disk_bytes": template.disk_bytes,
                "output_bytes": template.output_bytes,
            },
        })
    };
    let languages: Vec<_> =
        sandboxes.status().shelves.iter().filter(|shelf| shelf.template.runs).map(language).collect();
    json!({"languages": languages})
}
