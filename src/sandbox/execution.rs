//! An execution: the events that an agent sends for one piece of code, bounded in size and time.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tokio::time::Instant;

use super::error::OperationError;
use super::kept::Sandbox;
use super::record::{Origin, Recording};
use crate::link::{Link, LinkError};
use crate::protocol::{End, Event, Execute, LimitHit, Limits, Outcome, OutcomeKind, Usage};

/// The agent ends an execution at its timeout. If it does not, the server does, this much later.
const GRACE: Duration = Duration::from_secs(5);

/// The most bytes that an honest agent sends per allowed byte of output: a byte that is not UTF-8 becomes three, and
/// JSON adds its syntax.
const MAX_PER_BYTE: u64 = 8;

/// The events of one execution. [`Event::End`] or an error is the last one.
pub(super) struct Events {
    stream: BoxStream<'static, Result<Event, LinkError>>,
    limits: Limits,
    started: Instant,
    /// The number of bytes that the agent may still send.
    room: u64,
    over: bool,
    recording: Recording,
}

impl Events {
    /// Starts the code. Dropping the events interrupts it.
    pub(super) async fn start(link: &Link, execute: &Execute, recording: Recording) -> Result<Self, LinkError> {
        let started = Instant::now();
        match link.execute(execute).await {
            Ok(stream) => Ok(Self { started, ..Self::new(stream, execute.limits, recording) }),
            Err(err) => {
                recording.forget();
                Err(err)
            }
        }
    }

    fn new(
        stream: impl Stream<Item = Result<Event, LinkError>> + Send + 'static,
        limits: Limits,
        recording: Recording,
    ) -> Self {
        Self { stream: stream.boxed(), limits, started: Instant::now(), room: room(&limits), over: false, recording }
    }

    /// The next event. An error means that the sandbox is gone, or that its agent broke the protocol.
    pub(super) async fn next(&mut self) -> Option<Result<Event, LinkError>> {
        if self.over {
            return None;
        }
        let event = self.receive().await;
        self.over = matches!(event, Ok(Event::End(_)) | Err(_));
        if let Ok(event) = &event {
            self.recording.event(event);
        }
        Some(event)
    }

