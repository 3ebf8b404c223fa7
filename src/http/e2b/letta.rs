//! Responses that Letta's server needs and that would break other clients of E2B: [`Profile::Letta`]. `docs/letta.md`
//! describes them.

use std::sync::Once;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::error::E2bError;
use super::interpreter::events::{Failures, Strings, Style};
use super::interpreter::renderer::Renderer;
use super::proxy::address;
use crate::http::AppState;
use crate::keys::Profile;
use crate::protocol::{Notebook, Pieces};
use crate::sandbox::{CreateSpec, Sandbox, SandboxError, Sandboxes};

/// The metadata key that Letta sets on the sandbox of a custom tool.
const TOOL_METADATA_KEY: &str = "config_state";

/// Returns the renderer for an execution in a sandbox.
///
/// Letta truncates long results, and each piece of printed text adds to the length, so it gets all printed text in one
/// piece. The value of a tool is a string that contains JSON; Letta must receive the string itself rather than its
/// notation in the language.
pub(super) fn renderer(profile: Profile, sandbox: &Sandbox, language: &str) -> Renderer {
    match profile {
        Profile::Letta => {
            let style = Style { failures: failures(&sandbox.spec), strings: Strings::Parsed };
            Renderer::new(Notebook { pieces: Pieces::Whole, ..Notebook::default() }, style)
        }
        Profile::E2b => Renderer::new(sandbox.notebook(language), Style::default()),
    }
}

/// Returns the way in which failures of code in a sandbox are reported. For its tool `run_code`, Letta does not read
/// the error event, and the model would not see the failure. For custom tools and for `run_code_with_tools`, it needs
/// the event. Letta sets metadata on the sandboxes of the former, and environment variables in those of the latter.
fn failures(spec: &CreateSpec) -> Failures {
    let is_run_code = !spec.metadata.contains_key(TOOL_METADATA_KEY) && spec.env.is_empty();
    if is_run_code { Failures::Text } else { Failures::Event }
}

/// What an operator of Letta has to do. Letta kills no sandbox of `run_code`, and nothing in its requests distinguishes
/// these sandboxes from those of other programs.
const HINT: &str = "if the client is Letta, give its key the profile `letta`, put it into ONCEBOX_LETTA_API_KEYS, or set \
                    ONCEBOX_PROFILE=letta if no key is configured (docs/letta.md)";

/// Converts the error of a creation. At the limit of kept sandboxes, clients that may be a Letta without its profile
/// get a hint, and the log too, once.
pub(super) fn creation_error(profile: Profile, err: SandboxError) -> E2bError {
    static LOGGED: Once = Once::new();
    let is_full = matches!(err, SandboxError::Full { .. });
    let err = E2bError::from(err);
    if !is_full || profile == Profile::Letta {
        return err;
    }
    LOGGED.call_once(|| tracing::warn!("a sandbox was refused at the limit of kept sandboxes; {HINT}"));
    err.with_hint(HINT)
}

/// Logs, once, that a client creates sandboxes as Letta does for custom tools, and does not have its profile.
pub(super) fn warn_if_unknown(profile: Profile, spec: &CreateSpec) {
    static LOGGED: Once = Once::new();
    if profile != Profile::Letta && spec.metadata.contains_key(TOOL_METADATA_KEY) {
        LOGGED
            .call_once(|| tracing::warn!("a client creates sandboxes as Letta does, without Letta's profile; {HINT}"));
    }
}

/// Kills a sandbox when dropped. Letta executes code once in each sandbox, and mostly leaves the sandbox to its
/// deadline.
pub(super) struct KillOnDrop {
    sandboxes: Sandboxes,
    id: String,
}

impl KillOnDrop {
    /// Returns the guard of an execution that is the only one in its sandbox; `None` if others may follow.
    pub(super) fn after_execution(profile: Profile, sandboxes: &Sandboxes, id: &str) -> Option<Self> {
        (profile == Profile::Letta).then(|| Self { sandboxes: sandboxes.clone(), id: id.to_owned() })
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.sandboxes.kill(&self.id);
    }
}

/// The domain in responses to a client, if there is one. A client that sends the sandbox's address as a user name
/// ([`address::basic_user`]) gets none: it reaches the server under a single host name and must keep it.
pub(super) struct ClientDomain(pub(super) Option<String>);

impl FromRequestParts<AppState> for ClientDomain {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Self::Rejection> {
        let has_no_user = address::basic_user(&parts.headers).is_none();
        Ok(Self(state.domain().filter(|_| has_no_user).map(str::to_owned)))
    }
}
