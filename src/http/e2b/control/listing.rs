//! `GET /v2/sandboxes`: the list of sandboxes, filtered and in pages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::query::Query;
use super::shapes::ListedSandbox;
use crate::http::e2b::error::E2bError;
use crate::sandbox::{Owner, Sandbox, Sandboxes};

const MAX_PAGE: usize = 100;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListQuery {
    metadata: Option<String>,
    state: Option<String>,
    order: Option<String>,
    started_after: Option<String>,
    template: Option<String>,
    next_token: Option<String>,
    limit: Option<usize>,
}

/// `GET /sandboxes`: the running sandboxes, without pages.
pub(super) async fn list_v1(
    State(sandboxes): State<Sandboxes>,
    Extension(owner): Extension<Owner>,
    Query(ListQuery { metadata, .. }): Query<ListQuery>,
) -> Result<axum::Json<Vec<ListedSandbox>>, E2bError> {
    let query = ListQuery { metadata, state: Some("running".to_owned()), ..ListQuery::default() };
    let found = filtered(&sandboxes, owner, &query)?;
    Ok(axum::Json(found.iter().map(|sandbox| ListedSandbox::new(sandbox)).collect()))
}

/// `GET /v2/sandboxes`: one page. The header `x-next-token` is present if, and only if, there are further sandboxes.
pub(super) async fn list_v2(
    State(sandboxes): State<Sandboxes>,
    Extension(owner): Extension<Owner>,
    Query(query): Query<ListQuery>,
) -> Result<Response, E2bError> {
    let mut found = filtered(&sandboxes, owner, &query)?;
    let ascending = match query.order.as_deref() {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(other) => return Err(E2bError::bad_request(format!("order: must be asc or desc, not `{other}`"))),
    };
    let limit = query.limit.unwrap_or(MAX_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(E2bError::bad_request(format!("limit: must be from 1 to {MAX_PAGE}, not {limit}")));
    }
    let position = |sandbox: &Arc<Sandbox>| (micros(sandbox.started), sandbox.id.clone());
    found.sort_by_key(position);
    if !ascending {
        found.reverse();
    }
    if let Some(token) = &query.next_token {
        let last = read_token(token).ok_or_else(|| E2bError::bad_request("nextToken: not a token of this server"))?;
        found.retain(|sandbox| if ascending { position(sandbox) > last } else { position(sandbox) < last });
    }
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| write_token(&position(last)));
    let page: Vec<_> = found.iter().map(|sandbox| ListedSandbox::new(sandbox)).collect();
    let headers = next.map(|token| [("x-next-token", token)]);
    Ok((headers.map(IntoResponse::into_response).unwrap_or_default().headers().clone(), axum::Json(page))
        .into_response())
}

fn filtered(sandboxes: &Sandboxes, owner: Owner, query: &ListQuery) -> Result<Vec<Arc<Sandbox>>, E2bError> {
    let metadata = query.metadata.as_deref().map(read_metadata).unwrap_or_default();
    let states: Vec<_> = query.state.as_deref().unwrap_or("running,paused").split(',').collect();
    if let Some(other) = states.iter().find(|state| !matches!(**state, "running" | "paused")) {
        return Err(E2bError::bad_request(format!("state: must be running or paused, not `{other}`")));
    }
    let after = match query.started_after.as_deref() {
        None => UNIX_EPOCH,
        Some(text) => humantime::parse_rfc3339_weak(&text.replace("+00:00", "Z"))
            .map_err(|err| E2bError::bad_request(format!("startedAfter: {err}")))?,
    };
    let matches = |sandbox: &Arc<Sandbox>| {
        let spec = &sandbox.spec;
        let state = if sandbox.life().paused { "paused" } else { "running" };
        spec.owner == owner
            && states.contains(&state)
            && sandbox.started >= after
            && query.template.as_deref().is_none_or(|name| spec.template.is_called(name))
            && metadata.iter().all(|(key, value)| spec.metadata.get(key) == Some(value))
    };
    Ok(sandboxes.all().into_iter().filter(matches).collect())
}

/// Parses the metadata filter. SDKs percent-encode keys and values, form-encode the pairs, and put the result into the
/// query; axum has undone the last step.
fn read_metadata(text: &str) -> BTreeMap<String, String> {
    let pairs = form_urlencoded::parse(text.as_bytes());
    pairs.map(|(key, value)| (percent_decode(&key), percent_decode(&value))).collect()
}

fn percent_decode(text: &str) -> String {
    // Decodes the text as a form with a single key and no value.
    let form = text.replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(form.as_bytes()).next().map(|(text, _)| text.into_owned()).unwrap_or_default()
}

fn micros(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_micros()
}

fn write_token((micros, id): &(u128, String)) -> String {
    URL_SAFE_NO_PAD.encode(format!("{micros}__{id}"))
}

fn read_token(token: &str) -> Option<(u128, String)> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let (micros, id) = text.split_once("__")?;
    Some((micros.parse().ok()?, id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_filter_is_decoded_three_times() {
        // An SDK sends {"a b": "c&d"} as `metadata=a%252520b%3Dc%252526d`; axum decodes the first layer.
        let found = read_metadata("a%2520b=c%2526d");
        assert_eq!(found, BTreeMap::from([("a b".to_owned(), "c&d".to_owned())]));
        let two = read_metadata("a=1&b=%253D");
        assert_eq!(two, BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "=".to_owned())]));
    }

    #[test]
    fn a_page_token_is_read_back() {
        let position = (1_234_567, "iabc".to_owned());
        assert_eq!(read_token(&write_token(&position)), Some(position));
        assert_eq!(read_token("nonsense"), None);
    }
}
