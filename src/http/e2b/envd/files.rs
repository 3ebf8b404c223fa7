//! `GET /files`: downloads of files.
//!
//! Source: e2b-dev/infra, `packages/envd/internal/api/download.go`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::{Stream, StreamExt};

use super::signature::{FilesQuery, unauthorized};
use super::{filesystem, upload};
use crate::http::e2b::access::access_token_matches;
use crate::http::e2b::error::E2bError;
use crate::http::e2b::operation_error::operation_error;
use crate::protocol::ReadQuery;
use crate::sandbox::{OperationError, Sandbox};

pub(in crate::http::e2b) fn routes() -> Router {
    Router::new()
        .route("/files", get(download).post(upload::upload))
        .layer(middleware::from_fn(require_token_or_signature))
}

impl<S: Send + Sync> FromRequestParts<S> for FilesQuery {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::from_uri(&parts.uri))
    }
}

/// Checks the token or the signature of a request, and that its query states each parameter once.
pub(super) fn check_access(sandbox: &Sandbox, request: &Request) -> Result<(), E2bError> {
    let query = FilesQuery::from_uri(request.uri());
    match access_token_matches(sandbox, request.headers()) {
        Some(true) => {}
        Some(false) => return Err(unauthorized("access token present in header but does not match")),
        None if !sandbox.spec.secure && !query.is_signed() => {}
        None => query.check(&sandbox.token, request.method())?,
    }
    query.check_parameters()
}

async fn require_token_or_signature(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    request: Request,
    next: Next,
) -> Response {
    match check_access(&sandbox, &request) {
        Ok(()) => next.run(request).await,
        Err(err) => err.into_response(),
    }
}

/// `GET /files`: the file, as Go's `http.ServeContent` sends it, except that a request for several ranges gets the
/// whole file.
async fn download(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    query: FilesQuery,
    headers: HeaderMap,
) -> Result<Response, E2bError> {
    if refuses_uncompressed(&headers) {
        return Err(E2bError::new(
            StatusCode::NOT_ACCEPTABLE,
            "no acceptable encoding found: files are sent uncompressed",
        ));
    }
    let path = query.path.unwrap_or_default();
    let mut read = ReadQuery { path, user: query.username, ..ReadQuery::default() };
    let mut content = sandbox.read(&read).await.map_err(operation_error)?;
    let (size, modified) = (content.size, filesystem::time(content.modified_ns));

    let mut response_headers = HeaderMap::new();
    response_headers.insert(header::LAST_MODIFIED, http_date(modified));
    response_headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    match condition(&headers, modified) {
        Condition::Send => {}
        Condition::NotModified => return Ok((StatusCode::NOT_MODIFIED, response_headers).into_response()),
        Condition::Failed => return Ok((StatusCode::PRECONDITION_FAILED, response_headers).into_response()),
    }
    let (status, length) = match range(&headers, modified, size) {
        Range::Whole => (StatusCode::OK, size),
        Range::Part { first, length } => {
            read = ReadQuery { offset: first, length: Some(length), ..read };
            content = sandbox.read(&read).await.map_err(operation_error)?;
            let part = format!("bytes {first}-{}/{size}", first + length - 1);
            response_headers.insert(header::CONTENT_RANGE, part.parse().expect("numbers are valid"));
            (StatusCode::PARTIAL_CONTENT, length)
        }
        Range::Nothing => {
            response_headers
                .insert(header::CONTENT_RANGE, format!("bytes */{size}").parse().expect("a number is valid"));
            let error = E2bError::new(StatusCode::RANGE_NOT_SATISFIABLE, "invalid range: failed to overlap");
            return Ok((response_headers, error).into_response());
        }
    };
    response_headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response_headers.insert(header::CONTENT_DISPOSITION, disposition(&read.path));
    // Files of procfs have a size of 0 but may have content.
    let body = if size == 0 {
        Body::from_stream(content.bytes)
    } else {
        response_headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        Body::from_stream(truncated(content.bytes, length))
    };
    Ok((status, response_headers, body).into_response())
}

/// Ends the content after `length` bytes, in case the file grows during the download.
fn truncated(
    bytes: impl Stream<Item = Result<Bytes, OperationError>> + Send + 'static,
    length: u64,
) -> impl Stream<Item = Result<Bytes, OperationError>> + Send + 'static {
    bytes.scan(length, |left, piece| {
        let piece = piece.map(|mut piece| {
            piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= piece.len() as u64;
            piece
        });
        // If the content ends too early instead, the response is shorter than its `Content-Length`, which aborts it.
        std::future::ready(piece.as_ref().map_or(true, |piece| !piece.is_empty()).then_some(piece))
    })
}

/// Returns whether the client accepts only compressed content.
fn refuses_uncompressed(headers: &HeaderMap) -> bool {
    let text = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let weight = |name: &str| {
        text.split(',').find_map(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            parts.next().filter(|coding| coding.eq_ignore_ascii_case(name))?;
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
            Some(weight.unwrap_or(1.0))
        })
    };
    weight("identity").or_else(|| weight("*")).is_some_and(|weight| weight <= 0.0)
}

fn http_date(time: SystemTime) -> HeaderValue {
    httpdate::fmt_http_date(time).parse().expect("a date is a valid value")
}

#[derive(Debug, PartialEq, Eq)]
enum Condition {
    Send,
    NotModified,
    Failed,
}

