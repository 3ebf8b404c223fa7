//! What Letta's server needs that other clients of E2B would miss or mind: [`Profile::Letta`]. `docs/letta.md` tells it.

use super::events::Failures;
use crate::sandbox::{CreateSpec, Profile, Sandboxes};

/// What Letta notes in the metadata of a sandbox that is for a custom tool.
const TOOL_NOTE: &str = "config_state";

/// How code that fails in a sandbox is told of. After its tool `run_code`, Letta cannot read an event: the model would learn
/// nothing. For custom tools and for `run_code_with_tools` it needs the event. It notes something with the former, and gives the
/// latter variables.
pub(super) fn failures(spec: &CreateSpec) -> Failures {
    let is_run_code = !spec.metadata.contains_key(TOOL_NOTE) && spec.env.is_empty();
    match spec.profile {
        Profile::Letta if is_run_code => Failures::Text,
        Profile::Letta | Profile::E2b => Failures::Event,
    }
}

/// Ends a sandbox when dropped. Letta executes once in each, and mostly leaves it to its deadline.
pub(super) struct LastExecution {
    sandboxes: Sandboxes,
    id: String,
}

impl LastExecution {
    /// For an execution that begins in the sandbox; none where others may follow.
    pub(super) fn of(sandboxes: &Sandboxes, id: &str, spec: &CreateSpec) -> Option<Self> {
        (spec.profile == Profile::Letta).then(|| Self { sandboxes: sandboxes.clone(), id: id.to_owned() })
    }
}

impl Drop for LastExecution {
    fn drop(&mut self) {
        self.sandboxes.kill(&self.id);
    }
}
