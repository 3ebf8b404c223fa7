//! Templates, as E2B's clients name them.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::http::AppState;
use crate::http::e2b::error::E2bError;
use crate::sandbox::{Sandboxes, Template};

/// The tag of every template here: each has one build, the one that the configuration names.
const TAG: &str = "default";

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/templates/aliases/{alias}", get(by_alias))
}

/// Finds the template of a reference: `name`, `namespace/name`, `name:default` or both.
pub(super) fn find(sandboxes: &Sandboxes, reference: &str) -> Result<Arc<Template>, E2bError> {
    let (name, tag) = parse(reference)
        .ok_or_else(|| E2bError::bad_request(format!("templateID: `{reference}` is not a template reference")))?;
    let found = sandboxes.kept_template(name).filter(|_| tag == TAG);
    found.ok_or_else(|| E2bError::new(StatusCode::NOT_FOUND, format!("template '{reference}' not found")))
}

/// Returns the name and the tag in a reference. Namespaces belong to E2B's teams; here there is one for all.
fn parse(reference: &str) -> Option<(&str, &str)> {
    let reference = reference.rsplit('/').next().unwrap_or_default();
    let (name, tag) = reference.split_once(':').unwrap_or((reference, TAG));
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    [name, tag].iter().all(|part| !part.is_empty() && part.chars().all(allowed)).then_some((name, tag))
}

/// Looks up a template by its name or alias, for the SDKs' `Template.exists`.
async fn by_alias(State(sandboxes): State<Sandboxes>, Path(alias): Path<String>) -> Result<Json<Value>, E2bError> {
    let unknown = || E2bError::new(StatusCode::NOT_FOUND, format!("template '{alias}' not found"));
    let template = find(&sandboxes, &alias).map_err(|_| unknown())?;
    Ok(Json(json!({"templateID": template.name, "public": true})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_may_have_a_namespace_and_a_tag() {
        for (reference, parsed) in [
            ("base", Some(("base", "default"))),
            ("team/base", Some(("base", "default"))),
            ("team/base:v2", Some(("base", "v2"))),
            ("", None),
            ("team/", None),
            ("base:", None),
            ("base:a:b", None),
            ("../x y", None),
        ] {
            assert_eq!(parse(reference), parsed, "{reference}");
        }
    }
}