fn condition(headers: &HeaderMap, modified: SystemTime) -> Condition {
    let newer_than = |name: HeaderName| Some(whole_seconds(modified) > whole_seconds(date(headers, &name)?));
    match (newer_than(header::IF_UNMODIFIED_SINCE), newer_than(header::IF_MODIFIED_SINCE)) {
        (Some(true), _) => Condition::Failed,
        (_, Some(false)) => Condition::NotModified,
        _ => Condition::Send,
    }
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

/// Truncates a time to whole seconds, the precision of dates in headers.
fn whole_seconds(time: SystemTime) -> Duration {
    Duration::from_secs(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    Whole,
    Part { first: u64, length: u64 },
    Nothing,
}

/// Returns the requested range of a file. An invalid range counts as none.
fn range(headers: &HeaderMap, modified: SystemTime, size: u64) -> Range {
    let same = headers.get(header::IF_RANGE).is_none()
        || date(headers, &header::IF_RANGE).is_some_and(|date| whole_seconds(date) == whole_seconds(modified));
    let text = headers.get(header::RANGE).and_then(|value| value.to_str().ok()).filter(|_| same && size > 0);
    text.and_then(|text| parse_range(text, size)).unwrap_or(Range::Whole)
}

fn parse_range(text: &str, size: u64) -> Option<Range> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (first, end) = match (first.trim(), last.trim()) {
        ("", last) => (size.saturating_sub(number(last)?), size),
        (first, "") => (number(first)?, size),
        (first, last) => (number(first)?, number(last)?.saturating_add(1).min(size)),
    };
    match end.checked_sub(first) {
        Some(length) if length > 0 => Some(Range::Part { first, length }),
        // A range whose last byte is before its first is invalid. A range after the end of the file contains nothing.
        _ if first < size && !last.trim().is_empty() && !text.starts_with("bytes=-") => None,
        _ => Some(Range::Nothing),
    }
}

/// Returns the `Content-Disposition`: the content may be displayed, and has the file's own name.
///
/// Source: Go, `mime.FormatMediaType`.
fn disposition(path: &str) -> HeaderValue {
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte);
    let text = if !name.is_empty() && name.bytes().all(is_plain) {
        format!("inline; filename={name}")
    } else if name.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
        format!("inline; filename=\"{escaped}\"")
    } else {
        let encoded = name.bytes().map(|byte| match is_plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        });
        format!("inline; filename*=utf-8''{}", encoded.collect::<String>())
    };
    HeaderValue::from_str(&text).expect("only printable ASCII is left")
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn file_names_are_encoded_for_a_header() {
        for (path, value) in [
            ("/a/b.txt", "inline; filename=b.txt"),
            ("with space", "inline; filename=\"with space\""),
            ("q\"\\", "inline; filename=\"q\\\"\\\\\""),
            ("/x/\u{e9}\n", "inline; filename*=utf-8''%C3%A9%0A"),
            ("", "inline; filename=\"\""),
        ] {
            assert_eq!(disposition(path), value);
        }
    }

    #[test]
    fn ranges_are_limited_to_the_file() {
        let part = |first, length| Some(Range::Part { first, length });
        for (text, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-", part(2, 8)),
            ("bytes=2-100", part(2, 8)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-30", part(0, 10)),
            ("bytes=0-18446744073709551615", part(0, 10)),
            ("bytes=10-", Some(Range::Nothing)),
            ("bytes=12-13", Some(Range::Nothing)),
            ("bytes=-0", Some(Range::Nothing)),
            ("bytes=5-2", None),
            ("bytes=0-1,3-4", None),
            ("lines=1-2", None),
            ("bytes=--1", None),
        ] {
            assert_eq!(parse_range(text, 10), expected, "{text}");
        }
    }

    #[test]
    fn a_range_of_another_version_is_the_whole_file() {
        let modified = UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
        let range =
            |since: &str| range(&headers(&[(header::RANGE, "bytes=0-0"), (header::IF_RANGE, since)]), modified, 9);
        assert_eq!(range("Tue, 14 Nov 2023 22:13:20 GMT"), Range::Part { first: 0, length: 1 });
        assert_eq!(range("Tue, 14 Nov 2023 22:13:21 GMT"), Range::Whole);
        assert_eq!(range("\"tag\""), Range::Whole);
    }

    #[test]
    fn conditions_compare_dates() {
        let modified = UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
        let (before, same) = ("Tue, 14 Nov 2023 22:13:19 GMT", "Tue, 14 Nov 2023 22:13:20 GMT");
        let condition = |name, value| condition(&headers(&[(name, value)]), modified);
        assert_eq!(condition(header::IF_MODIFIED_SINCE, same), Condition::NotModified);
        assert_eq!(condition(header::IF_MODIFIED_SINCE, before), Condition::Send);
        assert_eq!(condition(header::IF_UNMODIFIED_SINCE, before), Condition::Failed);
        assert_eq!(condition(header::IF_UNMODIFIED_SINCE, "whenever"), Condition::Send);
    }

    #[test]
    fn only_clients_that_refuse_uncompressed_content_get_an_error() {
        let refuses = |value| refuses_uncompressed(&headers(&[(header::ACCEPT_ENCODING, value)]));
        assert!(refuses("gzip, identity;q=0") && refuses("gzip;q=1, *;q=0"));
        assert!(!refuses("gzip, deflate") && !refuses("*;q=0, identity") && !refuses("") && !refuses("gzip;q=0"));
    }

    #[tokio::test]
    async fn a_growing_file_is_truncated() {
        let pieces = ["abc", "def", "ghi"].map(|piece| Ok(Bytes::from(piece)));
        let kept: Vec<_> = truncated(futures::stream::iter(pieces), 4).try_collect().await.expect("pieces");
        assert_eq!(kept.concat(), b"abcd");
    }
}
