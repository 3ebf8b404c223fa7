//! A run: code in a sandbox of its own, its events while it lasts, a report when it is over.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::container::Container;
use super::error::{Ending, SandboxError};
use super::execution::Events;
use super::owner::Owner;
use super::template::Template;
use crate::engine::Spec;
use crate::link::LinkError;
use crate::protocol::{End, Event, Exception, Execute, LimitHit, Limits, Outcome, OutcomeKind, Output, Usage};

/// A checked request to run code.
#[derive(Debug, Clone)]
pub struct RunSpec {
    /// The recipe.
    pub template: Arc<Template>,
    /// Whose it is.
    pub owner: Owner,
    /// The container, which may be smaller than the template's.
    pub container: Spec,
    /// What ends the run before its time.
    pub limits: Limits,
    /// The source text.
    pub code: String,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Files to write before: path and content.
    pub files: Vec<(String, Bytes)>,
    /// What the code can read from its standard input.
    pub stdin: Option<String>,
}

/// Where a run takes place.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Place {
    /// The template's name.
    pub template: String,
    /// Whether the sandbox was waiting.
    pub warm: bool,
    /// From the request to a ready sandbox, milliseconds.
    pub wait_ms: u64,
}

/// A run that has begun. Dropping it interrupts the code and removes the container.
pub struct Running {
    /// Where it takes place.
    pub place: Place,
    events: Events,
    container: Container,
    cancelled: CancellationToken,
}

/// All that a run gave.
#[derive(Debug)]
pub struct Report {
    /// Where it took place.
    pub place: Place,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
    /// Values and drawings, in order.
    pub outputs: Vec<Output>,
    /// How it ended.
    pub outcome: Outcome,
    /// The exception that ended it.
    pub exception: Option<Exception>,
    /// What it used.
    pub usage: Usage,
}

impl Running {
    /// Writes the files and starts the code.
    pub(super) async fn start(
        container: Container,
        place: Place,
        spec: RunSpec,
        cancelled: CancellationToken,
    ) -> Result<Self, SandboxError> {
        for (index, (path, content)) in spec.files.into_iter().enumerate() {
            container.link().write_file(&path, content).await.map_err(|err| match err {
                LinkError::Refused { message, .. } => SandboxError::File { index, message },
                lost @ (LinkError::Broken(_) | LinkError::Unfinished(_) | LinkError::Version(_)) => {
                    SandboxError::Lost(lost)
                }
            })?;
        }
        let execute = Execute {
            context: container.contexts.get(&spec.template.language).cloned().unwrap_or_default(),
            code: spec.code,
            env: spec.env,
            stdin: Some(spec.stdin.unwrap_or_default()),
            limits: spec.limits,
            ..Execute::default()
        };
        let events = Events::start(container.link(), &execute).await.map_err(SandboxError::Lost)?;
        Ok(Self { place, events, container, cancelled })
    }

    /// The next event. The last one is always [`Event::End`].
    pub async fn next(&mut self) -> Option<Event> {
        let event = tokio::select! {
            biased;
            () = self.cancelled.cancelled(), if !self.events.are_over() => {
                return Some(self.events.end(OutcomeKind::Cancelled, "the server is shutting down".to_owned(), None));
            }
            event = self.events.next() => event?,
        };
        Some(match event {
            Ok(event) => event,
            Err(err) => self.lost(&err).await,
        })
    }

    /// The end of a run whose agent is gone. If the kernel killed it because memory ran out, the code is the cause.
    async fn lost(&mut self, err: &LinkError) -> Event {
        let ending = self.container.find_ending(self.events.limits().memory_bytes).await;
        if let Ending::OutOfMemory { memory_bytes: value } = ending {
            let limit = LimitHit { name: "memory_bytes".to_owned(), value };
            let message = format!("the code needed more than memory_bytes = {value} and its sandbox was lost");
            return self.events.end(OutcomeKind::OutOfMemory, message, Some(limit));
        }
        let id = self.container.id();
        tracing::error!(sandbox.id = %id, error = err as &dyn std::error::Error, "a run lost its sandbox");
        self.events.end(OutcomeKind::Infrastructure, format!("the sandbox was lost during the run: {ending}"), None)
    }

    /// Waits for the end and gathers everything.
    pub async fn report(mut self) -> Report {
        let (mut stdout, mut stderr, mut outputs) = (String::new(), String::new(), Vec::new());
        loop {
            match self.next().await {
                Some(Event::Stdout { text }) => stdout.push_str(&text),
                Some(Event::Stderr { text }) => stderr.push_str(&text),
                Some(Event::Output(output)) => outputs.push(output),
                Some(Event::End(End { outcome, exception, usage, lost: _ })) => {
                    return Report { place: self.place, stdout, stderr, outputs, outcome, exception, usage };
                }
                None => unreachable!("a run ends with an end"),
            }
        }
    }
}
