//! `/sandboxes`: E2B's control plane.
//!
//! Source: e2b-dev/infra, `spec/openapi.yml`.

mod api_keys;
mod described;
mod listing;
mod named;
mod needs;
mod network;
mod query;
mod readings;
mod refusals;
mod repeat;
mod templates;

pub(in crate::http::e2b) mod shapes;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post, put};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::E2bError;
use super::letta::{self, ClientDomain};
use crate::engine::{EngineError, Network};
use crate::http::AppState;
use crate::http::json::{self, Json, OptionalJson, Pairs};
use crate::sandbox::{CreateSpec, OnTimeout, Owner, Sandbox, Sandboxes};
use named::Named;
use network::NetworkRequest;
use refusals::{not_offered, pause_without_memory, refuse_what_creation_lacks, resume_without_memory, teams};
use shapes::{DEFAULT_TIMEOUT_S, SandboxDetail, SandboxResponse};

pub(in crate::http::e2b) use described::describe;
pub(in crate::http::e2b) use needs::NEEDS;

type E2bResult<T> = Result<T, E2bError>;

/// The longest timeout of a sandbox, in seconds: E2B's own upper bound.
const MAX_TIMEOUT_S: i64 = 24 * 60 * 60;

/// Returns whether a path belongs to E2B's API, so that errors there have E2B's shape.
pub(in crate::http) fn owns(path: &str) -> bool {
    let mut parts = path.split('/').skip(1).skip_while(|part| matches!(*part, "v2" | "v3"));
    let owned = ["sandboxes", "snapshots", "templates", "volumes", "secrets", "teams", "api-keys"];
    parts.next().is_some_and(|part| owned.contains(&part))
}

/// Returns the routes. The caller adds the check of the API key.
pub(in crate::http::e2b) fn routes() -> Router<AppState> {
    Router::new()
        .route("/sandboxes", post(create_v1).get(listing::list_v1))
        .route("/v2/sandboxes", post(create_v2).get(listing::list_v2))
        .route("/sandboxes/{id}", get(detail).delete(kill))
        .route("/sandboxes/{id}/connect", post(connect))
        .route("/v2/sandboxes/{id}/connect", post(connect))
        .route("/sandboxes/{id}/timeout", post(set_timeout))
        .route("/sandboxes/{id}/refreshes", post(refresh))
        .route("/sandboxes/{id}/pause", post(pause))
        .route("/sandboxes/{id}/resume", post(resume))
        .route("/sandboxes/{id}/network", put(set_network))
        .merge(readings::routes())
        .merge(templates::routes())
        .merge(api_keys::routes())
        .route("/sandboxes/{id}/snapshots", post(not_offered))
        .route("/sandboxes/{id}/fork", post(not_offered))
        .route("/snapshots", get(not_offered))
        .route("/teams", any(teams))
        .route("/volumes", any(not_offered))
        .route("/volumes/{*rest}", any(not_offered))
        .route("/secrets", any(not_offered))
        .route("/secrets/{*rest}", any(not_offered))
}

/// The request body of a creation. Unknown members are ignored, as by E2B.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreateRequest {
    #[serde(rename = "templateID")]
    template_id: String,
    timeout: Option<i64>,
    metadata: Option<Pairs>,
    env_vars: Option<Pairs>,
    secure: Option<bool>,
    #[serde(rename = "allow_internet_access")]
    allow_internet_access: Option<bool>,
    auto_pause: Option<bool>,
    auto_pause_memory: Option<bool>,
    auto_resume: Option<AutoResume>,
    network: Option<NetworkRequest>,
    mcp: Option<Value>,
    iam: Option<Iam>,
    volume_mounts: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AutoResume {
    enabled: bool,
}

/// The workload identity of a sandbox, which has one if there are tokens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Iam {
    tokens: Option<Map<String, Value>>,
}

/// `POST /sandboxes`: the response always contains a token, but only sandboxes created with `secure` require it.
async fn create_v1(
    state: State<AppState>,
    owner: Extension<Owner>,
    domain: ClientDomain,
    request: Request,
) -> E2bResult<Response> {
    create(state, owner, domain, request, |request| request.secure.unwrap_or(false)).await
}

/// `POST /v2/sandboxes`: the sandbox always requires its token.
async fn create_v2(
    state: State<AppState>,
    owner: Extension<Owner>,
    domain: ClientDomain,
    request: Request,
) -> E2bResult<Response> {
    create(state, owner, domain, request, |_| true).await
}

