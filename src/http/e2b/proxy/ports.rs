//! Any other port of a sandbox: HTTP and WebSocket to a server that user code started, through the link.

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

/// Between tries to reach a port on which nothing listens, as E2B's proxy makes them.
const RETRIES_MS: [u64; 4] = [100, 200, 300, 400];

/// Sends a request to a port and gives back its answer. What is upgraded becomes two directions of bytes. All of it ends when the
/// sandbox is killed or paused.
pub(in crate::http::e2b) async fn forward(sandbox: &Arc<Sandbox>, port: u16, request: Request) -> Response {
    let interrupted = sandbox.interrupted();
    let answer = interrupted.run_until_cancelled(ask(sandbox, port, request, &interrupted)).await;
    answer.unwrap_or_else(|| ProxyError::not_found(&sandbox.id).into_response())
}

async fn ask(sandbox: &Sandbox, port: u16, mut request: Request, interrupted: &CancellationToken) -> Response {
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
    // How it ends is seen by whoever reads the answer.
    tokio::spawn(interrupted.clone().run_until_cancelled_owned(connection.with_upgrades()));
    let client = hyper::upgrade::on(&mut request);
    let mut request = as_http1(request);
    if let Some(host) = &sandbox.spec.traffic.host {
        mask_host(request.headers_mut(), &host.replace("${PORT}", &port.to_string()));
    }
    match sender.send_request(request).await {
        Ok(mut response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let joined = join(client, hyper::upgrade::on(&mut response));
            tokio::spawn(interrupted.clone().run_until_cancelled_owned(joined));
            response.map(Body::new)
        }
        Ok(response) => as_ours(response.map(Body::new)),
        Err(_) => unanswered(),
    }
}

/// Connects, again after a while where nothing listens: who started a server mostly does not wait until it does.
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

/// The request as a server of HTTP/1.1 expects it: a path, and the host in its header.
fn as_http1(mut request: Request) -> Request {
    let host = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().entry(header::HOST).or_insert(host);
    }
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
    request
}

/// Says this host in place of the one that was asked for, which moves to `X-Forwarded-Host`.
fn mask_host(headers: &mut HeaderMap, host: &str) {
    let Ok(host) = HeaderValue::from_str(host) else { return };
    if let Some(asked) = headers.insert(header::HOST, host) {
        headers.insert("x-forwarded-host", asked);
    }
}

/// The answer on the client's connection, which is another than that to the port: how the port ends its answer and keeps
/// its connection is between it and us. In the words of HTTP/1.0 an answer that broke off could not be told from a whole one.
fn as_ours(mut response: Response) -> Response {
    *response.version_mut() = Version::HTTP_11;
    for name in [header::CONNECTION, HeaderName::from_static("keep-alive"), header::TRANSFER_ENCODING] {
        response.headers_mut().remove(name);
    }
    response
}

async fn join(client: hyper::upgrade::OnUpgrade, server: hyper::upgrade::OnUpgrade) {
    if let (Ok(client), Ok(server)) = tokio::join!(client, server) {
        // Either side may go at any time; that is no failure of ours.
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await;
    }
}
