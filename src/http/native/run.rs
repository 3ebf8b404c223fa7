//! `POST /v1/run`: runs code and returns its results, in one response or as a stream of events.

use std::convert::Infallible;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, header};
use axum::response::sse::{self, Sse};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::described::RunErrors;
use super::shapes::{ExceptionResponse, OutputResponse, RunResponse, error_text};
use crate::http::error::ApiError;
use crate::http::json::Json;
use crate::http::origin::Source;
use crate::http::run_request::RunRequest;
use crate::protocol::{End, Event};
use crate::sandbox::{Owner, Place, Running, Sandboxes};

/// What a stream looks like.
const EXAMPLE: &str = r#"event: stdout
data: {"text":"hello\n"}

event: output
data: {"text/plain":"42","main":true}

event: end
data: {"outcome":{"kind":"ok","message":"the code ran to its end"},"usage":{"wall_ms":3},"sandbox":{"template":"...","warm":true,"wait_ms":0}}

"#;

/// Runs code
///
/// In a sandbox of its own, which is removed afterwards. If the client hangs up, the run is cancelled. The answer is 200
/// however the code ends; `outcome` names the end. With `Accept: text/event-stream`, the answer is a stream of the events
/// `stdout`, `stderr` and `output` as they happen, then `error` if the outcome is not `ok`, then `end`.
#[utoipa::path(post, path = "/v1/run", tag = "run", request_body = RunRequest, responses(
    (status = 200, description = "The code has ended.", content(
        (RunResponse = "application/json"),
        (String = "text/event-stream", example = json!(EXAMPLE)),
    )),
    RunErrors,
))]
pub(super) async fn run(
    State(sandboxes): State<Sandboxes>,
    Extension(owner): Extension<Owner>,
    source: Source,
    headers: HeaderMap,
    Json(request, _): Json<RunRequest, ApiError>,
) -> Result<Response, ApiError> {
    let template = sandboxes.template(&request.language)?;
    let running = sandboxes.run(request.check(template, owner, source.by("run"))?).await?;
    if wants_events(&headers) {
        return Ok(events(running).into_response());
    }
    Ok(axum::Json(RunResponse::from(running.report().await)).into_response())
}

fn wants_events(headers: &HeaderMap) -> bool {
    // Several lines are one list.
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|list| list.split(',')).any(|kind| kind.trim().starts_with("text/event-stream"))
}

/// Streams `stdout`, `stderr` and `output` events as they happen, then `error` if the outcome is not `ok`, then `end`.
fn events(running: Running) -> Sse<impl futures::Stream<Item = Result<sse::Event, Infallible>>> {
    let stream = futures::stream::unfold(Some(running), |running| async {
        let mut running = running?;
        let event = running.next().await?;
        let place = running.place.clone();
        let over = matches!(event, Event::End(_));
        let events = futures::stream::iter(translate(event, place).into_iter().map(Ok));
        // The sandbox is removed right after the last event, without waiting for the client to hang up.
        Some((events, (!over).then_some(running)))
    });
    Sse::new(futures::StreamExt::flatten(stream)).keep_alive(sse::KeepAlive::default())
}

fn translate(event: Event, place: Place) -> Vec<sse::Event> {
    match event {
        Event::Stdout { text } => vec![named("stdout", &json!({"text": text}))],
        Event::Stderr { text } => vec![named("stderr", &json!({"text": text}))],
        Event::Output(output) => vec![named("output", &OutputResponse::from(output))],
        Event::End(End { outcome, exception, usage, lost: _ }) => {
            let error = error_text(&outcome, exception.as_ref()).map(|error| {
                named("error", &json!({"error": error, "exception": exception.map(ExceptionResponse::from)}))
            });
            let end = named("end", &json!({"outcome": outcome, "usage": usage, "sandbox": place}));
            error.into_iter().chain([end]).collect()
        }
    }
}

fn named(name: &str, data: &impl Serialize) -> sse::Event {
    sse::Event::default().event(name).json_data(data).expect("our own shapes can be written as JSON")
}
