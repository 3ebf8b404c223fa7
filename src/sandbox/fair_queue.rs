//! A fair queue: each owner has its own line, and the owners take turns.

use std::collections::VecDeque;

use super::owner::Owner;

/// Waiting items. The items of an owner with many do not delay those of an owner with few.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    /// The lines, none of them empty. The first owner has the next turn.
    lines: VecDeque<(Owner, VecDeque<T>)>,
}

impl<T> FairQueue<T> {
    /// An empty queue.
    pub(crate) fn new() -> Self {
        Self { lines: VecDeque::new() }
    }

    /// The number of items.
    pub(crate) fn len(&self) -> usize {
        self.lines.iter().map(|(_, line)| line.len()).sum()
    }

    /// All items, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.lines.iter().flat_map(|(_, line)| line)
    }

    /// Adds an item to the end of its owner's line.
    pub(crate) fn push(&mut self, owner: Owner, item: T) {
        match self.lines.iter_mut().find(|(other, _)| *other == owner) {
            Some((_, line)) => line.push_back(item),
            None => self.lines.push_back((owner, VecDeque::from([item]))),
        }
    }

    /// Removes and returns the first item of the next owner for whom `may` is true.
    pub(crate) fn pop(&mut self, may: impl Fn(Owner) -> bool) -> Option<(Owner, T)> {
        let turn = self.lines.iter().position(|(owner, _)| may(*owner))?;
        let (owner, mut line) = self.lines.remove(turn)?;
        let item = line.pop_front()?;
        if !line.is_empty() {
            self.lines.push_back((owner, line));
        }
        Some((owner, item))
    }

    /// Removes the last item of the longest line, if the owner's line would still be shorter with one more item.
    pub(crate) fn make_room(&mut self, owner: Owner) -> Option<T> {
        let own = self.lines.iter().find(|(other, _)| *other == owner).map_or(0, |(_, line)| line.len());
        let (_, longest) = self.lines.iter_mut().max_by_key(|(_, line)| line.len())?;
        if longest.len() > own + 1 { longest.pop_back() } else { None }
    }

    /// Removes all items for which `keep` is false.
    pub(crate) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        for (_, line) in &mut self.lines {
            line.retain(&keep);
        }
        self.lines.retain(|(_, line)| !line.is_empty());
    }

    /// Removes all items.
    pub(crate) fn clear(&mut self) {
        self.lines.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Owner = Owner([0; 8]);
    const B: Owner = Owner([1; 8]);

    fn queue(items: &[(Owner, u32)]) -> FairQueue<u32> {
        let mut queue = FairQueue::new();
        for (owner, item) in items {
            queue.push(*owner, *item);
        }
        queue
    }

    fn all(mut queue: FairQueue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop(|_| true)).map(|(_, item)| item).collect()
    }

    #[test]
    fn owners_take_turns_and_each_line_keeps_its_order() {
        assert_eq!(all(queue(&[(A, 1), (A, 2), (A, 3), (B, 4), (B, 5)])), [1, 4, 2, 5, 3]);
    }

    #[test]
    fn an_owner_that_may_not_is_skipped_and_keeps_its_turn() {
        let mut queue = queue(&[(A, 1), (A, 2), (B, 3)]);
        assert_eq!(queue.pop(|owner| owner == B), Some((B, 3)));
        assert_eq!(queue.pop(|owner| owner == B), None);
        assert_eq!(all(queue), [1, 2]);
    }

    #[test]
    fn room_is_made_for_an_owner_with_a_shorter_line() {
        let mut queue = queue(&[(A, 1), (A, 2), (A, 3), (B, 4)]);
        assert_eq!(queue.make_room(A), None);
        assert_eq!(queue.make_room(B), Some(3));
        queue.push(B, 5);
        assert_eq!(queue.make_room(B), None, "both have two");
        assert_eq!(queue.len(), 4);
    }

    #[test]
    fn removed_items_leave_no_gap() {
        let mut queue = queue(&[(A, 1), (B, 2), (A, 3)]);
        queue.retain(|item| *item != 2);
        assert_eq!(queue.len(), 2);
        assert_eq!(all(queue), [1, 3]);
    }
}
