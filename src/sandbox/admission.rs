//! Who may begin: so many sandboxes run, and so many are kept, in all and for each API key; the rest waits in line or
//! is refused.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use tokio::sync::oneshot;

use super::error::{SandboxError, Whose};
use super::fair_queue::FairQueue;
use super::owner::Owner;

/// How many sandboxes there may be.
#[derive(Debug, Clone)]
pub struct SandboxesConfig {
    /// Sandboxes that serve single runs at once; the warm ones wait beside them.
    pub max_sandboxes: usize,
    /// Those of one API key.
    pub max_sandboxes_per_key: usize,
    /// Sandboxes that are kept at once, paused ones included.
    pub max_kept_sandboxes: usize,
    /// Those of one API key.
    pub max_kept_sandboxes_per_key: usize,
    /// Runs and creations that one API key may ask for in a minute; any number if none.
    pub max_starts_per_minute_per_key: Option<NonZeroU32>,
    /// Requests that wait for a sandbox.
    pub max_queued: usize,
    /// How long a request waits at the most.
    pub queue_timeout: Duration,
    /// A launch that takes longer has failed.
    pub launch_timeout: Duration,
}

/// Gives out the places.
#[derive(Debug)]
pub(crate) struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: SandboxesConfig,
    starts: Option<RateLimiter<Owner, HashMapStateStore<Owner>, DefaultClock>>,
    places: Mutex<Places>,
}

#[derive(Debug)]
struct Places {
    running: Taken,
    kept: Taken,
    /// Who waits for one to run in.
    waiting: FairQueue<oneshot::Sender<Permit>>,
}

/// How many places are taken.
#[derive(Debug)]
struct Taken {
    max: usize,
    max_per_key: usize,
    all: usize,
    by_key: HashMap<Owner, usize>,
}

impl Taken {
    fn new(max: usize, max_per_key: usize) -> Self {
        Self { max, max_per_key, all: 0, by_key: HashMap::new() }
    }

    fn is_room(&self, owner: Owner) -> bool {
        self.all < self.max && self.by_key.get(&owner).is_none_or(|taken| *taken < self.max_per_key)
    }

    fn take(&mut self, owner: Owner) {
        self.all += 1;
        *self.by_key.entry(owner).or_default() += 1;
    }

    fn give_back(&mut self, owner: Owner) {
        self.all -= 1;
        if let Some(taken) = self.by_key.get_mut(&owner) {
            *taken -= 1;
        }
    }

    /// Which bound it is that leaves no room, and where it lies.
    fn bound(&self) -> (usize, Whose) {
        // A place may have become free since.
        let is_of_key = self.all < self.max && self.max_per_key < self.max;
        if is_of_key { (self.max_per_key, Whose::Key) } else { (self.max, Whose::All) }
    }
}

/// What a place is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Run,
    Keep,
}

/// One place. Dropping it gives it to whoever is next.
#[derive(Debug)]
pub(crate) struct Permit {
    shared: Arc<Shared>,
    owner: Owner,
    purpose: Purpose,
}

impl Drop for Permit {
    fn drop(&mut self) {
        {
            let mut places = self.shared.lock();
            match self.purpose {
                Purpose::Run => places.running.give_back(self.owner),
                Purpose::Keep => places.kept.give_back(self.owner),
            }
        }
        Shared::serve(&self.shared);
    }
}

impl Admission {
    /// All places are free.
    pub(crate) fn new(config: SandboxesConfig) -> Self {
        let starts = config.max_starts_per_minute_per_key.map(|most| RateLimiter::hashmap(Quota::per_minute(most)));
        let places = Mutex::new(Places {
            running: Taken::new(config.max_sandboxes, config.max_sandboxes_per_key),
            kept: Taken::new(config.max_kept_sandboxes, config.max_kept_sandboxes_per_key),
            waiting: FairQueue::new(),
        });
        Self(Arc::new(Shared { config, starts, places }))
    }

