//! Admission: limits how many sandboxes run and how many are kept, in total and per API key. Runs above a limit wait in
//! a queue; kept sandboxes above a limit are refused.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use tokio::sync::oneshot;

use super::error::{LimitScope, SandboxError};
use super::fair_queue::FairQueue;
use super::owner::Owner;

/// The limits of sandboxes and of their queue.
#[derive(Debug, Clone)]
pub struct SandboxesConfig {
    /// The most sandboxes that serve single runs at once; warm ones do not count.
    pub max_sandboxes: usize,
    /// The same for one API key.
    pub max_sandboxes_per_key: usize,
    /// The most sandboxes that are kept at once, including paused ones.
    pub max_kept_sandboxes: usize,
    /// The same for one API key.
    pub max_kept_sandboxes_per_key: usize,
    /// The most runs and creations per minute for one API key; no limit if `None`.
    pub max_starts_per_minute_per_key: Option<NonZeroU32>,
    /// The most runs that wait in the queue.
    pub max_queued: usize,
    /// The longest wait in the queue.
    pub queue_timeout: Duration,
    /// The time after which a launch has failed.
    pub launch_timeout: Duration,
}

/// Hands out permits to run or keep a sandbox.
#[derive(Debug)]
pub(crate) struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: SandboxesConfig,
    starts: Option<RateLimiter<Owner, HashMapStateStore<Owner>, DefaultClock>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    running: Usage,
    kept: Usage,
    /// The runs that wait for a permit.
    waiting: FairQueue<oneshot::Sender<Permit>>,
}

/// The number of sandboxes for one purpose, and its limits.
#[derive(Debug)]
struct Usage {
    max: usize,
    max_per_key: usize,
    total: usize,
    by_key: HashMap<Owner, usize>,
}

impl Usage {
    fn new(max: usize, max_per_key: usize) -> Self {
        Self { max, max_per_key, total: 0, by_key: HashMap::new() }
    }

    fn has_room(&self, owner: Owner) -> bool {
        self.total < self.max && self.by_key.get(&owner).is_none_or(|used| *used < self.max_per_key)
    }

    fn add(&mut self, owner: Owner) {
        self.total += 1;
        *self.by_key.entry(owner).or_default() += 1;
    }

    fn remove(&mut self, owner: Owner) {
        self.total -= 1;
        if let Some(used) = self.by_key.get_mut(&owner) {
            *used -= 1;
        }
    }

    /// The limit that was reached, and its scope.
    fn reached_limit(&self) -> (usize, LimitScope) {
        // The total may have dropped below its limit since.
        let is_per_key = self.total < self.max && self.max_per_key < self.max;
        if is_per_key { (self.max_per_key, LimitScope::Key) } else { (self.max, LimitScope::All) }
    }
}

/// The purpose of a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Run,
    Keep,
}

/// The permission for one sandbox. Dropping it passes it on to the next run in the queue.
#[derive(Debug)]
pub(crate) struct Permit {
    shared: Arc<Shared>,
    owner: Owner,
    purpose: Purpose,
}

impl Drop for Permit {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            match self.purpose {
                Purpose::Run => state.running.remove(self.owner),
                Purpose::Keep => state.kept.remove(self.owner),
            }
        }
        Shared::serve(&self.shared);
    }
}

impl Admission {
    /// Nothing runs and nothing is kept at first.
    pub(crate) fn new(config: SandboxesConfig) -> Self {
        let starts = config.max_starts_per_minute_per_key.map(|most| RateLimiter::hashmap(Quota::per_minute(most)));
        let state = Mutex::new(State {
            running: Usage::new(config.max_sandboxes, config.max_sandboxes_per_key),
            kept: Usage::new(config.max_kept_sandboxes, config.max_kept_sandboxes_per_key),
            waiting: FairQueue::new(),
        });
        Self(Arc::new(Shared { config, starts, state }))
    }

