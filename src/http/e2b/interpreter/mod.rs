//! A sandbox's interpreters: `/execute` and `/contexts`.
//!
//! Source: e2b-dev/code-interpreter, `template/server/main.py`.

pub(in crate::http::e2b) mod events;
pub(in crate::http::e2b) mod renderer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Value, json};

use super::letta::{self, LastExecution};
use super::proxy::lifetime::while_it_lives;
use super::refusal;
use crate::http::AppState;
use crate::http::json::{JsonError, parse};
use crate::protocol::{Code, Context, Execute, Limits, Mode, StartContext};
use crate::sandbox::{Execution, OperationError, Sandbox, Sandboxes};
use renderer::Renderer;

/// Without output for this long, a line says that the execution still runs; a client that has gone is noticed by it.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The largest request, bytes. It is held, once, while it is read.
const MAX_BODY_BYTES: usize = 32 << 20;

pub(in crate::http::e2b) fn routes(state: AppState) -> Router {
    Router::new()
        .route("/health", get(|| async { Json("OK") }))
        .route("/execute", post(execute))
        .route("/contexts", get(list).post(create))
        .route("/contexts/{id}", delete(remove))
        .route("/contexts/{id}/restart", post(restart))
        .fallback(|| async { undone(StatusCode::NOT_FOUND, "Not Found") })
        .method_not_allowed_fallback(|| async { undone(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .layer(middleware::from_fn(while_it_lives))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(state)
}

/// What E2B's server makes of a request that is for nothing it has.
fn undone(status: StatusCode, detail: &str) -> Response {
    (status, Json(json!({"detail": detail}))).into_response()
}

/// An answer that is no success: plain text, but for bodies that make no sense.
enum Refusal {
    Plain(StatusCode, String),
    Body(JsonError),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Plain(status, text) => (status, text).into_response(),
            Self::Body(err) => {
                let detail = json!([{"type": "value_error", "loc": ["body"], "msg": err.message}]);
                (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"detail": detail}))).into_response()
            }
        }
    }
}

impl From<JsonError> for Refusal {
    fn from(err: JsonError) -> Self {
        Self::Body(err)
    }
}

#[derive(Debug, Deserialize)]
struct ExecuteRequest {
    code: String,
    context_id: Option<String>,
    language: Option<String>,
    env_vars: Option<BTreeMap<String, String>>,
}

async fn execute(
    State(state): State<AppState>,
    Extension(sandbox): Extension<Arc<Sandbox>>,
    body: Bytes,
) -> Result<Response, Refusal> {
    let request: ExecuteRequest = parse(&body)?;
    let profile = state.api_keys.profile(sandbox.spec.owner);
    let last = LastExecution::of(profile, &state.sandboxes, &sandbox.id);
    let (context, language) = match (request.context_id, request.language) {
        (Some(_), Some(_)) => {
            let text = "Only one of context_id or language can be provided".to_owned();
            return Err(Refusal::Plain(StatusCode::BAD_REQUEST, text));
        }
        (Some(id), None) => {
            let contexts = sandbox.contexts().await.map_err(|err| refusal(err, &id))?;
            // One that is not there is refused by the execution.
            let language = contexts.into_iter().find(|context| context.id == id).map(|context| context.language);
            (id, language.unwrap_or_default())
        }
        (None, language) => {
            let language = language_named(&sandbox, &state.sandboxes, language.as_deref());
            let context = sandbox.default_context(&language).await.map_err(|err| not_started(&err, &language))?;
            (context, language)
        }
    };
    let limits = Limits { timeout_ms: 0, ..sandbox.spec.template.limits() };
    let execute = Execute {
        context: context.clone(),
        code: request.code,
        env: request.env_vars.unwrap_or_default(),
        mode: Mode::Notebook,
        formats: events::FORMATS.map(str::to_owned).to_vec(),
        limits,
        ..Execute::default()
    };
    let execution = sandbox.execute(&execute).await.map_err(|err| refusal(err, &context))?;
    let renderer = letta::renderer(profile, &sandbox, &language);
    // Held until the answer is over, or its client is gone.
    let lines = lines(execution, renderer).inspect(move |_| _ = &last);
    let body = Body::from_stream(lines);
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// The lines of an answer. When the sandbox is lost they end with an error, which breaks the connection: an orderly end
/// would look like an empty success.
fn lines(
    execution: Execution,
    renderer: Renderer,
) -> impl futures::Stream<Item = Result<Bytes, OperationError>> + Send + 'static {
    let first = events::count(execution.number);
    let first = futures::stream::once(std::future::ready(Ok(first)));
    let rest = futures::stream::unfold((execution, renderer), async |(mut execution, mut renderer)| {
        let line = tokio::select! {
            event = execution.next() => event?.map(|event| renderer.render(event)),
            () = tokio::time::sleep(KEEP_ALIVE) => Ok(events::keep_alive()),
        };
        Some((line, (execution, renderer)))
    });
    // A line of output that has only begun is nothing to say yet.
    first.chain(rest).try_filter(|told| std::future::ready(!told.is_empty()))
}

