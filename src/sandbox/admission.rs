//! Admission: limits how many sandboxes run and how many are kept, in total and per API key. Runs above a limit wait in
//! a queue; kept sandboxes above a limit are refused.

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::oneshot;

use super::error::{LimitScope, SandboxError};
use super::fair_queue::FairQueue;
use super::owner::Owner;
use super::owners::Owners;

/// The limits of sandboxes and of their queue.
#[derive(Debug, Clone)]
pub struct SandboxesConfig {
    /// The most sandboxes that serve single runs at once; warm ones do not count.
    pub max_sandboxes: usize,
    /// The same for one API key that has no limit of its own.
    pub max_sandboxes_per_key: usize,
    /// The most sandboxes that are kept at once, including paused ones.
    pub max_kept_sandboxes: usize,
    /// The same for one API key that has no limit of its own.
    pub max_kept_sandboxes_per_key: usize,
    /// The most runs and creations per minute for one API key that has no limit of its own; no limit if `None`.
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
    owners: Arc<Owners>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    running: Usage,
    kept: Usage,
    /// The starts of owners that have a limit of them.
    starts: HashMap<Owner, Starts>,
    /// The runs that wait for a permit.
    waiting: FairQueue<oneshot::Sender<Permit>>,
}

/// The starts of one owner in the last minute.
#[derive(Debug)]
struct Starts {
    per_minute: NonZeroU32,
    limiter: DefaultDirectRateLimiter,
}

impl Starts {
    fn new(per_minute: NonZeroU32) -> Self {
        Self { per_minute, limiter: RateLimiter::direct(Quota::per_minute(per_minute)) }
    }
}

/// The number of sandboxes for one purpose, and the limit of all owners together.
#[derive(Debug)]
struct Usage {
    max: usize,
    total: usize,
    by_owner: HashMap<Owner, usize>,
}

impl Usage {
    fn new(max: usize) -> Self {
        Self { max, total: 0, by_owner: HashMap::new() }
    }

    /// Whether there is room for one more sandbox of an owner who may have `own`.
    fn has_room(&self, owner: Owner, own: usize) -> bool {
        self.total < self.max && self.by_owner.get(&owner).is_none_or(|used| *used < own)
    }

    fn add(&mut self, owner: Owner) {
        self.total += 1;
        *self.by_owner.entry(owner).or_default() += 1;
    }

    fn remove(&mut self, owner: Owner) {
        self.total -= 1;
        if let Some(used) = self.by_owner.get_mut(&owner) {
            *used -= 1;
        }
    }

    /// The limit that an owner who may have `own` has reached, and its scope.
    fn reached_limit(&self, own: usize) -> (usize, LimitScope) {
        // The total may have dropped below its limit since.
        let is_per_key = self.total < self.max && own < self.max;
        if is_per_key { (own, LimitScope::Key) } else { (self.max, LimitScope::All) }
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
    pub(crate) fn new(config: SandboxesConfig, owners: Arc<Owners>) -> Self {
        let state = Mutex::new(State {
            running: Usage::new(config.max_sandboxes),
            kept: Usage::new(config.max_kept_sandboxes),
            starts: HashMap::new(),
            waiting: FairQueue::new(),
        });
        Self(Arc::new(Shared { config, owners, state }))
    }

    /// A permit for a run. Waits in the queue while a limit is reached.
    ///
    /// # Errors
    ///
    /// [`SandboxError::CpuUsedUp`] and [`SandboxError::TooOften`]; [`SandboxError::Busy`] when the queue is full, or
    /// after `queue_timeout`.
    pub(crate) async fn run(&self, owner: Owner) -> Result<Permit, SandboxError> {
        self.0.owners.check_cpu(owner)?;
        let waiting = {
            let mut state = self.0.lock();
            self.0.check_rate(&mut state, owner)?;
            if state.running.has_room(owner, self.0.own_running(owner)) {
                return Ok(self.permit(&mut state, owner, Purpose::Run));
            }
            state.waiting.retain(|waiting| !waiting.is_closed());
            let is_full = state.waiting.len() >= self.0.config.max_queued;
            // Dropping the sender that makes room refuses its run.
            if is_full && state.waiting.make_room(owner).is_none() {
                return Err(state.busy(self.0.own_running(owner)));
            }
            let (sender, permit) = oneshot::channel();
            state.waiting.push(owner, sender);
            permit
        };
        match tokio::time::timeout(self.0.config.queue_timeout, waiting).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(self.0.lock().busy(self.0.own_running(owner))),
        }
    }

    /// A permit for a kept sandbox.
    ///
    /// # Errors
    ///
    /// [`SandboxError::CpuUsedUp`], [`SandboxError::TooOften`] and [`SandboxError::Full`].
    pub(crate) fn keep(&self, owner: Owner) -> Result<Permit, SandboxError> {
        self.0.owners.check_cpu(owner)?;
        let mut state = self.0.lock();
        self.0.check_rate(&mut state, owner)?;
        let own = self.0.own_kept(owner);
        if state.kept.has_room(owner, own) {
            return Ok(self.permit(&mut state, owner, Purpose::Keep));
        }
        let (max_kept_sandboxes, scope) = state.kept.reached_limit(own);
        Err(SandboxError::Full { max_kept_sandboxes, scope })
    }

