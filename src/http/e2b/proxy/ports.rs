//! The proxy to any other port of a sandbox: HTTP and WebSocket to a server that user code started.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, Version, header};
use axum::response::{IntoResponse, Response};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::http::e2b::error::ProxyError;
use crate::protocol::Code;
use crate::sandbox::{OperationError, Sandbox};

/// The pauses between attempts to reach a port on which nothing listens, in milliseconds, as in E2B's proxy.
const RETRIES_MS: [u64; 4] = [100, 200, 300, 400];

/// Sends a request to a port and returns the response. After an upgrade, bytes are copied in both directions. All of it
/// ends when the sandbox is killed or paused.
pub(in crate::http::e2b) async fn forward(sandbox: &Arc<Sandbox>, port: u16, request: Request) -> Response {
    let interrupted = sandbox.interrupted();
    let response = interrupted.run_until_cancelled(send(sandbox, port, request, &interrupted)).await;
    response.unwrap_or_else(|| ProxyError::not_found(&sandbox.id).into_response())
}

async fn send(sandbox: &Sandbox, port: u16, mut request: Request, interrupted: &CancellationToken) -> Response {
    let io = match connect(sandbox, port).await {
        Ok(io) => io,
        Err(OperationError::Refused { code: Code::PortClosed, .. }) => {
            return ProxyError::PortClosed { id: sandbox.id.clone(), port }.into_response();
        }
        Err(_) => return ProxyError::not_found(&sandbox.id).into_response(),
    };
    let unanswered = || ProxyError::Unanswered { id: sandbox.id.clone(), port }.into_response();
    let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(io)).await else {
        return unanswered();
    };
    // An error of the connection also reaches the reader of the response.
    tokio::spawn(interrupted.clone().run_until_cancelled_owned(connection.with_upgrades()));
    let client = hyper::upgrade::on(&mut request);
    let mut request = as_http1(request);
    if let Some(host) = &sandbox.spec.traffic.host {
        mask_host(request.headers_mut(), &host.replace("${PORT}", &port.to_string()));
    }
    match sender.send_request(request).await {
        Ok(mut response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let copying = copy_both_ways(client, hyper::upgrade::on(&mut response));
            tokio::spawn(interrupted.clone().run_until_cancelled_owned(copying));
            response.map(Body::new)
        }
        Ok(response) => for_client(response.map(Body::new)),
        Err(_) => unanswered(),
    }
}

/// Connects to a port, and tries again while nothing listens on it: programs often send the first request before the
/// server that they started is ready.
async fn connect(
    sandbox: &Sandbox,
    port: u16,
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static, OperationError> {
    for pause_ms in RETRIES_MS {
        match sandbox.connect(port).await {
            Err(OperationError::Refused { code: Code::PortClosed, .. }) => {
                tokio::time::sleep(Duration::from_millis(pause_ms)).await
            }
            connected => return connected,
        }
    }
    sandbox.connect(port).await
}

/// Converts a request to HTTP/1.1: the URI is reduced to its path and query, and the host moves to the `Host` header. It
/// replaces one that is there already: the sandbox was found by the URI.
fn as_http1(mut request: Request) -> Request {
    let host = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().insert(header::HOST, host);
    }
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
    request
}

/// Replaces the `Host` header; the original host moves to `X-Forwarded-Host`.
fn mask_host(headers: &mut HeaderMap, host: &str) {
    let Ok(host) = HeaderValue::from_str(host) else { return };
    if let Some(original) = headers.insert(header::HOST, host) {
        headers.insert("x-forwarded-host", original);
    }
}

/// Prepares a response for the client's connection, which is separate from the connection to the port. Headers about
/// the latter are removed. The version becomes HTTP/1.1, because in HTTP/1.0 a truncated response may be
/// indistinguishable from a complete one.
fn for_client(mut response: Response) -> Response {
    *response.version_mut() = Version::HTTP_11;
    for name in [header::CONNECTION, HeaderName::from_static("keep-alive"), header::TRANSFER_ENCODING] {
        response.headers_mut().remove(name);
    }
    response
}

async fn copy_both_ways(client: hyper::upgrade::OnUpgrade, server: hyper::upgrade::OnUpgrade) {
    if let (Ok(client), Ok(server)) = tokio::join!(client, server) {
        // Either side may close at any time; that is not an error of this server.
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await;
    }
}
