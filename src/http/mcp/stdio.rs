//! The protocol on standard input and output: one client, which has started this program.

use std::sync::Arc;

use futures::FutureExt;
use rmcp::ServiceExt;
use rmcp::service::ServerInitializeError;
use rmcp::transport::stdio_pipes;

use super::server::Server;
use crate::sandbox::{Owner, Sandboxes, Template};

/// Serves the client until it closes standard input. It then gets the answers that are ready within five seconds, and
/// all other runs end.
///
/// Tools are listed at once; a call waits until `opening` is over. If that fails, the call has its error.
pub async fn serve_stdio(
    templates: &[Template],
    opening: impl Future<Output = Result<Sandboxes, String>> + Send + 'static,
    with_images: bool,
) -> Result<(), String> {
    let templates = templates.iter().cloned().map(Arc::new).collect();
    let server = Server::opening(templates, opening.boxed().shared(), Owner::ANYBODY, with_images);
    match server.serve(stdio_pipes()).await {
        Ok(running) => running.waiting().await.map(|_| ()).map_err(|err| err.to_string()),
        // Its message may have what the client has sent.
        Err(ServerInitializeError::ExpectedInitializeRequest(_)) => {
            Err("the client did not begin with a request that opens a connection".to_owned())
        }
        Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
        Err(err) => Err(err.to_string()),
    }
}
