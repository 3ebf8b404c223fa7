//! Events that nobody has fetched yet.

use std::collections::VecDeque;

use bytes::Bytes;

/// Events kept of one watch. The oldest are dropped first.
const MAX_EVENTS: usize = 8192;

/// Bytes of the events of one watch, and of all watches together, as lines of JSON. Beyond these the oldest events are dropped, of the
/// watch with the most bytes first.
pub(super) const MAX_BYTES: usize = 16 << 20;

/// The events of one watch, each a line of JSON.
#[derive(Debug, Default)]
pub(super) struct Events {
    lines: VecDeque<Bytes>,
    bytes: usize,
}

impl Events {
    /// Adds the newest.
    pub(super) fn push(&mut self, line: Bytes) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            self.pop();
        }
    }

    /// Takes the oldest.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let line = self.lines.pop_front()?;
        self.bytes -= line.len();
        Some(line)
    }

    /// The bytes of all.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_events_are_dropped_first_beyond_a_number_and_beyond_a_size() {
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