    /// A place to run in, waited for in line.
    ///
    /// # Errors
    ///
    /// [`SandboxError::TooOften`]; [`SandboxError::Busy`] when the line is full, or does not move.
    pub(crate) async fn run(&self, owner: Owner) -> Result<Permit, SandboxError> {
        self.start(owner)?;
        let place = {
            let mut places = self.0.lock();
            if places.running.is_room(owner) {
                return Ok(self.permit(&mut places, owner, Purpose::Run));
            }
            places.waiting.retain(|waiting| !waiting.is_closed());
            let is_full = places.waiting.len() >= self.0.config.max_queued;
            // Whoever is sent away for it learns so when the sender is dropped.
            if is_full && places.waiting.make_room(owner).is_none() {
                return Err(places.busy());
            }
            let (sender, place) = oneshot::channel();
            places.waiting.push(owner, sender);
            place
        };
        match tokio::time::timeout(self.0.config.queue_timeout, place).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(self.0.lock().busy()),
        }
    }

    /// A place for one that is kept.
    ///
    /// # Errors
    ///
    /// [`SandboxError::TooOften`] and [`SandboxError::Full`].
    pub(crate) fn keep(&self, owner: Owner) -> Result<Permit, SandboxError> {
        self.start(owner)?;
        let mut places = self.0.lock();
        if places.kept.is_room(owner) {
            return Ok(self.permit(&mut places, owner, Purpose::Keep));
        }
        let (max_kept_sandboxes, whose) = places.kept.bound();
        Err(SandboxError::Full { max_kept_sandboxes, whose })
    }

    /// How many run, and how many wait to.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let mut places = self.0.lock();
        places.waiting.retain(|waiting| !waiting.is_closed());
        (places.running.all, places.waiting.len())
    }

    /// The bounds.
    pub(crate) fn config(&self) -> &SandboxesConfig {
        &self.0.config
    }

    fn start(&self, owner: Owner) -> Result<(), SandboxError> {
        let (Some(starts), Some(per_minute)) = (&self.0.starts, self.0.config.max_starts_per_minute_per_key) else {
            return Ok(());
        };
        starts.check_key(&owner).map_err(|early| SandboxError::TooOften {
            per_minute: per_minute.get(),
            retry_after: early.wait_time_from(starts.clock().now()),
        })
    }

    fn permit(&self, places: &mut Places, owner: Owner, purpose: Purpose) -> Permit {
        match purpose {
            Purpose::Run => places.running.take(owner),
            Purpose::Keep => places.kept.take(owner),
        }
        Permit { shared: Arc::clone(&self.0), owner, purpose }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives free places to those who wait.
    fn serve(shared: &Arc<Self>) {
        while let Some((sender, permit)) = Self::next(shared) {
            // Outside of the lock: where nobody takes it any longer it comes back by being dropped.
            let _ = sender.send(permit);
        }
    }

    fn next(shared: &Arc<Self>) -> Option<(oneshot::Sender<Permit>, Permit)> {
        let mut guard = shared.lock();
        let Places { running, waiting, .. } = &mut *guard;
        waiting.retain(|waiting| !waiting.is_closed());
        let (owner, sender) = waiting.pop(|owner| running.is_room(owner))?;
        running.take(owner);
        Some((sender, Permit { shared: Arc::clone(shared), owner, purpose: Purpose::Run }))
    }
}

