//! What requests can ask for and oncebox does not do. It is refused by the member that asks for it, and never ignored.

use axum::http::{StatusCode, Uri};

use super::CreateRequest;
use crate::http::e2b::error::E2bError;

/// Refuses members of a creation that ask for what sandboxes do not have here.
pub(super) fn refuse_what_creation_lacks(request: &CreateRequest) -> Result<(), E2bError> {
    if request.mcp.as_ref().is_some_and(|mcp| !mcp.is_null()) {
        // SDKs start the gateway in the new sandbox, and report its failure in these words. Older ones would leave the
        // sandbox to its deadline.
        let message = "Failed to start MCP gateway: mcp is not offered here; create the sandbox without it";
        return Err(unimplemented(message));
    }
    if request.iam.as_ref().and_then(|iam| iam.tokens.as_ref()).is_some_and(|tokens| !tokens.is_empty()) {
        return Err(unimplemented("iam: workload identity is not offered here; create the sandbox without it"));
    }
    if request.volume_mounts.as_ref().is_some_and(|mounts| !mounts.is_empty()) {
        return Err(unimplemented("volumeMounts: volumes are not offered here; create the sandbox without them"));
    }
    if request.auto_pause_memory == Some(false) {
        return Err(pause_without_memory("autoPauseMemory"));
    }
    Ok(())
}

/// Refuses a pause that keeps only the files, after which the sandbox would boot anew. It is not replaced by a pause
/// with memory.
pub(super) fn pause_without_memory(member: &str) -> E2bError {
    unimplemented(format!("{member}: a pause always keeps the memory here; leave the member out, or set it to true"))
}

/// Refuses to boot a paused sandbox anew from its files. It is not replaced by a resumption with memory.
pub(super) fn resume_without_memory() -> E2bError {
    unimplemented("memory: a sandbox always goes on with its memory here; leave the member out, or set it to true")
}

/// Responds to requests for features of E2B that oncebox does not have.
pub(super) async fn not_offered(uri: Uri) -> E2bError {
    unimplemented(format!("{} is not offered here", uri.path()))
}

/// Responds to the command line, which looks for a user's keys after a login.
pub(super) async fn teams() -> E2bError {
    unimplemented("/teams is not offered here: there are no accounts; set E2B_API_KEY instead of logging in")
}

fn unimplemented(message: impl Into<String>) -> E2bError {
    E2bError::new(StatusCode::NOT_IMPLEMENTED, message)
}
