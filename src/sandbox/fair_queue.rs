//! Fair waiting: a line for each tenant, and the tenants take turns.

use std::collections::VecDeque;

use super::tenant::Tenant;

/// Those who wait. A tenant with many waits behind one with few, not before.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    /// None is empty. The first tenant's turn is next.
    lines: VecDeque<(Tenant, VecDeque<T>)>,
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

    /// Joins the end of the tenant's line.
    pub(crate) fn push(&mut self, tenant: Tenant, item: T) {
        match self.lines.iter_mut().find(|(whose, _)| *whose == tenant) {
            Some((_, line)) => line.push_back(item),
            None => self.lines.push_back((tenant, VecDeque::from([item]))),
        }
    }

    /// The first in line of the tenant whose turn it is, among the tenants that may.
    pub(crate) fn pop(&mut self, may: impl Fn(Tenant) -> bool) -> Option<(Tenant, T)> {
        let turn = self.lines.iter().position(|(tenant, _)| may(*tenant))?;
        let (tenant, mut line) = self.lines.remove(turn)?;
        let item = line.pop_front()?;
        if !line.is_empty() {
            self.lines.push_back((tenant, line));
        }
        Some((tenant, item))
    }

    /// Takes out the last of the longest line, if the tenant would have a shorter one even with one more in it.
    pub(crate) fn make_room(&mut self, tenant: Tenant) -> Option<T> {
        let own = self.lines.iter().find(|(whose, _)| *whose == tenant).map_or(0, |(_, line)| line.len());
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

    const A: Tenant = Tenant(0);
    const B: Tenant = Tenant(1);

    fn lines(items: &[(Tenant, u32)]) -> FairQueue<u32> {
        let mut lines = FairQueue::new();
        for (tenant, item) in items {
            lines.push(*tenant, *item);
        }
        lines
    }

    fn all(mut lines: FairQueue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| lines.pop(|_| true)).map(|(_, item)| item).collect()
    }

    #[test]
    fn tenants_take_turns_and_each_ones_line_keeps_its_order() {
        assert_eq!(all(lines(&[(A, 1), (A, 2), (A, 3), (B, 4), (B, 5)])), [1, 4, 2, 5, 3]);
    }

    #[test]
    fn who_may_not_is_passed_over_and_keeps_the_turn() {
        let mut lines = lines(&[(A, 1), (A, 2), (B, 3)]);
        assert_eq!(lines.pop(|tenant| tenant == B), Some((B, 3)));
        assert_eq!(lines.pop(|tenant| tenant == B), None);
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