    async fn receive(&mut self) -> Result<Event, LinkError> {
        let left = self.time_left();
        let event = tokio::select! {
            biased;
            // First: an end that has already arrived was in time, even if it is read late.
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

    /// The time that the agent has left; `None` if the execution has no time limit.
    fn time_left(&self) -> Option<Duration> {
        let limit = Some(self.limits.timeout_ms).filter(|limit| *limit > 0);
        limit.map(|limit| (Duration::from_millis(limit) + GRACE).saturating_sub(self.started.elapsed()))
    }

    /// Ends the events with an outcome that the agent did not report.
    pub(super) fn end(&mut self, kind: OutcomeKind, message: String, limit: Option<LimitHit>) -> Event {
        self.over = true;
        let usage = Usage { wall_ms: self.started.elapsed().as_millis() as u64, ..Usage::default() };
        let end = Event::End(End { outcome: Outcome { kind, message, limit }, exception: None, usage, lost: true });
        self.recording.event(&end);
        end
    }

    /// Whether the last event has been returned.
    pub(super) fn are_over(&self) -> bool {
        self.over
    }

    /// The limits of the execution.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// The number of bytes that an agent may send in one execution.
fn room(limits: &Limits) -> u64 {
    limits.output_bytes.saturating_mul(MAX_PER_BYTE).saturating_add(1 << 20)
}

/// The number of bytes that an event counts for; an empty one counts too, so that their number is bounded.
fn size(event: &Event) -> u64 {
    match event {
        Event::Stdout { text } | Event::Stderr { text } => text.len().max(1) as u64,
        // The agent counts an output in the same way.
        Event::Output(output) => output.counted() * MAX_PER_BYTE,
        Event::End(_) => 0,
    }
}

/// An execution in a context of a kept sandbox. Dropping it interrupts the code.
pub struct Execution {
    /// The number of this execution in its context, from 1.
    pub number: u64,
    context: String,
    sandbox: Arc<Sandbox>,
    events: Events,
}

impl Execution {
    pub(super) async fn start(
        sandbox: &Arc<Sandbox>,
        execute: &Execute,
        origin: Origin,
    ) -> Result<Self, OperationError> {
        let number = sandbox.count_execution(&execute.context);
        let recording = sandbox.recording(origin).of_code(&execute.code);
        let events = Events::start(sandbox.link(), execute, recording).await?;
        Ok(Self { number, context: execute.context.clone(), sandbox: Arc::clone(sandbox), events })
    }

    /// The next event. [`Event::End`] is the last one.
    ///
    /// # Errors
    ///
    /// [`OperationError::Lost`] when the sandbox is gone before the end. It is the last item.
    pub async fn next(&mut self) -> Option<Result<Event, OperationError>> {
        let event = self.events.next().await?;
        match &event {
            // The next execution in this context is the first one of a new interpreter.
            Ok(Event::End(end)) if end.lost => self.sandbox.forget_executions(&self.context),
            // The link still works, so it was the agent that broke the protocol.
            Err(err @ LinkError::Broken(_)) if !self.sandbox.is_lost() => {
                tracing::error!(
                    sandbox.id = self.sandbox.id,
                    error = err as &dyn std::error::Error,
                    "the agent broke the protocol"
                );
                self.sandbox.remove_container();
            }
            Ok(_) | Err(_) => {}
        }
        if event.is_err() {
            let is_killed = self.sandbox.is_killed();
            let outcome = if is_killed { OutcomeKind::Cancelled } else { OutcomeKind::Infrastructure };
            self.events.recording.end_without_report(outcome);
        }
        Some(event.map_err(OperationError::from))
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;
    use crate::protocol::Output;
    use crate::sandbox::owner::Owner;
    use crate::sandbox::record::{HashSecret, Records};

    const LIMITS: Limits =
        Limits { timeout_ms: 1000, memory_bytes: 0, processes: 0, disk_bytes: 0, output_bytes: 1 << 20 };

    fn events(stream: impl Stream<Item = Result<Event, LinkError>> + Send + 'static, limits: Limits) -> Events {
        let records = Arc::new(Records::new(HashSecret::random(), Vec::new()));
        let origin = Origin { run_id: String::new(), door: "run", client: None };
        Events::new(stream, limits, Recording::start(&records, Owner::ANYBODY, origin, "python"))
    }

    #[tokio::test]
    async fn an_agent_that_sends_more_than_an_honest_one_can_is_cut_off() {
        let flood = stream::repeat_with(|| Ok(Event::Stdout { text: "x".repeat(1 << 20) }));
        let mut events = events(flood, LIMITS);
        let mut received = 0;
        while let Some(Ok(_)) = events.next().await {
            received += 1;
        }
        assert_eq!(received, room(&LIMITS) >> 20);
        assert!(events.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_does_not_end_in_time_is_not_waited_for() {
        let began = Instant::now();
        let mut events = events(stream::pending(), LIMITS);
        let Some(Ok(Event::End(end))) = events.next().await else { panic!("no end") };
        assert_eq!((end.outcome.kind, end.lost), (OutcomeKind::Timeout, true));
        assert_eq!(began.elapsed(), Duration::from_secs(1) + GRACE);
        assert!(events.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_execution_without_a_time_limit_may_take_any_time() {
        let mut events = events(stream::pending(), Limits { timeout_ms: 0, ..LIMITS });
        assert!(tokio::time::timeout(Duration::from_secs(1 << 20), events.next()).await.is_err());
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_an_error() {
        let mut events = events(stream::empty(), LIMITS);
        assert!(matches!(events.next().await, Some(Err(LinkError::Broken(_)))));
        assert!(events.next().await.is_none());
    }

    /// The output of an honest agent is never too much, however small its pieces are.
    #[test]
    fn allowed_output_fits_in_the_smallest_pieces() {
        let limits = Limits { output_bytes: 8 << 20, ..Limits::default() };
        let text = |text: &str| Event::Stdout { text: text.to_owned() };
        // The second one replaces each byte that is not UTF-8.
        for smallest in [text("\n"), text("\u{fffd}")] {
            assert!(size(&smallest) * limits.output_bytes < room(&limits), "{smallest:?}");
        }
        let output = Output::default();
        let most = limits.output_bytes / output.counted();
        assert!(size(&Event::Output(output)) * most < room(&limits));
    }
}
