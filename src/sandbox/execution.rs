//! An execution: the events that an agent sends for one piece of code, bounded in size and time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::BoxStream;

use super::error::OperationError;
use super::kept::Sandbox;
use crate::link::{Link, LinkError};
use crate::protocol::{End, Event, Execute, LimitHit, Limits, Outcome, OutcomeKind, Usage};

/// The agent ends an execution at its time. If it does not, the server does, this much later.
const GRACE: Duration = Duration::from_secs(5);

/// Each byte that is not UTF-8 becomes three, and JSON adds its own marks. An agent that sends more than this per allowed byte
/// of output is lying.
const MAX_PER_BYTE: u64 = 8;

/// The events of one execution. After [`Event::End`] or an error, nothing follows.
pub(super) struct Events {
    stream: BoxStream<'static, Result<Event, LinkError>>,
    limits: Limits,
    started: Instant,
    /// How many bytes the agent may still send.
    room: u64,
    over: bool,
}

impl Events {
    /// Starts the code. Dropping the events interrupts it.
    pub(super) async fn start(link: &Link, execute: &Execute) -> Result<Self, LinkError> {
        let (limits, started) = (execute.limits, Instant::now());
        Ok(Self { stream: link.execute(execute).await?.boxed(), limits, started, room: room(&limits), over: false })
    }

    /// The next event. An error means that the sandbox is gone, or that its agent is lying.
    pub(super) async fn next(&mut self) -> Option<Result<Event, LinkError>> {
        if self.over {
            return None;
        }
        let event = self.receive().await;
        self.over = matches!(event, Ok(Event::End(_)) | Err(_));
        Some(event)
    }

    async fn receive(&mut self) -> Result<Event, LinkError> {
        let left = self.time_left();
        let event = tokio::select! {
            biased;
            // First: an end that has arrived was in time, even if this is late to look.
            event = self.stream.next() => event,
            () = tokio::time::sleep(left.unwrap_or_default()), if left.is_some() => {
                let value = self.limits.timeout_ms;
                let message = format!("the code ran longer than timeout_ms = {value} and its sandbox was removed");
                return Ok(self.end(OutcomeKind::Timeout, message, Some(LimitHit { name: "timeout_ms".to_owned(), value })));
            }
        };
        let event = event.ok_or_else(|| LinkError::Broken("the agent ended its answer early".into()))??;
        let too_much = || LinkError::Broken("the agent sent more than the output limit".into());
        self.room = self.room.checked_sub(size(&event)).ok_or_else(too_much)?;
        Ok(event)
    }

    /// How long the agent may still take; `None` if the execution has no time limit.
    fn time_left(&self) -> Option<Duration> {
        let limit = Some(self.limits.timeout_ms).filter(|limit| *limit > 0);
        limit.map(|limit| (Duration::from_millis(limit) + GRACE).saturating_sub(self.started.elapsed()))
    }

    /// An end that the agent did not report. Nothing follows it.
    pub(super) fn end(&mut self, kind: OutcomeKind, message: String, limit: Option<LimitHit>) -> Event {
        self.over = true;
        let usage = Usage { wall_ms: self.started.elapsed().as_millis() as u64, ..Usage::default() };
        Event::End(End { outcome: Outcome { kind, message, limit }, exception: None, usage, lost: true })
    }

    /// Whether the end was there.
    pub(super) fn are_over(&self) -> bool {
        self.over
    }

    /// What the code may use.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// How many bytes an agent may send in all.
fn room(limits: &Limits) -> u64 {
    limits.output_bytes.saturating_mul(MAX_PER_BYTE).saturating_add(1 << 20)
}

/// How many bytes of the room an event takes; an empty one takes some too.
fn size(event: &Event) -> u64 {
    match event {
        Event::Stdout { text } | Event::Stderr { text } => text.len().max(1) as u64,
        // It arrives as the agent counted it.
        Event::Output(output) => output.counted() * MAX_PER_BYTE,
        Event::End(_) => 0,
    }
}

/// An execution in a context of a kept sandbox. Dropping it interrupts the code.
pub struct Execution {
    /// How many executions the context has seen, this one included.
    pub number: u64,
    context: String,
    sandbox: Arc<Sandbox>,
    events: Events,
}

impl Execution {
    pub(super) async fn start(sandbox: &Arc<Sandbox>, execute: &Execute) -> Result<Self, OperationError> {
        let number = sandbox.count_execution(&execute.context);
        let events = Events::start(sandbox.link(), execute).await?;
        Ok(Self { number, context: execute.context.clone(), sandbox: Arc::clone(sandbox), events })
    }

    /// The next event. [`Event::End`] is the last one.
    ///
    /// # Errors
    ///
    /// [`OperationError::Lost`] when the sandbox is gone before the end. Nothing follows.
    pub async fn next(&mut self) -> Option<Result<Event, OperationError>> {
        let event = self.events.next().await?;
        match &event {
            // The context's next execution will be the first of a new interpreter.
            Ok(Event::End(end)) if end.lost => self.sandbox.forget_executions(&self.context),
            // The link is whole, so the agent sent what no honest one would.
            Err(err @ LinkError::Broken(_)) if !self.sandbox.is_lost() => {
                tracing::error!(
                    sandbox.id = self.sandbox.id,
                    error = err as &dyn std::error::Error,
                    "the agent is lying"
                );
                self.sandbox.remove_container();
            }
            Ok(_) | Err(_) => {}
        }
        Some(event.map_err(OperationError::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Output;

    /// The output of an honest agent fits, however small its pieces are.
    #[test]
    fn all_that_is_allowed_has_room_in_the_smallest_pieces() {
        let limits = Limits { output_bytes: 8 << 20, ..Limits::default() };
        let text = |text: &str| Event::Stdout { text: text.to_owned() };
        // The second is what replaces each byte that is not UTF-8.
        for smallest in [text("\n"), text("\u{fffd}")] {
            assert!(size(&smallest) * limits.output_bytes < room(&limits), "{smallest:?}");
        }
        let output = Output::default();
        let most = limits.output_bytes / output.counted();
        assert!(size(&Event::Output(output)) * most < room(&limits));
    }
}
