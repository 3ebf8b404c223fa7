//! A run: code in its own sandbox, with events while it runs and a report at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::container::Container;
use super::error::{Ending, SandboxError};
use super::execution::Events;
use super::meter::RunMeter;
use super::owner::Owner;
use super::record::{Origin, Recording, Records};
use super::template::Template;
use crate::engine::Spec;
use crate::link::LinkError;
use crate::protocol::{End, Event, Exception, Execute, LimitHit, Limits, Outcome, OutcomeKind, Output, Usage};

/// A checked request to run code.
#[derive(Debug, Clone)]
pub struct RunSpec {
    /// The template.
    pub template: Arc<Template>,
    /// The owner of the run.
    pub owner: Owner,
    /// Where it comes from.
    pub origin: Origin,
    /// The container, which may have less of a resource than the template's.
    pub container: Spec,
    /// Whether the client has chosen the network; otherwise it is the template's, or less if the owner may not have that.
    pub network_is_chosen: bool,
    /// Whether the client has chosen the time limit; otherwise it is the template's, or the owner's if that is shorter.
    pub timeout_is_chosen: bool,
    /// The limits that end the run early.
    pub limits: Limits,
    /// The source text.
    pub code: String,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Files to write before the code starts: path and content.
    pub files: Vec<(String, Bytes)>,
    /// The content of the code's standard input.
    pub stdin: Option<String>,
}

/// The sandbox of a run.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct Place {
    /// The template's name.
    pub template: String,
    /// Whether the sandbox was warm: launched before the request.
    pub warm: bool,
    /// The time from the request to a ready sandbox, milliseconds.
    pub wait_ms: u64,
}

/// A run that has begun. Dropping it interrupts the code and removes the container.
pub struct Running {
    /// Its sandbox.
    pub place: Place,
    events: Events,
    container: Container,
    meter: RunMeter,
    cancelled: CancellationToken,
}

/// The collected result of a run.
#[derive(Debug)]
pub struct Report {
    /// Its sandbox.
    pub place: Place,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// Values and displayed outputs, in order.
    pub outputs: Vec<Output>,
    /// The outcome.
    pub outcome: Outcome,
    /// The exception that ended the code, if one did.
    pub exception: Option<Exception>,
    /// The resources it used.
    pub usage: Usage,
}

impl Running {
    /// Writes the files and starts the code.
    pub(super) async fn start(
        container: Container,
        place: Place,
        spec: RunSpec,
        meter: RunMeter,
        records: &Arc<Records>,
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
        let recording = Recording::start(records, spec.owner, spec.origin, &spec.template.name)
            .in_own_sandbox(place.wait_ms, place.warm)
            .of_code(&spec.code);
        let execute = Execute {
            context: container.contexts.get(&spec.template.language).cloned().unwrap_or_default(),
            code: spec.code,
            env: spec.env,
            stdin: Some(spec.stdin.unwrap_or_default()),
            limits: spec.limits,
            ..Execute::default()
        };
        let events = Events::start(container.link(), &execute, recording).await.map_err(SandboxError::Lost)?;
        Ok(Self { place, events, container, meter, cancelled })
    }

    /// The next event. The last one is always [`Event::End`].
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.next_event().await;
        if let Some(Event::End(end)) = &event {
            self.meter.end(end.usage.cpu_ms);
        }
        event
    }

    async fn next_event(&mut self) -> Option<Event> {
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

    /// The end of a run whose agent is gone. If the kernel killed the agent because memory ran out, the outcome is
    /// `OutOfMemory`.
    async fn lost(&mut self, err: &LinkError) -> Event {
        let ending = self.container.find_ending(self.events.limits().memory_bytes).await;
        if let Ending::OutOfMemory { memory_bytes: value } = ending {
            let limit = LimitHit { name: "memory_bytes".to_owned(), value };
            let message = format!("the code needed more than memory_bytes = {value} and its sandbox was lost");
            return self.events.end(OutcomeKind::OutOfMemory, message, Some(limit));
        }
        let id = self.container.id();
        tracing::error!(sandbox.id = %id, error = err as &dyn std::error::Error, "a sandbox was lost during a run");
        self.events.end(OutcomeKind::Infrastructure, format!("the sandbox was lost during the run: {ending}"), None)
    }

    /// The limits that end it.
    pub fn limits(&self) -> &Limits {
        self.events.limits()
    }

    /// Waits for the end and collects all events.
    pub async fn report(self) -> Report {
        self.report_with(|_| {}).await
    }

    /// Waits for the end and collects all events, each of which is shown to `observe` first.
    pub async fn report_with(mut self, mut observe: impl FnMut(&Event)) -> Report {
        let (mut stdout, mut stderr, mut outputs) = (String::new(), String::new(), Vec::new());
        loop {
            let event = self.next().await;
            if let Some(event) = &event {
                observe(event);
            }
            match event {
                Some(Event::Stdout { text }) => stdout.push_str(&text),
                Some(Event::Stderr { text }) => stderr.push_str(&text),
                Some(Event::Output(output)) => outputs.push(output),
                Some(Event::End(End { outcome, exception, usage, lost: _ })) => {
                    return Report { place: self.place, stdout, stderr, outputs, outcome, exception, usage };
                }
                None => unreachable!("the last event of a run is `Event::End`"),
            }
        }
    }
}
