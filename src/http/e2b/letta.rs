//! Answers that Letta's server needs and other clients of E2B would mind: [`Profile::Letta`]. `docs/letta.md` describes them.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::interpreter::events::{Failures, Strings, Style};
use super::interpreter::renderer::Renderer;
use super::profile::Profile;
use super::proxy::address;
use crate::http::AppState;
use crate::protocol::{Notebook, Pieces};
use crate::sandbox::{CreateSpec, Sandbox, Sandboxes};

/// What Letta notes in the metadata of a sandbox that is for a custom tool.
const TOOL_NOTE: &str = "config_state";

/// How an execution in a sandbox is told of. Letta cuts off what is long, and each piece makes it longer: it gets what is
/// printed in one. A tool's value is a string of JSON, which it must be able to read.
pub(super) fn renderer(profile: Profile, sandbox: &Sandbox, language: &str) -> Renderer {
    match profile {
        Profile::Letta => {
            let style = Style { failures: failures(&sandbox.spec), strings: Strings::Read };
            Renderer::new(Notebook { pieces: Pieces::Whole, ..Notebook::default() }, style)
        }
        Profile::E2b => Renderer::new(sandbox.notebook(language), Style::default()),
    }
}

/// How code that fails in a sandbox is told of. After its tool `run_code`, Letta cannot read an event: the model would learn
/// nothing. For custom tools and for `run_code_with_tools` it needs the event. It notes something with the former, and gives the
/// latter variables.
fn failures(spec: &CreateSpec) -> Failures {
    let is_run_code = !spec.metadata.contains_key(TOOL_NOTE) && spec.env.is_empty();
    if is_run_code { Failures::Text } else { Failures::Event }
}

/// Ends a sandbox when dropped. Letta executes once in each, and mostly leaves it to its deadline.
pub(super) struct LastExecution {
    sandboxes: Sandboxes,
    id: String,
}

impl LastExecution {
    /// For an execution that begins in the sandbox; none where others may follow.
    pub(super) fn of(profile: Profile, sandboxes: &Sandboxes, id: &str) -> Option<Self> {
        (profile == Profile::Letta).then(|| Self { sandboxes: sandboxes.clone(), id: id.to_owned() })
    }
}

impl Drop for LastExecution {
    fn drop(&mut self) {
        self.sandboxes.kill(&self.id);
    }
}

/// The domain that a client is told of, if there is one. Whoever has made a user of what was to be the name of a host knows
/// but one name, and must stay with it.
pub(super) struct ToldDomain(pub(super) Option<String>);

impl FromRequestParts<AppState> for ToldDomain {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Self::Rejection> {
        let named = address::basic_user(&parts.headers).is_none();
        Ok(Self(state.domain().filter(|_| named).map(str::to_owned)))
    }
}
