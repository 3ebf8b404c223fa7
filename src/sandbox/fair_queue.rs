//! Fair waiting: a line for each owner, and the owners take turns.

use std::collections::VecDeque;

use super::owner::Owner;

/// Those who wait. A owner with many waits behind one with few, not before.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    /// None is empty. The first owner's turn is next.
    lines: VecDeque<(Owner, VecDeque<T>)>,
}

impl<T> FairQueue<T> {
    /// Nobody waits.
    pub(crate) fn new() -> Self {
        Self { lines: VecDeque::new() }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.lines.iter().map(|(_, line)| line.len()).sum()
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.lines.iter().flat_map(|(_, line)| line)
    }

    /// Joins the end of the owner's line.
    pub(crate) fn push(&mut self, owner: Owner, item: T) {
        match self.lines.iter_mut().find(|(whose, _)| *whose == owner) {
            Some((_, line)) => line.push_back(item),
            None => self.lines.push_back((owner, VecDeque::from([item]))),
        }
    }

    /// The first in line of the owner whose turn it is, among the owners that may.
    pub(crate) fn pop(&mut self, may: impl Fn(Owner) -> bool) -> Option<(Owner, T)> {
        let turn = self.lines.iter().position(|(owner, _)| may(*owner))?;
        let (owner, mut line) = self.lines.remove(turn)?;
        let item = line.pop_front()?;
        if !line.is_empty() {
            self.lines.push_back((owner, line));
        }
        Some((owner, item))
    }

    /// Takes out the last of the longest line, if the owner would have a shorter one even with one more in it.
    pub(crate) fn make_room(&mut self, owner: Owner) -> Option<T> {
        let own = self.lines.iter().find(|(whose, _)| *whose == owner).map_or(0, |(_, line)| line.len());
        let (_, longest) = self.lines.iter_mut().max_by_key(|(_, line)| line.len())?;
        if longest.len() > own + 1 { longest.pop_back() } else { None }
    }

    /// Leaves only those for whom it holds.
    pub(crate) fn retain(&mut self, holds: impl Fn(&T) -> bool) {
        for (_, line) in &mut self.lines {
            line.retain(&holds);
        }
        self.lines.retain(|(_, line)| !line.is_empty());
    }

    /// Sends everybody away.
    pub(crate) fn clear(&mut self) {
        self.lines.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Owner = Owner([0; 8]);
    const B: Owner = Owner([1; 8]);

    fn lines(items: &[(Owner, u32)]) -> FairQueue<u32> {
        let mut lines = FairQueue::new();
        for (owner, item) in items {
            lines.push(*owner, *item);
        }
        lines
    }

    fn all(mut lines: FairQueue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| lines.pop(|_| true)).map(|(_, item)| item).collect()
    }

    #[test]
    fn owners_take_turns_and_each_ones_line_keeps_its_order() {
        assert_eq!(all(lines(&[(A, 1), (A, 2), (A, 3), (B, 4), (B, 5)])), [1, 4, 2, 5, 3]);
    }

    #[test]
    fn who_may_not_is_passed_over_and_keeps_the_turn() {
        let mut lines = lines(&[(A, 1), (A, 2), (B, 3)]);
        assert_eq!(lines.pop(|owner| owner == B), Some((B, 3)));
        assert_eq!(lines.pop(|owner| owner == B), None);
        assert_eq!(all(lines), [1, 2]);
    }

    #[test]
    fn a_full_line_makes_room_for_whoever_has_fewer_in_it() {
        let mut lines = lines(&[(A, 1), (A, 2), (A, 3), (B, 4)]);
        assert_eq!(lines.make_room(A), None);
        assert_eq!(lines.make_room(B), Some(3));
        lines.push(B, 5);
        assert_eq!(lines.make_room(B), None, "both have two");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn who_has_left_is_not_waited_for() {
        let mut lines = lines(&[(A, 1), (B, 2), (A, 3)]);
        lines.retain(|item| *item != 2);
        assert_eq!(lines.len(), 2);
        assert_eq!(all(lines), [1, 3]);
    }
}