    /// A permit for a run. Waits in the queue while a limit is reached.
    ///
    /// # Errors
    ///
    /// [`SandboxError::TooOften`]; [`SandboxError::Busy`] when the queue is full, or after `queue_timeout`.
    pub(crate) async fn run(&self, owner: Owner) -> Result<Permit, SandboxError> {
        self.check_rate(owner)?;
        let waiting = {
            let mut state = self.0.lock();
            if state.running.has_room(owner) {
                return Ok(self.permit(&mut state, owner, Purpose::Run));
            }
            state.waiting.retain(|waiting| !waiting.is_closed());
            let is_full = state.waiting.len() >= self.0.config.max_queued;
            // Dropping the sender that makes room refuses its run.
            if is_full && state.waiting.make_room(owner).is_none() {
                return Err(state.busy());
            }
            let (sender, permit) = oneshot::channel();
            state.waiting.push(owner, sender);
            permit
        };
        match tokio::time::timeout(self.0.config.queue_timeout, waiting).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(self.0.lock().busy()),
        }
    }

    /// A permit for a kept sandbox.
    ///
    /// # Errors
    ///
    /// [`SandboxError::TooOften`] and [`SandboxError::Full`].
    pub(crate) fn keep(&self, owner: Owner) -> Result<Permit, SandboxError> {
        self.check_rate(owner)?;
        let mut state = self.0.lock();
        if state.kept.has_room(owner) {
            return Ok(self.permit(&mut state, owner, Purpose::Keep));
        }
        let (max_kept_sandboxes, scope) = state.kept.reached_limit();
        Err(SandboxError::Full { max_kept_sandboxes, scope })
    }

    /// The number of running sandboxes, and of runs in the queue.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let mut state = self.0.lock();
        state.waiting.retain(|waiting| !waiting.is_closed());
        (state.running.total, state.waiting.len())
    }

    /// The limits.
    pub(crate) fn config(&self) -> &SandboxesConfig {
        &self.0.config
    }

    /// Counts a run or a creation against the owner's limit per minute.
    fn check_rate(&self, owner: Owner) -> Result<(), SandboxError> {
        let (Some(starts), Some(per_minute)) = (&self.0.starts, self.0.config.max_starts_per_minute_per_key) else {
            return Ok(());
        };
        starts.check_key(&owner).map_err(|early| SandboxError::TooOften {
            per_minute: per_minute.get(),
            retry_after: early.wait_time_from(starts.clock().now()),
        })
    }

    fn permit(&self, state: &mut State, owner: Owner, purpose: Purpose) -> Permit {
        match purpose {
            Purpose::Run => state.running.add(owner),
            Purpose::Keep => state.kept.add(owner),
        }
        Permit { shared: Arc::clone(&self.0), owner, purpose }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends permits to waiting runs while there is room.
    fn serve(shared: &Arc<Self>) {
        while let Some((sender, permit)) = Self::next(shared) {
            // Outside the lock: a permit that its run no longer awaits is dropped, which takes the lock.
            let _ = sender.send(permit);
        }
    }

    fn next(shared: &Arc<Self>) -> Option<(oneshot::Sender<Permit>, Permit)> {
        let mut guard = shared.lock();
        let State { running, waiting, .. } = &mut *guard;
        waiting.retain(|waiting| !waiting.is_closed());
        let (owner, sender) = waiting.pop(|owner| running.has_room(owner))?;
        running.add(owner);
        Some((sender, Permit { shared: Arc::clone(shared), owner, purpose: Purpose::Run }))
    }
}

