//! `/templates`: the templates of the configuration, as E2B's clients see them.
//!
//! Source: e2b-dev/infra, `spec/openapi.yml`, schemas `Template` and `TemplateWithBuilds`.

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::query::Query;
use super::shapes;
use crate::http::AppState;
use crate::http::e2b::error::E2bError;
use crate::sandbox::{Sandboxes, Template};

type E2bResult<T> = Result<T, E2bError>;

/// The tag of every template here: each has one build, the one that the configuration names.
const TAG: &str = "default";

/// The time since which the templates are there: the start of the server.
static SINCE: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

pub(super) fn routes() -> Router<AppState> {
    LazyLock::force(&SINCE);
    Router::new()
        .route("/templates", get(list).post(not_built_here))
        .route("/v2/templates", get(list_in_pages).post(not_built_here))
        .route("/v3/templates", any(not_built_here))
        .route("/templates/aliases/{alias}", get(by_alias).post(not_built_here))
        .route("/templates/{id}", get(detail).post(not_built_here).patch(not_built_here).delete(not_built_here))
        .route("/templates/{id}/{*rest}", any(not_built_here))
        .route("/v2/templates/{*rest}", any(not_built_here))
}

/// Finds the template of a reference: `name`, `namespace/name`, `name:default` or both.
pub(super) fn find(sandboxes: &Sandboxes, reference: &str) -> E2bResult<Arc<Template>> {
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
async fn by_alias(State(sandboxes): State<Sandboxes>, Path(alias): Path<String>) -> E2bResult<Json<Value>> {
    let unknown = || E2bError::new(StatusCode::NOT_FOUND, format!("template '{alias}' not found"));
    let template = find(&sandboxes, &alias).map_err(|_| unknown())?;
    Ok(Json(json!({"templateID": template.name, "public": true})))
}

/// Responds to requests that would change templates.
async fn not_built_here(uri: Uri) -> E2bError {
    let message = format!(
        "{} is not offered here: templates are part of the server's configuration; to add one, build an image on the \
         server's machine and name it in config/templates (docs/configuration.md, \"An image of your own\")",
        uri.path()
    );
    E2bError::new(StatusCode::NOT_IMPLEMENTED, message)
}

async fn list(State(sandboxes): State<Sandboxes>) -> Json<Vec<Value>> {
    Json(sandboxes.templates().iter().map(|template| shape(template)).collect())
}

/// The largest page of a list.
const MAX_PAGE: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageQuery {
    limit: Option<usize>,
    /// The name of the last template on the page before.
    next_token: Option<String>,
}

async fn list_in_pages(
    State(sandboxes): State<Sandboxes>,
    Query(PageQuery { limit, next_token }): Query<PageQuery>,
) -> E2bResult<Response> {
    let limit = limit.unwrap_or(MAX_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(E2bError::bad_request(format!("limit: must be from 1 to {MAX_PAGE}, not {limit}")));
    }
    let templates = sandboxes.templates();
    let start = match next_token {
        None => 0,
        Some(last) => {
            let place = templates.iter().position(|template| template.name == last);
            place.ok_or_else(|| E2bError::bad_request("nextToken: not a token of this server"))? + 1
        }
    };
    let rest = &templates[start..];
    let page = &rest[..limit.min(rest.len())];
    let next = page.last().filter(|_| page.len() < rest.len()).map(|last| [("x-next-token", last.name.clone())]);
    let shapes: Vec<_> = page.iter().map(|template| shape(template)).collect();
    Ok(match next {
        Some(header) => (header, Json(shapes)).into_response(),
        None => Json(shapes).into_response(),
    })
}

async fn detail(State(sandboxes): State<Sandboxes>, Path(id): Path<String>) -> E2bResult<Json<Value>> {
    let template = find(&sandboxes, &id)?;
    let mut shape = shape(&template);
    let member = |name: &str| shape[name].clone();
    let mut build = json!({"status": "ready", "finishedAt": member("updatedAt")});
    for name in ["buildID", "createdAt", "updatedAt", "cpuCount", "memoryMB", "diskSizeMB", "envdVersion"] {
        build[name] = member(name);
    }
    shape["builds"] = json!([build]);
    Ok(Json(shape))
}

/// Renders a template. Here every template is one of the platform's, and belongs to no client: E2B too leaves the
/// figures about its use out then.
fn shape(template: &Template) -> Value {
    let names: Vec<_> = std::iter::once(&template.name).chain(&template.aliases).collect();
    let since = shapes::rfc3339(*SINCE);
    let size = shapes::Size::of(template);
    json!({
        "templateID": template.name,
        "buildID": build_id(template),
        "cpuCount": size.cpu_count,
        "memoryMB": size.memory_mb,
        "diskSizeMB": size.disk_size_mb,
        "public": true,
        "aliases": names,
        "names": names,
        "createdAt": since,
        "updatedAt": since,
        "createdBy": null,
        "lastSpawnedAt": null,
        "spawnCount": 0,
        "buildCount": 0,
        "envdVersion": shapes::ENVD_VERSION,
        "buildStatus": "ready",
        "isDefault": true,
    })
}

/// Returns an id that changes with the image of the template: a UUID of version 8, as clients expect.
fn build_id(template: &Template) -> String {
    let digest = Sha256::new().chain_update(&template.name).chain_update([0]).chain_update(&template.image).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    shapes::uuid(bytes)
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