impl Places {
    fn busy(&self) -> SandboxError {
        let (max_sandboxes, whose) = self.running.bound();
        let queued = self.waiting.len();
        SandboxError::Busy { max_sandboxes, whose, queued, retry_after: Duration::from_secs(1) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::*;

    const A: Owner = Owner([0; 8]);
    const B: Owner = Owner([1; 8]);

    fn admission(change: impl FnOnce(&mut SandboxesConfig)) -> Arc<Admission> {
        let mut config = SandboxesConfig {
            max_sandboxes: 2,
            max_sandboxes_per_key: usize::MAX,
            max_kept_sandboxes: 2,
            max_kept_sandboxes_per_key: usize::MAX,
            max_starts_per_minute_per_key: None,
            max_queued: 4,
            queue_timeout: Duration::from_secs(3600),
            launch_timeout: Duration::from_secs(60),
        };
        change(&mut config);
        Arc::new(Admission::new(config))
    }

    /// Asks for a place, and gives the one that asks once it has joined the line.
    async fn waits(admission: &Arc<Admission>, owner: Owner) -> JoinHandle<Result<Permit, SandboxError>> {
        let asking = Arc::clone(admission);
        let task = tokio::spawn(async move { asking.run(owner).await });
        // There is one thread here: the new task is run before this one again, as far as it can.
        tokio::task::yield_now().await;
        task
    }

    #[tokio::test]
    async fn a_free_place_goes_to_the_key_whose_turn_it_is() {
        let admission = admission(|_| {});
        let first = admission.run(A).await.expect("a place");
        let second = admission.run(A).await.expect("a place");
        let (third, fourth) = (waits(&admission, A).await, waits(&admission, A).await);
        let other = waits(&admission, B).await;
        drop(first);
        let third = third.await.expect("no panic").expect("A waited first");
        drop(second);
        let other = other.await.expect("no panic").expect("then it is B's turn");
        assert_eq!(admission.counts(), (2, 1));
        drop((third, other));
        drop(fourth.await.expect("no panic").expect("the last"));
        assert_eq!(admission.counts(), (0, 0));
    }

    #[tokio::test]
    async fn a_key_beyond_its_own_bound_waits_and_others_do_not() {
        let admission = admission(|config| config.max_sandboxes_per_key = 1);
        let own = admission.run(A).await.expect("a place");
        let next = waits(&admission, A).await;
        let other = admission.run(B).await.expect("a place, past the one that waits");
        assert_eq!(admission.counts(), (2, 1));
        drop(other);
        assert_eq!(admission.counts(), (1, 1), "it is not that place that is waited for");
        drop(own);
        drop(next.await.expect("no panic").expect("its own place"));
    }

    #[tokio::test]
    async fn a_full_line_sends_the_last_of_the_longest_away() {
        let admission = admission(|config| config.max_queued = 2);
        let _running = [admission.run(A).await.expect("a place"), admission.run(A).await.expect("a place")];
        let (_waiting, last) = (waits(&admission, A).await, waits(&admission, A).await);
        let busy = admission.run(A).await.expect_err("the line is full").to_string();
        assert_eq!(busy, "all 2 sandboxes are in use and 2 requests wait for one; try again");
        let other = waits(&admission, B).await;
        assert!(matches!(last.await.expect("no panic"), Err(SandboxError::Busy { .. })));
        assert!(!other.is_finished());
    }

    #[tokio::test]
    async fn whoever_hangs_up_leaves_the_line_and_loses_no_place() {
        let admission = admission(|config| config.max_sandboxes = 1);
        let running = admission.run(A).await.expect("a place");
        let (gone, next) = (waits(&admission, A).await, waits(&admission, B).await);
        gone.abort();
        let _ = gone.await;
        assert_eq!(admission.counts(), (1, 1));
        drop(running);
        drop(next.await.expect("no panic").expect("the place"));
        assert_eq!(admission.counts(), (0, 0));
    }

    #[tokio::test]
    async fn what_is_kept_has_bounds_of_its_own() {
        let admission = admission(|config| config.max_kept_sandboxes_per_key = 1);
        let first = admission.keep(A).expect("a place");
        let refused = admission.keep(A).expect_err("one of this key").to_string();
        assert!(refused.starts_with("1 sandboxes of this key are kept already"), "{refused}");
        let _other = admission.keep(B).expect("a place");
        let refused = admission.keep(Owner([2; 8])).expect_err("two in all").to_string();
        assert!(refused.starts_with("2 sandboxes are kept already"), "{refused}");
        drop(first);
        admission.keep(A).expect("it is free again");
    }

    #[tokio::test]
    async fn a_key_begins_only_so_often() {
        let admission = admission(|config| {
            config.max_starts_per_minute_per_key = NonZeroU32::new(3);
        });
        for _ in 0..2 {
            drop(admission.run(A).await.expect("a place"));
        }
        drop(admission.keep(A).expect("a place"));
        let err = admission.run(A).await.expect_err("the fourth in a minute");
        let SandboxError::TooOften { per_minute: 3, retry_after } = err else { panic!("{err}") };
        assert!((15..=20).contains(&retry_after.as_secs()), "{retry_after:?}");
        admission.run(B).await.expect("another key");
    }
}