/// The language as images call it: by one of its names, or the template's own if none is given.
fn language_named(sandbox: &Sandbox, sandboxes: &Sandboxes, asked: Option<&str>) -> String {
    let asked = asked.unwrap_or_default().trim().to_lowercase();
    if asked.is_empty() {
        return match sandbox.spec.template.language.as_str() {
            // A template without an interpreter of its own has that of the code interpreter.
            "" => sandboxes.default_language().to_owned(),
            language => language.to_owned(),
        };
    }
    let runs = |name: &str| sandboxes.templates().iter().find(|template| template.runs && template.is_called(name));
    runs(&asked).map_or(asked.clone(), |template| template.language.clone())
}

async fn start(sandbox: &Sandbox, language: &str, cwd: Option<String>) -> Result<Context, Refusal> {
    let asked = StartContext { language: language.to_owned(), cwd, ..StartContext::default() };
    match sandbox.start_context(&asked).await {
        // A directory that does not exist leaves the interpreter where it starts.
        Err(OperationError::Refused { code: Code::InvalidArgument | Code::NotFound, .. }) if asked.cwd.is_some() => {
            Box::pin(start(sandbox, language, None)).await
        }
        started => started.map_err(|err| not_started(&err, language)),
    }
}

fn not_started(err: &OperationError, language: &str) -> Refusal {
    let reason = json!({"message": format!("The '{language}' kernel is not available"), "reason": err.to_string()});
    Refusal::Plain(StatusCode::INTERNAL_SERVER_ERROR, format!("Failed to create context: {reason}"))
}

fn refusal(err: OperationError, context: &str) -> Refusal {
    match err {
        OperationError::Refused { code: Code::NotFound, .. } => {
            Refusal::Plain(StatusCode::NOT_FOUND, format!("Context {context} not found"))
        }
        OperationError::Refused { code, message } => Refusal::Plain(refusal::status(code), message),
        err @ OperationError::Lost(_) => {
            Refusal::Plain(StatusCode::BAD_GATEWAY, format!("The sandbox was not found: {err}"))
        }
        err @ OperationError::Unfinished(_) => {
            tracing::error!(error = &err as &dyn std::error::Error, "{err}");
            Refusal::Plain(StatusCode::INTERNAL_SERVER_ERROR, err.to_string())
        }
    }
}

fn shape(context: Context) -> Value {
    json!({"id": context.id, "language": context.language, "cwd": context.cwd})
}

async fn list(Extension(sandbox): Extension<Arc<Sandbox>>) -> Result<Json<Vec<Value>>, Refusal> {
    let contexts = sandbox.contexts().await.map_err(|err| refusal(err, ""))?;
    Ok(Json(contexts.into_iter().map(shape).collect()))
}

#[derive(Debug, Default, Deserialize)]
struct CreateRequest {
    cwd: Option<String>,
    language: Option<String>,
}

async fn create(
    State(sandboxes): State<Sandboxes>,
    Extension(sandbox): Extension<Arc<Sandbox>>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let request: CreateRequest = if body.is_empty() { CreateRequest::default() } else { parse(&body)? };
    let language = language_named(&sandbox, &sandboxes, request.language.as_deref());
    start(&sandbox, &language, request.cwd).await.map(|context| Json(shape(context)))
}

async fn restart(Extension(sandbox): Extension<Arc<Sandbox>>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    sandbox.restart_context(&id).await.map_err(|err| refusal(err, &id))?;
    Ok(Json(Value::Null))
}

async fn remove(Extension(sandbox): Extension<Arc<Sandbox>>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    sandbox.remove_context(&id).await.map_err(|err| refusal(err, &id))?;
    Ok(Json(Value::Null))
}