async fn create(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    ClientDomain(domain): ClientDomain,
    request: Request,
    is_secure: impl FnOnce(&CreateRequest) -> bool,
) -> E2bResult<Response> {
    let key = repeat::key(request.headers())?;
    let body = json::read(request).await?;
    let request: CreateRequest = json::parse(&body)?;
    let secure = is_secure(&request);
    let key = key.map(|key| repeat::creation_key(key, secure, &body));
    // Before the template: SDKs choose one that does not exist here if `mcp` is set.
    refuse_what_creation_lacks(&request)?;
    if request.auto_pause == Some(true) && !state.sandboxes.can_pause() {
        return Err(EngineError::Unsupported { action: "pause a sandbox: autoPause must be false" }.into());
    }
    let template = templates::find(&state.sandboxes, &request.template_id)?;
    let network = request.network.unwrap_or_default();
    network.check()?;
    let traffic = network.traffic()?;
    if traffic.private && !secure {
        return Err(E2bError::bad_request("network.allowPublicTraffic: false needs secure: true"));
    }
    let internet = match (request.allow_internet_access, network.allow_internet_access) {
        (Some(one), Some(other)) if one != other => {
            let message = "allow_internet_access and network.allow_internet_access differ: send one of them";
            return Err(E2bError::bad_request(message));
        }
        (one, other) => one.or(other),
    };
    let spec = CreateSpec {
        owner,
        timeout: timeout(&state.sandboxes, owner, request.timeout)?,
        on_timeout: if request.auto_pause == Some(true) { OnTimeout::Pause } else { OnTimeout::Kill },
        auto_resume: request.auto_resume.is_some_and(|auto| auto.enabled),
        network: network.network(&template, internet.unwrap_or(true))?,
        network_is_chosen: network.chooses(),
        requested_network: network.requested(internet),
        metadata: request.metadata.unwrap_or_default().0,
        env: request.env_vars.unwrap_or_default().0,
        secure,
        traffic,
        template,
    };
    let profile = state.api_keys.profile(owner);
    letta::warn_if_unknown(profile, &spec);
    let created = match key {
        Some(key) => state.sandboxes.create_once(&key, spec, environment).await,
        None => state.sandboxes.create(spec, environment).await,
    };
    let sandbox = created.map_err(|err| letta::creation_error(profile, err))?;
    Ok((StatusCode::CREATED, axum::Json(SandboxResponse::new(&sandbox, domain))).into_response())
}

/// Returns the environment variables of everything in a sandbox: those that E2B sets, overridden by the client's.
pub(in crate::http::e2b) fn environment(sandbox: &Sandbox) -> BTreeMap<String, String> {
    let own =
        [("E2B_SANDBOX", "true"), ("E2B_SANDBOX_ID", &sandbox.id), ("E2B_TEMPLATE_ID", &sandbox.spec.template.name)];
    let mut environment: BTreeMap<_, _> = own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    environment.extend(sandbox.spec.env.clone());
    environment
}

/// Returns the timeout of a request; the default if it has none.
fn timeout(sandboxes: &Sandboxes, owner: Owner, seconds: Option<i64>) -> E2bResult<Duration> {
    let timeout = match seconds {
        None => return Ok(default_timeout(sandboxes, owner)),
        Some(..=0) => return Err(E2bError::bad_request("Timeout must be greater than 0")),
        Some(seconds @ 1..=MAX_TIMEOUT_S) => Duration::from_secs(seconds.unsigned_abs()),
        Some(_) => {
            let hours = MAX_TIMEOUT_S / 3600;
            return Err(E2bError::bad_request(format!("Timeout cannot be greater than {hours} hours")));
        }
    };
    sandboxes.check_timeout(owner, timeout)?;
    Ok(timeout)
}

/// Returns the timeout of a request without one.
pub(in crate::http::e2b) fn default_timeout(sandboxes: &Sandboxes, owner: Owner) -> Duration {
    let default = Duration::from_secs(DEFAULT_TIMEOUT_S.unsigned_abs());
    sandboxes.longest_timeout(owner).map_or(default, |longest| longest.min(default))
}

async fn detail(ClientDomain(domain): ClientDomain, Named(sandbox): Named) -> axum::Json<SandboxDetail> {
    axum::Json(SandboxDetail::new(&sandbox, domain))
}

async fn kill(State(sandboxes): State<Sandboxes>, Named(sandbox): Named) -> E2bResult<StatusCode> {
    match sandboxes.kill(&sandbox.id) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(E2bError::no_sandbox(&sandbox.id)),
    }
}

