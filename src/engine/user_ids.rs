//! The uids that user code runs as, a different one in each sandbox. The kernel limits inotify instances, pending
//! signals, message queues, pipes, epoll entries, files in flight and locked memory per uid of the whole host, not per
//! container.

use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::Rng;
use serde::{Deserialize, Deserializer, de};

/// The lowest uid allowed. Lower ones belong to accounts of the system and of people.
const LEAST: u32 = 1000;

/// The highest uid allowed. Not every tool accepts a higher one.
const MOST: u32 = 0x7fff_fffe;

/// The smallest range allowed.
const FEWEST: u32 = 256;

/// The number of random attempts at a free uid before the range is searched in order.
const TRIES: u32 = 32;

/// A range of uids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserIdRange {
    /// The lowest uid.
    pub first: u32,
    /// The highest uid.
    pub last: u32,
}

impl UserIdRange {
    /// For an engine whose root is the host's root. The range is above all accounts of people, below the limit of a
    /// `ustar` archive, and large enough that several servers on one host rarely choose the same uid at random.
    pub const HOST: Self = Self { first: 0x10_0000, last: 0x1f_ffff };

    /// For an engine in a user namespace, which has 65,536 ids by default.
    pub const NAMESPACE: Self = Self { first: 20_000, last: 59_999 };

    fn all(self) -> RangeInclusive<u32> {
        self.first..=self.last
    }
}

impl fmt::Display for UserIdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Reads `FIRST-LAST`. An empty text leaves the choice to the engine.
pub(crate) fn user_ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<UserIdRange>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let ends = text.split_once('-');
    let ends = ends.and_then(|(first, last)| Some((first.parse::<u32>().ok()?, last.parse::<u32>().ok()?)));
    let (first, last) =
        ends.ok_or_else(|| de::Error::custom(format!("`{text}` is not a range of uids, FIRST-LAST")))?;
    if first < LEAST || last > MOST || last.saturating_sub(first) < FEWEST - 1 {
        let reason = format!("`{text}` must be at least {FEWEST} uids, from {LEAST} to {MOST}");
        return Err(de::Error::custom(reason));
    }
    Ok(Some(UserIdRange { first, last }))
}

/// A range of uids, with those in use.
#[derive(Debug)]
pub(crate) struct UserIds {
    range: UserIdRange,
    used: Mutex<HashSet<u32>>,
}

/// A uid that no other sandbox of this server has. Dropping it frees the uid.
#[derive(Debug)]
pub(crate) struct UserId {
    uid: u32,
    ids: Arc<UserIds>,
}

impl UserIds {
    pub(crate) fn new(range: UserIdRange) -> Arc<Self> {
        Arc::new(Self { range, used: Mutex::default() })
    }

    /// Takes a random free uid, so that it is unlikely to be one of another server with the same range, or of an
    /// earlier server. `None` if all are in use.
    pub(crate) fn take(self: &Arc<Self>) -> Option<UserId> {
        let mut used = self.used();
        let mut random = (0..TRIES).map(|_| rand::rng().random_range(self.range.all()));
        let uid =
            random.find(|uid| !used.contains(uid)).or_else(|| self.range.all().find(|uid| !used.contains(uid)))?;
        used.insert(uid);
        Some(UserId { uid, ids: Arc::clone(self) })
    }

    /// The range.
    pub(crate) fn range(&self) -> UserIdRange {
        self.range
    }

    fn used(&self) -> MutexGuard<'_, HashSet<u32>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UserId {
    /// The number.
    pub(crate) fn get(&self) -> u32 {
        self.uid
    }

    /// The range of all sandboxes' uids.
    pub(crate) fn range(&self) -> UserIdRange {
        self.ids.range
    }
}

impl Drop for UserId {
    fn drop(&mut self) {
        self.ids.used().remove(&self.uid);
    }
}

#[cfg(test)]
mod tests {
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};

    use super::*;

    #[test]
    fn a_uid_belongs_to_one_sandbox_at_a_time() {
        let ids = UserIds::new(UserIdRange { first: 5000, last: 5099 });
        let taken: Vec<_> = std::iter::from_fn(|| ids.take()).collect();
        let numbers: HashSet<_> = taken.iter().map(UserId::get).collect();
        assert_eq!(numbers, (5000..=5099).collect());
        let back = taken.into_iter().nth(70).expect("one").get();
        assert!(ids.take().is_some_and(|uid| (5000..=5099).contains(&uid.get())), "{back}");
    }

    #[test]
    fn a_range_is_read_and_an_unusable_one_is_refused() {
        let read = |text: &'static str| {
            let text: StrDeserializer<'_, Error> = text.into_deserializer();
            user_ids(text).map_err(|err| err.to_string())
        };
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("100000-165535"), Ok(Some(UserIdRange { first: 100_000, last: 165_535 })));
        for bad in ["1000", "a-b", "-", "5000-4000"] {
            assert!(read(bad).is_err_and(|err| err.contains(bad)), "{bad}");
        }
        for (bad, good) in
            [("0-65535", "1000-65535"), ("5000-5254", "5000-5255"), ("5000-2147483647", "5000-2147483646")]
        {
            assert!(read(bad).is_err_and(|err| err.contains("at least 256 uids, from 1000 to 2147483646")), "{bad}");
            assert!(read(good).is_ok(), "{good}");
        }
    }
}
