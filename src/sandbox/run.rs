//! A run: code in a sandbox of its own, its events while it lasts, a report when it is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use super::error::{Ending, SandboxError};
use super::instance::Instance;
use super::template::Template;
use super::tenant::Tenant;
use crate::engine::Spec;
use crate::link::LinkError;
use crate::protocol::{End, Event, Exception, Execute, Limits, Outcome, OutcomeKind, Output, Usage};

/// The agent ends a run at its time; if it does not, this much later the server does.
const GRACE: Duration = Duration::from_secs(5);

/// What is no UTF-8 becomes three bytes for each, and JSON has its own marks. An agent that sends more than this per allowed byte of
/// output is lying.
const MOST_PER_BYTE: u64 = 8;

/// A checked request to run code.
#[derive(Debug, Clone)]
pub struct RunSpec {
    /// The recipe.
    pub template: Arc<Template>,
    /// Whose it is.
    pub tenant: Tenant,
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
    events: BoxStream<'static, Event>,
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
        sandbox: Instance,
        place: Place,
        spec: RunSpec,
        cancelled: CancellationToken,
    ) -> Result<Self, SandboxError> {
        for (index, (path, content)) in spec.files.into_iter().enumerate() {
            sandbox.link().write_file(&path, content).await.map_err(|err| match err {
                LinkError::Refused { message, .. } => SandboxError::File { index, message },
                lost @ (LinkError::Broken(_) | LinkError::Unfinished(_) | LinkError::Version(_)) => {
                    SandboxError::Lost(lost)
                }
            })?;
        }
        let limits = spec.limits;
        let execute = Execute {
            context: sandbox.contexts.get(&spec.template.language).cloned().unwrap_or_default(),
            code: spec.code,
            env: spec.env,
            stdin: Some(spec.stdin.unwrap_or_default()),
            limits,
            ..Execute::default()
        };
        let events = sandbox.link().execute(&execute).await.map_err(SandboxError::Lost)?;
        let watch =
            Watch { events, sandbox, limits, cancelled, started: Instant::now(), room: room(&limits), over: false };
        let events = futures::stream::unfold(watch, |mut watch| async {
            let event = watch.next().await?;
            Some((event, watch))
        });
        Ok(Self { place, events: events.boxed() })
    }

    /// The next event; the last one is [`Event::End`], always.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.next().await
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

/// Passes on what the agent says and makes sure that it ends.
struct Watch<E> {
    events: E,
    sandbox: Instance,
    limits: Limits,
    cancelled: CancellationToken,
    started: Instant,
    /// Bytes that the agent may still send.
    room: u64,
    over: bool,
}

impl<E: Stream<Item = Result<Event, LinkError>> + Unpin> Watch<E> {
    async fn next(&mut self) -> Option<Event> {
        if self.over {
            return None;
        }
        let event = self.listen().await;
        self.over = matches!(event, Event::End(_));
        Some(event)
    }

    async fn listen(&mut self) -> Event {
        let limit = Duration::from_millis(self.limits.timeout_ms) + GRACE;
        let event = tokio::select! {
            biased;
            () = self.cancelled.cancelled() => {
                return self.end(OutcomeKind::Cancelled, "the server is shutting down".to_owned(), None);
            }
            // An end that is there was in time, however late we are.
            event = self.events.next() => event,
            () = tokio::time::sleep(limit.saturating_sub(self.started.elapsed())) => {
                let value = self.limits.timeout_ms;
                let message = format!("the code ran longer than timeout_ms = {value} and its sandbox was removed");
                let limit = crate::protocol::LimitHit { name: "timeout_ms".to_owned(), value };
                return self.end(OutcomeKind::Timeout, message, Some(limit));
            }
        };
        match event {
            Some(Ok(event)) => match self.room.checked_sub(size(&event)) {
                Some(room) => {
                    self.room = room;
                    event
                }
                None => self.lost(&LinkError::Broken("the agent sent more than the output limit".into())).await,
            },
            Some(Err(err)) => self.lost(&err).await,
            None => self.lost(&LinkError::Broken("the agent ended its answer early".into())).await,
        }
    }

    /// The agent is gone. If the kernel took it for want of memory, that was the code's doing.
    async fn lost(&self, err: &LinkError) -> Event {
        let ending = self.sandbox.find_ending(self.limits.memory_bytes).await;
        if let Ending::OutOfMemory { memory_bytes: value } = ending {
            let limit = crate::protocol::LimitHit { name: "memory_bytes".to_owned(), value };
            let message = format!("the code needed more than memory_bytes = {value} and its sandbox was lost");
            return self.end(OutcomeKind::OutOfMemory, message, Some(limit));
        }
        tracing::error!(sandbox.id = %self.sandbox.id(), error = err as &dyn std::error::Error, "a run lost its sandbox");
        self.end(OutcomeKind::Infrastructure, format!("the sandbox was lost during the run: {ending}"), None)
    }

    fn end(&self, kind: OutcomeKind, message: String, limit: Option<crate::protocol::LimitHit>) -> Event {
        let usage = Usage { wall_ms: self.started.elapsed().as_millis() as u64, ..Usage::default() };
        Event::End(End { outcome: Outcome { kind, message, limit }, exception: None, usage, lost: true })
    }
}

/// What an agent may send at the most, bytes.
fn room(limits: &Limits) -> u64 {
    limits.output_bytes.saturating_mul(MOST_PER_BYTE).saturating_add(1 << 20)
}

/// What an event takes of the room, bytes; an empty one takes some too.
fn size(event: &Event) -> u64 {
    match event {
        Event::Stdout { text } | Event::Stderr { text } => text.len().max(1) as u64,
        // It comes as it was counted.
        Event::Output(output) => output.counted() * MOST_PER_BYTE,
        Event::End(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an honest agent sends, however small the pieces are, is never more than it may.
    #[test]
    fn all_that_is_allowed_has_room_in_the_smallest_pieces() {
        let limits = Limits { output_bytes: 8 << 20, ..Limits::default() };
        let text = |text: &str| Event::Stdout { text: text.to_owned() };
        // For each byte that is no UTF-8.
        for smallest in [text("\n"), text("\u{fffd}")] {
            assert!(size(&smallest) * limits.output_bytes < room(&limits), "{smallest:?}");
        }
        let output = Output::default();
        let most = limits.output_bytes / output.counted();
        assert!(size(&Event::Output(output)) * most < room(&limits));
    }
}