    /// Sends permits to runs that wait, because owners may have more than before.
    pub(crate) fn limits_have_changed(&self) {
        Shared::serve(&self.0);
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

    /// The most single runs of an owner.
    fn own_running(&self, owner: Owner) -> usize {
        let own = self.owners.allowance(owner).limits.max_sandboxes;
        own.map_or(self.config.max_sandboxes_per_key, NonZeroUsize::get)
    }

    /// The most kept sandboxes of an owner.
    fn own_kept(&self, owner: Owner) -> usize {
        let own = self.owners.allowance(owner).limits.max_kept_sandboxes;
        own.map_or(self.config.max_kept_sandboxes_per_key, NonZeroUsize::get)
    }

    /// Counts a run or a creation against the owner's limit per minute.
    fn check_rate(&self, state: &mut State, owner: Owner) -> Result<(), SandboxError> {
        let own = self.owners.allowance(owner).limits.max_starts_per_minute;
        let Some(per_minute) = own.or(self.config.max_starts_per_minute_per_key) else { return Ok(()) };
        let starts = state.starts.entry(owner).or_insert_with(|| Starts::new(per_minute));
        if starts.per_minute != per_minute {
            *starts = Starts::new(per_minute);
        }
        let limiter = &starts.limiter;
        limiter.check().map_err(|early| SandboxError::TooOften {
            per_minute: per_minute.get(),
            retry_after: early.wait_time_from(limiter.clock().now()),
        })
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
        let (owner, sender) = waiting.pop(|owner| running.has_room(owner, shared.own_running(owner)))?;
        running.add(owner);
        Some((sender, Permit { shared: Arc::clone(shared), owner, purpose: Purpose::Run }))
    }
}

impl State {
    /// The error of a run whose owner may have `own`.
    fn busy(&self, own: usize) -> SandboxError {
        let (max_sandboxes, scope) = self.running.reached_limit(own);
        let queued = self.waiting.len();
        SandboxError::Busy { max_sandboxes, scope, queued, retry_after: Duration::from_secs(1) }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use tokio::task::JoinHandle;

    use super::*;
    use crate::sandbox::allowance::{Allowance, OwnerLimits};

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
        Arc::new(Admission::new(config, Arc::default()))
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
        assert_eq!(busy, "max_sandboxes = 2: all are in use, and 2 requests wait for one; try again");
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
        let refused = admission.keep(A).expect_err("one of this key");
        assert!(matches!(refused, SandboxError::Full { max_kept_sandboxes: 1, scope: LimitScope::Key }), "{refused}");
        let _other = admission.keep(B).expect("a permit");
        let refused = admission.keep(Owner([2; 8])).expect_err("two in total");
        assert!(matches!(refused, SandboxError::Full { max_kept_sandboxes: 2, scope: LimitScope::All }), "{refused}");
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
    /// Gives A limits of its own.
    fn limit(admission: &Admission, limits: OwnerLimits) {
        let allowance = Arc::new(Allowance { limits, ..Allowance::default() });
        admission.0.owners.set_allowances(HashMap::from([(A, allowance)]));
        admission.limits_have_changed();
    }

    #[tokio::test]
    async fn limits_of_an_owner_replace_those_of_each_key_and_can_change() {
        let admission = admission(|config| config.max_sandboxes_per_key = 2);
        let one = OwnerLimits { max_sandboxes: NonZeroUsize::new(1), ..OwnerLimits::default() };
        limit(&admission, one);
        let _first = admission.run(A).await.expect("a permit");
        let next = request(&admission, A).await;
        assert_eq!(admission.counts(), (1, 1));
        limit(&admission, OwnerLimits { max_sandboxes: NonZeroUsize::new(2), ..OwnerLimits::default() });
        let _second = next.await.expect("no panic").expect("there is room now");

        let one = OwnerLimits {
            max_kept_sandboxes: NonZeroUsize::new(1),
            max_starts_per_minute: NonZeroU32::new(2),
            ..OwnerLimits::default()
        };
        limit(&admission, one);
        let _kept = admission.keep(A).expect("a permit");
        assert!(matches!(admission.keep(A), Err(SandboxError::Full { scope: LimitScope::Key, .. })));
        assert!(matches!(admission.keep(A), Err(SandboxError::TooOften { per_minute: 2, .. })));
        admission.keep(B).expect("another key has no such limits");
        limit(&admission, OwnerLimits { max_starts_per_minute: NonZeroU32::new(3), ..one });
        assert!(matches!(admission.keep(A), Err(SandboxError::Full { .. })), "another limit is counted from now on");
    }

    #[tokio::test]
    async fn an_owner_whose_processor_time_is_used_up_starts_nothing() {
        let admission = admission(|_| {});
        limit(&admission, OwnerLimits { cpu_seconds_per_day: NonZeroU64::new(1), ..OwnerLimits::default() });
        admission.0.owners.count_cpu(A, Duration::from_secs(1));
        assert!(matches!(admission.run(A).await, Err(SandboxError::CpuUsedUp { .. })));
        assert!(matches!(admission.keep(A), Err(SandboxError::CpuUsedUp { .. })));
        admission.run(B).await.expect("another key has its own");
    }
}
