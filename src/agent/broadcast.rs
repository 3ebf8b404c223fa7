//! One stream of lines for several readers. Each reader gets every line after its subscription; the slowest reader sets
//! the pace.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;

/// The most lines that wait for one reader. When its queue is full, the writer waits.
const WAITING: usize = 16;

/// The readers of one stream.
#[derive(Debug)]
pub(crate) struct Broadcast {
    greeting: Bytes,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    readers: Vec<mpsc::Sender<Bytes>>,
    end: Option<Bytes>,
}

/// One reader's lines. Dropping it ends the subscription.
pub(crate) type Subscription = std::pin::Pin<Box<dyn Stream<Item = Bytes> + Send>>;

impl Broadcast {
    /// Creates a stream without readers. `greeting` is the first line of every reader.
    pub(crate) fn new(greeting: Bytes) -> Self {
        Self { greeting, state: Mutex::default() }
    }

    /// Adds a reader of the greeting, every line from now on, and the end.
    pub(crate) fn subscribe(&self) -> Subscription {
        let (sender, receiver) = mpsc::channel(WAITING);
        sender.try_send(self.greeting.clone()).expect("a new channel has room");
        let mut state = self.state();
        match &state.end {
            Some(end) => sender.try_send(end.clone()).expect("a new channel has room for two"),
            None => state.readers.push(sender),
        }
        drop(state);
        Box::pin(futures::stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) }))
    }

    /// Whether the end has been sent.
    pub(crate) fn is_over(&self) -> bool {
        self.state().end.is_some()
    }

    /// Sends a line to every reader, and waits for slow ones. `line` is not called if there are no readers.
    pub(crate) async fn send(&self, line: impl FnOnce() -> Bytes) {
        let readers = self.state().readers.clone();
        if readers.is_empty() {
            return;
        }
        let line = line();
        for reader in readers {
            if reader.send(line.clone()).await.is_err() {
                self.state().readers.retain(|other| !other.same_channel(&reader));
            }
        }
    }

    /// Sends the end, also to later subscribers.
    pub(crate) async fn finish(&self, end: Bytes) {
        let readers = {
            let mut state = self.state();
            state.end = Some(end.clone());
            std::mem::take(&mut state.readers)
        };
        // Concurrently: this is the last line, so a slow reader need not delay the others.
        futures::future::join_all(readers.iter().map(|reader| reader.send(end.clone()))).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn the_slowest_reader_sets_the_pace_until_it_is_gone() {
        let broadcast = Broadcast::new("hello".into());
        let slow = broadcast.subscribe();
        let writer = async {
            for _ in 0..100 {
                broadcast.send(|| "line".into()).await;
            }
            broadcast.finish("bye".into()).await;
        };
        let fast = broadcast.subscribe().count();
        let leave = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(slow);
        };
        let ((), fast, ()) = tokio::join!(writer, fast, leave);
        assert_eq!(fast, 102);
    }

    #[tokio::test]
    async fn a_late_reader_gets_the_greeting_and_the_end() {
        let broadcast = Broadcast::new("hello".into());
        broadcast.send(|| unreachable!("there is no reader")).await;
        broadcast.finish("bye".into()).await;
        assert_eq!(broadcast.subscribe().collect::<Vec<_>>().await, ["hello", "bye"]);
    }
}
