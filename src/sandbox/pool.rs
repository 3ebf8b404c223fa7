//! Warm sandboxes: launched ahead, taken once, refilled behind the taker.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::container::{Container, Reaper};
use super::error::LaunchError;
use super::fair_queue::FairQueue;
use super::owner::Owner;
use super::template::Template;
use crate::engine::EngineError;
use crate::protocol::Language;

/// How often waiting sandboxes are looked at: one whose container is gone is replaced.
const CHECK: Duration = Duration::from_secs(1);

/// The longest pause between launches that fail, and where it is the engine that fails: what then starts again does so
/// soon after the engine.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
const LONGEST_PAUSE_OF_ENGINE: Duration = Duration::from_secs(3);

/// The warm sandboxes of all templates.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    /// The workers, and launches beside them.
    launches: TaskTracker,
}

#[derive(Debug)]
struct Shared {
    reaper: Reaper,
    /// A launch that takes longer has failed.
    launch_timeout: Duration,
    shelves: Mutex<Vec<Shelf>>,
    /// There is something to launch.
    wanted: Notify,
    stopping: CancellationToken,
}

type Taken = Result<Container, Arc<LaunchError>>;

/// The sandboxes of one template.
#[derive(Debug)]
struct Shelf {
    template: Arc<Template>,
    idle: VecDeque<Container>,
    waiting: FairQueue<Waiting>,
    launching: usize,
    language: Option<Language>,
    has_launched: bool,
    failures: u32,
    not_before: Instant,
}

/// Somebody who waits for a sandbox.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    sender: oneshot::Sender<Taken>,
}

/// How full a shelf is.
#[derive(Debug, Clone)]
pub struct ShelfStatus {
    /// The template.
    pub template: Arc<Template>,
    /// Sandboxes ready to be taken.
    pub idle: usize,
    /// Sandboxes being started.
    pub launching: usize,
    /// Requests that wait for one of them.
    pub waiting: usize,
    /// The language as its image describes it, once a sandbox of it has started.
    pub language: Option<Language>,
    /// Whether a sandbox of it has ever started.
    pub has_launched: bool,
    /// Whether the last launch failed.
    pub failing: bool,
}

impl Shelf {
    fn new(template: Arc<Template>) -> Self {
        Self {
            template,
            idle: VecDeque::new(),
            waiting: FairQueue::new(),
            launching: 0,
            language: None,
            has_launched: false,
            failures: 0,
            not_before: Instant::now(),
        }
    }

    /// Since when somebody waits for whom no launch has begun.
    fn urgent_since(&self) -> Option<Instant> {
        let mut since: Vec<_> = self.waiting.iter().map(|waiting| waiting.since).collect();
        since.sort_unstable();
        since.get(self.launching).copied()
    }

    /// Launches that are missing to the warm count.
    fn missing(&self) -> usize {
        (self.template.warm + self.waiting.len()).saturating_sub(self.idle.len() + self.launching)
    }
}

impl Pool {
    /// Begins to fill the shelves, `workers` launches at once.
    pub(crate) fn start(templates: &[Arc<Template>], reaper: Reaper, workers: usize, launch_timeout: Duration) -> Self {
        let shelves = templates.iter().cloned().map(Shelf::new);
        let shared = Arc::new(Shared {
            reaper,
            launch_timeout,
            shelves: Mutex::new(shelves.collect()),
            wanted: Notify::new(),
            stopping: CancellationToken::new(),
        });
        let launches = TaskTracker::new();
        for _ in 0..workers {
            launches.spawn(Arc::clone(&shared).work());
        }
        Self { shared, launches }
    }

    /// Takes a sandbox of the template; tells whether it was warm.
    pub(crate) async fn take(&self, template: &Template, owner: Owner) -> Result<(Container, bool), Arc<LaunchError>> {
        let receiver = {
            let mut shelves = self.shared.lock();
            let shelf = shelves
                .iter_mut()
                .find(|shelf| shelf.template.name == template.name)
                .expect("every template has its shelf");
            while let Some(sandbox) = shelf.idle.pop_front() {
                if !sandbox.link().is_closed() {
                    self.shared.wanted.notify_one();
                    return Ok((sandbox, true));
                }
            }
            let (sender, receiver) = oneshot::channel();
            shelf.waiting.push(owner, Waiting { since: Instant::now(), sender });
            receiver
        };
        self.shared.wanted.notify_one();
        let limit = self.shared.launch_timeout;
        let slow = || Err(Arc::new(LaunchError::Slow(limit)));
        match tokio::time::timeout(limit, receiver).await {
            Ok(Ok(taken)) => taken.map(|sandbox| (sandbox, false)),
            // The pool has stopped, or launches for those before in line take so long.
            Ok(Err(_)) | Err(_) => slow(),
        }
    }