impl State {
    fn busy(&self) -> SandboxError {
        let (max_sandboxes, scope) = self.running.reached_limit();
        let queued = self.waiting.len();
        SandboxError::Busy { max_sandboxes, scope, queued, retry_after: Duration::from_secs(1) }
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

    /// Requests a permit, and returns the request's task once it waits in the queue.
    async fn request(admission: &Arc<Admission>, owner: Owner) -> JoinHandle<Result<Permit, SandboxError>> {
        let own = Arc::clone(admission);
        let task = tokio::spawn(async move { own.run(owner).await });
        // The test has one thread: the new task runs as far as it can before this one continues.
        tokio::task::yield_now().await;
        task
    }

    #[tokio::test]
    async fn a_free_permit_goes_to_the_key_whose_turn_it_is() {
        let admission = admission(|_| {});
        let first = admission.run(A).await.expect("a permit");
        let second = admission.run(A).await.expect("a permit");
        let (third, fourth) = (request(&admission, A).await, request(&admission, A).await);
        let other = request(&admission, B).await;
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
    async fn a_key_at_its_own_limit_waits_and_others_do_not() {
        let admission = admission(|config| config.max_sandboxes_per_key = 1);
        let own = admission.run(A).await.expect("a permit");
        let next = request(&admission, A).await;
        let other = admission.run(B).await.expect("a permit, ahead of the other key's run that waits");
        assert_eq!(admission.counts(), (2, 1));
        drop(other);
        assert_eq!(admission.counts(), (1, 1), "the first key still has its own limit");
        drop(own);
        drop(next.await.expect("no panic").expect("a permit of its own key"));
    }

    #[tokio::test]
    async fn a_full_queue_refuses_the_last_run_of_the_key_with_the_most() {
        let admission = admission(|config| config.max_queued = 2);
        let _running = [admission.run(A).await.expect("a permit"), admission.run(A).await.expect("a permit")];
        let (_waiting, last) = (request(&admission, A).await, request(&admission, A).await);
        let busy = admission.run(A).await.expect_err("the queue is full").to_string();
        assert_eq!(busy, "all 2 sandboxes are in use and 2 requests wait for one; try again");
        let other = request(&admission, B).await;
        assert!(matches!(last.await.expect("no panic"), Err(SandboxError::Busy { .. })));
        assert!(!other.is_finished());
    }

    #[tokio::test]
    async fn a_cancelled_request_leaves_the_queue_and_loses_no_permit() {
        let admission = admission(|config| config.max_sandboxes = 1);
        let running = admission.run(A).await.expect("a permit");
        let (gone, next) = (request(&admission, A).await, request(&admission, B).await);
        gone.abort();
        let _ = gone.await;
        assert_eq!(admission.counts(), (1, 1));
        drop(running);
        drop(next.await.expect("no panic").expect("the permit"));
        assert_eq!(admission.counts(), (0, 0));
    }

    #[tokio::test]
    async fn kept_sandboxes_have_limits_of_their_own() {
        let admission = admission(|config| config.max_kept_sandboxes_per_key = 1);
        let first = admission.keep(A).expect("a permit");
        let refused = admission.keep(A).expect_err("one of this key").to_string();
        assert!(refused.starts_with("1 sandboxes of this key are kept already"), "{refused}");
        let _other = admission.keep(B).expect("a permit");
        let refused = admission.keep(Owner([2; 8])).expect_err("two in total").to_string();
        assert!(refused.starts_with("2 sandboxes are kept already"), "{refused}");
        drop(first);
        admission.keep(A).expect("there is room again");
    }

    #[tokio::test]
    async fn starts_per_minute_are_limited_per_key() {
        let admission = admission(|config| {
            config.max_starts_per_minute_per_key = NonZeroU32::new(3);
        });
        for _ in 0..2 {
            drop(admission.run(A).await.expect("a permit"));
        }
        drop(admission.keep(A).expect("a permit"));
        let err = admission.run(A).await.expect_err("the fourth in a minute");
        let SandboxError::TooOften { per_minute: 3, retry_after } = err else { panic!("{err}") };
        assert!((15..=20).contains(&retry_after.as_secs()), "{retry_after:?}");
        admission.run(B).await.expect("another key");
    }
}