#[derive(Debug, Default, Deserialize)]
struct TimeoutRequest {
    timeout: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
struct ConnectRequest {
    timeout: Option<i64>,
    memory: Option<bool>,
}

/// Resumes a paused sandbox, and extends its life; never shortens it. The response contains the token, because the
/// client may be another process than the one that created the sandbox. `memory: false` concerns paused sandboxes only.
async fn connect(
    State(sandboxes): State<Sandboxes>,
    ClientDomain(domain): ClientDomain,
    Named(sandbox): Named,
    Json(request, _): Json<ConnectRequest, E2bError>,
) -> E2bResult<Response> {
    let timeout = timeout(&sandboxes, sandbox.spec.owner, request.timeout)?;
    let keeps_memory = request.memory != Some(false);
    if !keeps_memory && sandbox.life().paused {
        return Err(resume_without_memory());
    }
    let resumed = keeps_memory && sandbox.resume(timeout).await?;
    sandbox.extend(timeout);
    let status = if resumed { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, axum::Json(SandboxResponse::new(&sandbox, domain))).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResumeRequest {
    timeout: Option<i64>,
    auto_pause: Option<bool>,
    memory: Option<bool>,
}

async fn resume(
    State(sandboxes): State<Sandboxes>,
    ClientDomain(domain): ClientDomain,
    Named(sandbox): Named,
    Json(request, _): Json<ResumeRequest, E2bError>,
) -> E2bResult<Response> {
    if request.memory == Some(false) {
        return Err(resume_without_memory());
    }
    let auto_pause = sandbox.spec.on_timeout == OnTimeout::Pause;
    if request.auto_pause.is_some_and(|requested| requested != auto_pause) {
        let message = format!("autoPause: it is {auto_pause} since the sandbox was created, and cannot be changed");
        return Err(E2bError::bad_request(message));
    }
    if !sandbox.resume(timeout(&sandboxes, sandbox.spec.owner, request.timeout)?).await? {
        return Err(E2bError::new(StatusCode::CONFLICT, format!("Sandbox {} is already running", sandbox.id)));
    }
    Ok((StatusCode::CREATED, axum::Json(SandboxResponse::new(&sandbox, domain))).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PauseRequest {
    memory: Option<bool>,
    require_healthy_guest: Option<bool>,
}

/// How long a pause that requires a healthy agent waits for the agent.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

async fn pause(
    Named(sandbox): Named,
    OptionalJson(request, _): OptionalJson<PauseRequest, E2bError>,
) -> E2bResult<StatusCode> {
    if request.memory == Some(false) {
        return Err(pause_without_memory("memory"));
    }
    if request.require_healthy_guest == Some(true) && !sandbox.life().paused {
        let answered = tokio::time::timeout(HEALTH_TIMEOUT, sandbox.metrics()).await;
        if !matches!(answered, Ok(Ok(_))) {
            let message = "the sandbox's agent does not answer, and requireHealthyGuest is true; it was not paused";
            return Err(E2bError::new(StatusCode::SERVICE_UNAVAILABLE, message));
        }
    }
    match sandbox.pause().await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(E2bError::new(StatusCode::CONFLICT, format!("Sandbox {} is already paused", sandbox.id))),
    }
}

/// Sets the end of the sandbox to now plus `timeout`, earlier or later than before; 0 ends it now.
async fn set_timeout(
    State(sandboxes): State<Sandboxes>,
    Named(sandbox): Named,
    Json(request, _): Json<TimeoutRequest, E2bError>,
) -> E2bResult<StatusCode> {
    if sandbox.life().paused {
        return Err(E2bError::no_sandbox(&sandbox.id));
    }
    let Some(seconds) = request.timeout else { return Err(E2bError::bad_request("timeout: missing field")) };
    let timeout = match seconds {
        ..=0 => Duration::ZERO,
        seconds => timeout(&sandboxes, sandbox.spec.owner, Some(seconds))?,
    };
    sandbox.set_timeout(timeout);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Default, Deserialize)]
struct RefreshRequest {
    duration: Option<u64>,
}

async fn refresh(
    State(sandboxes): State<Sandboxes>,
    Named(sandbox): Named,
    OptionalJson(request, _): OptionalJson<RefreshRequest, E2bError>,
) -> E2bResult<StatusCode> {
    let seconds = request.duration.unwrap_or(15);
    if seconds > 3600 {
        return Err(E2bError::bad_request("duration: must be from 0 to 3600"));
    }
    if sandbox.life().paused {
        return Err(E2bError::no_sandbox(&sandbox.id));
    }
    let duration = Duration::from_secs(seconds);
    sandboxes.check_timeout(sandbox.spec.owner, duration)?;
    sandbox.extend(duration);
    Ok(StatusCode::NO_CONTENT)
}

/// Accepts a network that equals the sandbox's, and refuses any other: a container's network is fixed when it starts.
async fn set_network(Named(sandbox): Named, Json(request, _): Json<NetworkRequest, E2bError>) -> E2bResult<StatusCode> {
    request.check()?;
    if request.allow_public_traffic.is_some() || request.mask_request_host.is_some() {
        let message = "allowPublicTraffic and maskRequestHost can only be chosen when a sandbox is created";
        return Err(E2bError::bad_request(message));
    }
    let current = &sandbox.spec.network;
    // The request replaces all earlier choices, except that a sandbox without a network stays without one unless the
    // request allows internet access.
    let internet = request.allow_internet_access.unwrap_or(*current != Network::None);
    let requested = request.network(&sandbox.spec.template, internet)?;
    if requested != *current {
        let message = "allowOut, denyOut and allow_internet_access can only be chosen when a sandbox is created";
        return Err(E2bError::bad_request(message));
    }
    Ok(StatusCode::NO_CONTENT)
}
