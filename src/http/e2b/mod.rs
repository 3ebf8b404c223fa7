//! E2B's surface: the control plane, and what its sandboxes answer, on one origin.
//!
//! A request that says which sandbox it means is that sandbox's; every other one is for the server itself.

mod address;
mod control;
mod debug;
pub(super) mod error;
mod events;
mod interpreter;
mod listing;
mod ports;
mod shapes;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;

use super::AppState;
use crate::sandbox::Sandbox;
use address::{Address, INTERPRETER_PORT};
use error::{E2bError, ProxyError};

/// The control plane, behind its key.
pub(super) fn control(state: &AppState) -> Router<AppState> {
    control::routes().layer(middleware::from_fn_with_state(state.clone(), require_key))
}

/// Lets a request through that carries a key, and says whose it is.
async fn require_key(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    match state.api_keys.tenant(request.headers()) {
        Some(tenant) => {
            request.extensions_mut().insert(tenant);
            next.run(request).await
        }
        None => E2bError::new(StatusCode::UNAUTHORIZED, "Invalid API key").into_response(),
    }
}

/// Chooses between the server's own routes and those of the sandbox that a request means.
#[derive(Clone)]
pub(super) struct Dispatch {
    state: AppState,
    control: Router,
    interpreter: Router,
    /// The port of a sandbox that the listener stands for: debug mode.
    listener: Option<u16>,
}

impl Dispatch {
    /// `control` are the routes for requests that mean no sandbox.
    pub(super) fn new(state: AppState, control: Router, listener: Option<u16>) -> Self {
        let interpreter = interpreter::routes(state.sandboxes.clone());
        Self { state, control, interpreter, listener }
    }

    /// Answers any request.
    pub(super) async fn answer(self, request: Request) -> Response {
        match address::of(request.headers(), request.uri(), self.state.domain(), self.listener) {
            Ok(Address::Server) => answer(self.control, request).await,
            Ok(Address::Unnamed { port }) => match debug::find(&self.state, request.headers()).await {
                Ok(sandbox) => self.sandbox(&sandbox.id, port, request).await,
                Err(err) => err.into_response(),
            },
            Ok(Address::Sandbox { id, port }) => self.sandbox(&id, port, request).await,
            Err(err) => err.into_response(),
        }
    }

    async fn sandbox(self, id: &str, port: u16, mut request: Request) -> Response {
        let not_found = || ProxyError::NotFound { id: id.to_owned() }.into_response();
        let Some(sandbox) = self.state.sandboxes.get(id) else { return not_found() };
        if sandbox.life().paused {
            let timeout = std::time::Duration::from_secs(shapes::DEFAULT_TIMEOUT_S.unsigned_abs());
            if !sandbox.spec.auto_resume || sandbox.resume(timeout).await.is_err() {
                return not_found();
            }
        }
        match port {
            INTERPRETER_PORT => {
                if !may_enter(&sandbox, request.headers()) {
                    return unauthorized().into_response();
                }
                request.extensions_mut().insert(sandbox);
                answer(self.interpreter, request).await
            }
            _ => ports::forward(&sandbox, port, request).await,
        }
    }
}

async fn answer(router: Router, request: Request) -> Response {
    router.oneshot(request).await.unwrap_or_else(|never| match never {})
}

/// SDKs do not send the token with every call to the interpreter; one that is sent must be right. The id itself, which
/// nobody can guess, is what opens the rest.
fn may_enter(sandbox: &Arc<Sandbox>, headers: &HeaderMap) -> bool {
    use subtle::ConstantTimeEq;
    headers.get("x-access-token").is_none_or(|given| given.as_bytes().ct_eq(sandbox.token.as_bytes()).into())
}

fn unauthorized() -> E2bError {
    let message = "unauthorized access, please provide a valid access token or method signing if supported";
    E2bError::new(StatusCode::UNAUTHORIZED, message)
}
