//! The Model Context Protocol: `POST /mcp`, by which a model's client finds the tools of this server and calls them.
//!
//! rmcp has the messages, the versions and the transports. Nothing is kept from one request to the next, whichever
//! revision a client speaks: there are no sessions.

mod arguments;
mod error;
mod images;
mod progress;
mod result;
mod server;
mod stdio;
mod tools;
mod unique;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use axum::routing::post;
use http_body_util::Full;
use rmcp::model::ClientJsonRpcMessage;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathItem, PathsBuilder};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{OpenApi, OpenApiBuilder};

use super::AppState;
use super::dialect::{Dialect, Need, Refusal};
use super::origin::Source;
use super::single::single;
use super::{auth, json};
use crate::keys::{Profile, Scope};
use crate::sandbox::{Owner, Template};
use error::McpError;
use server::Server;

pub use stdio::serve_stdio;

const PATH: &str = "/mcp";

/// The tag in the description of the API.
const TAG: &str = "mcp";

/// What a key needs.
const NEEDS: &[Need] = &[Need::new("POST", PATH, &[Scope::Run])];

/// The headers that repeat the body. rmcp compares the first of each with it.
const REPEATING: [&str; 3] = ["MCP-Protocol-Version", "Mcp-Method", "Mcp-Name"];

/// How often a stream without messages gets a comment: a client that has hung up is noticed when it is written to.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// The Model Context Protocol.
#[derive(Debug)]
pub(super) struct Mcp;

impl Dialect for Mcp {
    fn routes(&self) -> Router<AppState> {
        Router::new().route(PATH, post(serve))
    }

    fn needs(&self) -> &'static [Need] {
        NEEDS
    }

    fn describe(&self, _: &[Arc<Template>]) -> OpenApi {
        let response = ResponseBuilder::new().description("A message of the Model Context Protocol.");
        let operation = OperationBuilder::new()
            .tag(TAG)
            .operation_id(Some(TAG))
            .summary(Some("Serves a message of the Model Context Protocol"))
            .response("default", response);
        let tag = TagBuilder::new().name(TAG).description(Some("Tools for the clients of models."));
        let paths = PathsBuilder::new().path(PATH, PathItem::new(HttpMethod::Post, operation));
        OpenApiBuilder::new().tags(Some([tag.build()])).paths(paths).build()
    }

    fn owns(&self, path: &str) -> bool {
        path == PATH
    }

    fn refuse(&self, refusal: Refusal<'_>) -> Response {
        error::refuse(refusal)
    }
}

/// Serves one message. A client that hangs up while its tool runs ends the run.
async fn serve(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    source: Source,
    request: Request,
) -> Result<Response, McpError> {
    if let Err(refusal) = auth::refuse_foreign(&request, state.domain()) {
        return Ok(error::refuse(refusal));
    }
    for name in REPEATING {
        if let Err(err) = single(request.headers(), name) {
            return Ok(error::refuse(Refusal::BadHeader(err)));
        }
    }
    let (parts, body) = request.into_parts();
    let head = Request::from_parts(parts.clone(), body);
    let body = json::read(head).await?;
    unique::check(&body)?;
    // rmcp has other statuses for what is not a message.
    serde_json::from_slice::<ClientJsonRpcMessage>(&body).map_err(McpError::not_a_message)?;
    // Letta writes what is not text into the context of its agent, as text.
    let with_images = state.api_keys.profile(owner) != Profile::Letta;
    let server = Server::new(state.sandboxes, owner, source, with_images);
    let service =
        StreamableHttpService::new(move || Ok(server.clone()), Arc::new(NeverSessionManager::default()), config());
    Ok(service.handle(Request::from_parts(parts, Full::new(body))).await.map(Body::new))
}

/// The configuration of rmcp. The request has been checked already: its host, its origin, and the size of its body.
fn config() -> StreamableHttpServerConfig {
    StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_sse_keep_alive(Some(KEEP_ALIVE))
        .disable_allowed_hosts()
        .disable_allowed_origins()
        .with_max_request_body_bytes(usize::MAX)
}
