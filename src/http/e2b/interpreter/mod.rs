//! The interpreter service of a sandbox: `/execute` and `/contexts`.
//!
//! Source: e2b-dev/code-interpreter, `template/server/main.py`.

pub(in crate::http::e2b) mod events;
pub(in crate::http::e2b) mod renderer;

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

use super::letta::{self, KillOnDrop};
use super::operation_error;
use super::proxy::lifetime::abort_when_interrupted;
use crate::http::AppState;
use crate::http::json::{Json as JsonBody, JsonError, OptionalJson, Pairs};
use crate::http::origin::Source;
use crate::protocol::{Code, Context, Execute, Limits, Mode, StartContext};
use crate::sandbox::{Execution, OperationError, Sandbox, Sandboxes};
use renderer::Renderer;

/// The time without output after which a keep-alive line is sent. Sending it also reveals a client that has gone.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The largest request body, in bytes. It is held in memory once, while it is parsed.
const MAX_BODY_BYTES: usize = 32 << 20;

pub(in crate::http::e2b) fn routes(state: AppState) -> Router {
    Router::new()
        .route("/health", get(|| async { Json("OK") }))
        .route("/execute", post(execute))
        .route("/contexts", get(list).post(create))
        .route("/contexts/{id}", delete(remove))
        .route("/contexts/{id}/restart", post(restart))
        .fallback(|| async { detail_response(StatusCode::NOT_FOUND, "Not Found") })
        .method_not_allowed_fallback(|| async { detail_response(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .layer(middleware::from_fn(abort_when_interrupted))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(state)
}

/// Renders an unknown path or method as E2B's server does.
fn detail_response(status: StatusCode, detail: &str) -> Response {
    (status, Json(json!({"detail": detail}))).into_response()
}

/// An error response.
enum InterpreterError {
    /// A status and plain text.
    Plain(StatusCode, String),
    /// An invalid request body, as a 422.
    Body(JsonError),
}

impl IntoResponse for InterpreterError {
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

impl From<JsonError> for InterpreterError {
    fn from(err: JsonError) -> Self {
        match err.status {
            StatusCode::BAD_REQUEST => Self::Body(err),
            status => Self::Plain(status, err.message),
        }
    }
}

#[derive(Debug, Deserialize)]
struct ExecuteRequest {
    code: String,
    context_id: Option<String>,
    language: Option<String>,
    env_vars: Option<Pairs>,
}

async fn execute(
    State(state): State<AppState>,
    Extension(sandbox): Extension<Arc<Sandbox>>,
    source: Source,
    JsonBody(request, _): JsonBody<ExecuteRequest, InterpreterError>,
) -> Result<Response, InterpreterError> {
    let profile = state.api_keys.profile(sandbox.spec.owner);
    let kill_on_drop = KillOnDrop::after_execution(profile, &state.sandboxes, &sandbox.id);
    let (context, language) = match (request.context_id, request.language) {
        (Some(_), Some(_)) => {
            let text = "Only one of context_id or language can be provided".to_owned();
            return Err(InterpreterError::Plain(StatusCode::BAD_REQUEST, text));
        }
        (Some(id), None) => {
            let contexts = sandbox.contexts().await.map_err(|err| operation_failed(err, &id))?;
            // A context that does not exist is refused by the execution below.
            let language = contexts.into_iter().find(|context| context.id == id).map(|context| context.language);
            (id, language.unwrap_or_default())
        }
        (None, language) => {
            let language = resolve_language(&sandbox, &state.sandboxes, language.as_deref());
            let context = sandbox.default_context(&language).await.map_err(|err| not_started(&err, &language))?;
            (context, language)
        }
    };
    let limits = Limits { timeout_ms: 0, ..sandbox.spec.template.limits() };
    let execute = Execute {
        context: context.clone(),
        code: request.code,
        env: request.env_vars.unwrap_or_default().0,
        mode: Mode::Notebook,
        formats: events::FORMATS.map(str::to_owned).to_vec(),
        limits,
        ..Execute::default()
    };
    let execution =
        sandbox.execute(&execute, source.by("interpreter")).await.map_err(|err| operation_failed(err, &context))?;
    let renderer = letta::renderer(profile, &sandbox, &language);
    // Dropped with the stream: when the response is complete or the client has gone.
    let lines = lines(execution, renderer).inspect(move |_| _ = &kill_on_drop);
    let body = Body::from_stream(lines);
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Returns the lines of the response. If the sandbox is lost, they end with an error, which aborts the connection. A
/// regular end would look like an empty success.
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
    // The renderer returns nothing while a line of output is incomplete.
    first.chain(rest).try_filter(|lines| std::future::ready(!lines.is_empty()))
}

/// Returns the images' name of the language that has `name` as its name or alias; without `name`, of the template's own
/// language.
fn resolve_language(sandbox: &Sandbox, sandboxes: &Sandboxes, name: Option<&str>) -> String {
    let name = name.unwrap_or_default().trim().to_lowercase();
    if name.is_empty() {
        return match sandbox.spec.template.language.as_str() {
            // A template without a language uses the language of the code interpreter's template.
            "" => sandboxes.default_language().to_owned(),
            language => language.to_owned(),
        };
    }
    let template = sandboxes.templates().iter().find(|template| template.runs && template.is_called(&name));
    template.map_or(name.clone(), |template| template.language.clone())
}

async fn start(sandbox: &Sandbox, language: &str, cwd: Option<String>) -> Result<Context, InterpreterError> {
    let request = StartContext { language: language.to_owned(), cwd, ..StartContext::default() };
    sandbox.start_context(&request).await.map_err(|err| match err {
        // The directory does not exist, for one.
        OperationError::Refused { code: Code::InvalidArgument, message } => {
            InterpreterError::Plain(StatusCode::BAD_REQUEST, message)
        }
        err => not_started(&err, language),
    })
}

fn not_started(err: &OperationError, language: &str) -> InterpreterError {
    let reason = json!({"message": format!("The '{language}' kernel is not available"), "reason": err.to_string()});
    InterpreterError::Plain(StatusCode::INTERNAL_SERVER_ERROR, format!("Failed to create context: {reason}"))
}

fn operation_failed(err: OperationError, context: &str) -> InterpreterError {
    match err {
        OperationError::Refused { code: Code::NotFound, .. } => {
            InterpreterError::Plain(StatusCode::NOT_FOUND, format!("Context {context} not found"))
        }
        OperationError::Refused { code, message } => InterpreterError::Plain(operation_error::status(code), message),
        err @ OperationError::Lost(_) => {
            InterpreterError::Plain(StatusCode::BAD_GATEWAY, format!("The sandbox was not found: {err}"))
        }
        err @ OperationError::Unfinished(_) => {
            tracing::error!(error = &err as &dyn std::error::Error, "{err}");
            InterpreterError::Plain(StatusCode::INTERNAL_SERVER_ERROR, err.to_string())
        }
    }
}

fn shape(context: Context) -> Value {
    json!({"id": context.id, "language": context.language, "cwd": context.cwd})
}

async fn list(Extension(sandbox): Extension<Arc<Sandbox>>) -> Result<Json<Vec<Value>>, InterpreterError> {
    let contexts = sandbox.contexts().await.map_err(|err| operation_failed(err, ""))?;
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
    OptionalJson(request, _): OptionalJson<CreateRequest, InterpreterError>,
) -> Result<Json<Value>, InterpreterError> {
    let language = resolve_language(&sandbox, &sandboxes, request.language.as_deref());
    start(&sandbox, &language, request.cwd).await.map(|context| Json(shape(context)))
}

async fn restart(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, InterpreterError> {
    sandbox.restart_context(&id).await.map_err(|err| operation_failed(err, &id))?;
    Ok(Json(Value::Null))
}

async fn remove(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, InterpreterError> {
    sandbox.remove_context(&id).await.map_err(|err| operation_failed(err, &id))?;
    Ok(Json(Value::Null))
}