    /// Starts one that differs from what waits. Finished, and removed, even if nobody waits for it any longer.
    pub(crate) async fn launch(&self, spec: crate::engine::Spec, template: Arc<Template>) -> Taken {
        let (reaper, limit) = (self.shared.reaper.clone(), self.shared.launch_timeout);
        let launch = self.launches.spawn(async move { Container::launch(&reaper, &spec, &template, limit).await });
        launch.await.expect("a launch does not panic").map_err(Arc::new)
    }

    /// How full the shelves are.
    pub(crate) fn status(&self) -> Vec<ShelfStatus> {
        let status = |shelf: &Shelf| ShelfStatus {
            template: Arc::clone(&shelf.template),
            idle: shelf.idle.len(),
            launching: shelf.launching,
            waiting: shelf.waiting.len(),
            language: shelf.language.clone(),
            has_launched: shelf.has_launched,
            failing: shelf.failures > 0,
        };
        self.shared.lock().iter().map(status).collect()
    }

    /// Stops refilling and gives up what waits. What is being launched comes up first: only then can it be removed.
    pub(crate) async fn stop(&self) {
        self.shared.stopping.cancel();
        for shelf in self.shared.lock().iter_mut() {
            shelf.idle.clear();
            shelf.waiting.clear();
        }
        self.launches.close();
        self.launches.wait().await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Shelf>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn work(self: Arc<Self>) {
        while !self.stopping.is_cancelled() {
            let Some(template) = self.choose() else {
                tokio::select! {
                    () = self.wanted.notified() => {}
                    () = self.stopping.cancelled() => {}
                    () = tokio::time::sleep(CHECK) => self.drop_dead(),
                }
                continue;
            };
            // What one worker takes on may not be all there is.
            self.wanted.notify_one();
            let launched = Container::launch(&self.reaper, &template.spec(), &template, self.launch_timeout).await;
            self.deliver(&template, launched);
        }
    }

    /// The launch that is needed most, marked as begun.
    fn choose(&self) -> Option<Arc<Template>> {
        let mut shelves = self.lock();
        for shelf in shelves.iter_mut() {
            shelf.waiting.retain(|waiting| !waiting.sender.is_closed());
        }
        let shelf = neediest(&mut shelves, Instant::now())?;
        shelf.launching += 1;
        Some(Arc::clone(&shelf.template))
    }

    fn deliver(&self, template: &Template, launched: Result<Container, LaunchError>) {
        let mut shelves = self.lock();
        let shelf = shelves.iter_mut().find(|shelf| shelf.template.name == template.name).expect("shelves stay");
        shelf.launching -= 1;
        shelf.waiting.retain(|waiting| !waiting.sender.is_closed());
        match launched {
            Ok(sandbox) => {
                shelf.failures = 0;
                shelf.language = sandbox.languages.iter().find(|found| found.name == template.language).cloned();
                shelf.has_launched = true;
                let mut sandbox = Ok(sandbox);
                while let Some((_, waiting)) = shelf.waiting.pop(|_| true) {
                    match waiting.sender.send(sandbox) {
                        Ok(()) => return,
                        // This one has gone away; the next may want it.
                        Err(back) => sandbox = back,
                    }
                }
                // More than are to be warm come up when a request that one was launched for has gone away.
                let is_room = shelf.idle.len() < shelf.template.warm && !self.stopping.is_cancelled();
                if let (Ok(sandbox), true) = (sandbox, is_room) {
                    shelf.idle.push_back(sandbox);
                }
            }
            Err(err) => {
                shelf.failures += 1;
                shelf.not_before = Instant::now() + pause(shelf.failures, &err);
                // The others would wait for the same.
                let is_silent =
                    matches!(err, LaunchError::Engine(EngineError::Unreachable(_) | EngineError::Slow { .. }));
                let failing = if is_silent { shelf.waiting.len() } else { 1.min(shelf.waiting.len()) };
                let err = Arc::new(err);
                if shelf.failures == 1 {
                    tracing::error!(
                        template.name = template.name,
                        error = &*err as &dyn std::error::Error,
                        "cannot launch sandboxes of `{}`; will try again",
                        template.name
                    );
                }
                for (_, waiting) in std::iter::from_fn(|| shelf.waiting.pop(|_| true)).take(failing) {
                    let _ = waiting.sender.send(Err(Arc::clone(&err)));
                }
            }
        }
    }

    fn drop_dead(&self) {
        for shelf in self.lock().iter_mut() {
            shelf.idle.retain(|sandbox| !sandbox.link().is_closed());
        }
    }
}

/// First that of who has waited longest, then the emptiest.
fn neediest(shelves: &mut [Shelf], now: Instant) -> Option<&mut Shelf> {
    let fullness = |shelf: &Shelf| (shelf.idle.len() + shelf.launching) * 1000 / shelf.template.warm.max(1);
    let in_need = shelves
        .iter_mut()
        .filter(|shelf| shelf.urgent_since().is_some() || (shelf.missing() > 0 && shelf.not_before <= now));
    in_need.min_by_key(|shelf| {
        let since = shelf.urgent_since();
        (since.is_none(), since, fullness(shelf))
    })
}

/// How long to wait after so many failures in a row, of which this is the last.
fn pause(failures: u32, last: &LaunchError) -> Duration {
    let longest = match last {
        LaunchError::Engine(_) => LONGEST_PAUSE_OF_ENGINE,
        LaunchError::Agent(_) | LaunchError::Slow(_) => LONGEST_PAUSE,
    };
    (Duration::from_millis(500) * 2_u32.pow(failures.saturating_sub(1).min(8))).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(name: &str, warm: usize) -> Shelf {
        let templates = crate::config::Config::read(None).expect("the program's own").templates;
        let template = Template { name: name.to_owned(), warm, ..templates[0].clone() };
        Shelf::new(Arc::new(template))
    }

    /// Somebody waits since then, for as long as the receiver is kept.
    fn wait(shelf: &mut Shelf, since: Instant) -> oneshot::Receiver<Taken> {
        let (sender, receiver) = oneshot::channel();
        shelf.waiting.push(Owner([0; 8]), Waiting { since, sender });
        receiver
    }

    #[track_caller]
    fn next(shelves: &mut [Shelf]) -> &str {
        let shelf = neediest(shelves, Instant::now()).expect("something is missing");
        shelf.launching += 1;
        &shelf.template.name
    }

    #[test]
    fn the_emptiest_shelf_is_filled_first_until_nothing_is_missing() {
        let mut shelves = [shelf("one", 1), shelf("four", 4)];
        let order: Vec<String> = (0..5).map(|_| next(&mut shelves).to_owned()).collect();
        assert_eq!(order, ["one", "four", "four", "four", "four"]);
        assert!(neediest(&mut shelves, Instant::now()).is_none());
    }

    #[test]
    fn who_waits_longest_is_launched_for_before_others_and_before_what_is_to_be_warm() {
        let mut shelves = [shelf("warm", 8), shelf("busy", 1), shelf("rare", 0)];
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        // New requests keep coming to one shelf; the one request of another is not passed over for them.
        let mut kept: Vec<_> = [1, 3, 4].map(|seconds| wait(&mut shelves[1], at(seconds))).into();
        kept.push(wait(&mut shelves[2], at(2)));
        let order: Vec<String> = (0..5).map(|_| next(&mut shelves).to_owned()).collect();
        assert_eq!(order, ["busy", "rare", "busy", "busy", "warm"]);
    }

    #[test]
    fn a_shelf_whose_launches_fail_pauses_but_not_for_who_waits() {
        let mut shelves = [shelf("failing", 1)];
        shelves[0].not_before = Instant::now() + Duration::from_secs(60);
        assert!(neediest(&mut shelves, Instant::now()).is_none());
        let _kept = wait(&mut shelves[0], Instant::now());
        assert_eq!(next(&mut shelves), "failing");
    }
}
