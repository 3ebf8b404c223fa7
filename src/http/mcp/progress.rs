//! The progress of a run: how long it takes already, and what it has printed last.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RequestContext};
use tokio::time::{Instant, MissedTickBehavior};

use crate::protocol::Event;

/// The time from one message to the next.
const INTERVAL: Duration = Duration::from_millis(500);
/// The most characters of a line that a message has.
const MAX_LINE: usize = 200;
/// The most bytes that are kept to find the last line in.
const MAX_TAIL: usize = 4096;

/// What a run has printed last.
#[derive(Debug, Default)]
pub(super) struct LastLine(Mutex<String>);

impl LastLine {
    /// Takes what an event prints.
    pub(super) fn note(&self, event: &Event) {
        let (Event::Stdout { text } | Event::Stderr { text }) = event else { return };
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.push_str(text);
        let start = tail.ceil_char_boundary(tail.len().saturating_sub(MAX_TAIL));
        tail.drain(..start);
    }

    /// Returns the beginning of the last line that is not empty.
    fn get(&self) -> Option<String> {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = tail.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.chars().take(MAX_LINE).collect())
    }
}

/// The client that is shown the progress of a call, and the name that it has for it.
#[derive(Debug)]
pub(super) struct Progress {
    peer: Peer<RoleServer>,
    token: ProgressToken,
}

impl Progress {
    /// Returns `None` if the call did not request progress.
    pub(super) fn of(context: &RequestContext<RoleServer>) -> Option<Self> {
        Some(Self { token: context.meta.get_progress_token()?, peer: context.peer.clone() })
    }

    /// Sends messages for ever. Their unit is a millisecond.
    pub(super) async fn show(&self, last_line: &LastLine, timeout_ms: u64) -> Infallible {
        let started = Instant::now();
        let mut interval = tokio::time::interval_at(started + INTERVAL, INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let elapsed_ms = started.elapsed().as_millis() as f64;
            let message = ProgressNotificationParam::new(self.token.clone(), elapsed_ms).with_total(timeout_ms as f64);
            let message = match last_line.get() {
                Some(line) => message.with_message(line),
                None => message,
            };
            // A client that has gone ends the call by itself.
            let _ = self.peer.notify_progress(message).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_is_not_empty_is_kept_whatever_the_pieces() {
        let line = LastLine::default();
        let print = |text: &str| {
            line.note(&Event::Stdout { text: text.to_owned() });
            line.get()
        };
        assert_eq!(print("\n"), None);
        assert_eq!(print("one\ntw").as_deref(), Some("tw"));
        assert_eq!(print("o").as_deref(), Some("two"));
        assert_eq!(print("\n  \n").as_deref(), Some("two"));
        line.note(&Event::Stderr { text: "three\r\n".to_owned() });
        assert_eq!(line.get().as_deref(), Some("three"));
        assert_eq!(print(&format!("{}\n", "é".repeat(300))), Some("é".repeat(200)));
        assert!(print(&"a".repeat(1 << 20)).is_some_and(|line| line == "a".repeat(200)));
        assert!(line.0.lock().expect("no panic").len() <= MAX_TAIL);
    }
}
