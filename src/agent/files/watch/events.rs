//! Events that the client has not fetched yet.

use std::collections::VecDeque;

use bytes::Bytes;

/// The most events that are kept for one watch. The oldest are dropped first.
const MAX_EVENTS: usize = 8192;

/// The most bytes of events, as lines of JSON, that are kept for one watch and for all watches together. Beyond the
/// limit for all, the oldest event of the watch with the most bytes is dropped first.
pub(super) const MAX_BYTES: usize = 16 << 20;

/// The events of one watch, each a line of JSON.
#[derive(Debug, Default)]
pub(super) struct Events {
    lines: VecDeque<Bytes>,
    bytes: usize,
}

impl Events {
    /// Adds the newest event.
    pub(super) fn push(&mut self, line: Bytes) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            self.pop();
        }
    }

    /// Takes the oldest event.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let line = self.lines.pop_front()?;
        self.bytes -= line.len();
        Some(line)
    }

    /// The bytes of all events.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_events_are_dropped_beyond_a_number_or_a_size() {
        let mut many = Events::default();
        (0..MAX_EVENTS + 3).for_each(|number| many.push(Bytes::from(number.to_string())));
        assert_eq!((many.lines.len(), many.pop()), (MAX_EVENTS, Some(Bytes::from("3"))));

        let mut large = Events::default();
        for letter in 0..18 {
            large.push(Bytes::from(vec![letter; 1 << 20]));
        }
        assert_eq!(large.bytes(), MAX_BYTES);
        assert_eq!(large.pop().map(|line| line[0]), Some(2));
        while large.pop().is_some() {}
        assert_eq!(large.bytes(), 0);
    }
}
