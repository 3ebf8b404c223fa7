//! The pool of warm sandboxes: each is launched before it is needed, taken once, and then replaced.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::Permit;
use super::container::{Container, Reaper};
use super::error::LaunchError;
use super::fair_queue::FairQueue;
use super::owner::Owner;
use super::template::Template;
use crate::engine::{EngineError, Spec};
use crate::protocol::Language;

/// The interval of checks for idle sandboxes whose containers are gone, which are replaced.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The longest pause after a failed launch. It is shorter if the engine failed, so that launches succeed soon after the
/// engine is back.
const MAX_PAUSE: Duration = Duration::from_secs(15);
const MAX_PAUSE_FOR_ENGINE: Duration = Duration::from_secs(3);

/// The warm sandboxes of all templates.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    /// The tasks of the workers, and of launches that bypass the shelves.
    launches: TaskTracker,
}

#[derive(Debug)]
struct Shared {
    reaper: Reaper,
    /// The time after which a launch has failed.
    launch_timeout: Duration,
    shelves: Mutex<Vec<Shelf>>,
    /// Notified when there may be something to launch.
    wanted: Notify,
    stopping: CancellationToken,
}

type Taken = Result<Container, Arc<LaunchError>>;

/// The warm sandboxes of one template, and the requests for them.
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

/// A request that waits for a sandbox.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    sender: oneshot::Sender<Taken>,
}

/// The state of a shelf, for reports.
#[derive(Debug, Clone)]
pub struct ShelfStatus {
    /// The template.
    pub template: Arc<Template>,
    /// Sandboxes that are ready to be taken.
    pub idle: usize,
    /// Sandboxes that are being launched.
    pub launching: usize,
    /// Requests that wait for a sandbox of this template.
    pub waiting: usize,
    /// The language as the image describes it; `None` until a sandbox of this template has started.
    pub language: Option<Language>,
    /// Whether a sandbox of this template has ever started.
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

    /// When the first request came for which no launch has begun; `None` if there is no such request.
    fn urgent_since(&self) -> Option<Instant> {
        let mut since: Vec<_> = self.waiting.iter().map(|waiting| waiting.since).collect();
        since.sort_unstable();
        since.get(self.launching).copied()
    }

    /// The number of launches that are needed to serve all waiting requests and reach the warm count.
    fn missing(&self) -> usize {
        (self.template.warm + self.waiting.len()).saturating_sub(self.idle.len() + self.launching)
    }
}

impl Pool {
    /// Starts to fill the shelves, with `workers` launches at once.
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

    /// Takes a sandbox of the template, and returns whether it was warm.
    pub(crate) async fn take(&self, template: &Template, owner: Owner) -> Result<(Container, bool), Arc<LaunchError>> {
        let receiver = {
            let mut shelves = self.shared.lock();
            let shelf = shelves
                .iter_mut()
                .find(|shelf| shelf.template.name == template.name)
                .expect("every template has a shelf");
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
            // The pool has stopped, or the launches for earlier requests take too long.
            Ok(Err(_)) | Err(_) => slow(),
        }
    }

    /// Launches a sandbox whose spec differs from the template's. If the caller stops waiting, the launch still
    /// finishes, and the sandbox is then removed; `permit` is held until then.
    pub(crate) async fn launch(&self, spec: Spec, template: Arc<Template>, permit: Permit) -> Taken {
        let (reaper, limit) = (self.shared.reaper.clone(), self.shared.launch_timeout);
        let launch = self.launches.spawn(async move {
            let container = Container::launch(&reaper, &spec, &template, limit).await?;
            container.hold(permit);
            Ok(container)
        });
        launch.await.expect("a launch does not panic").map_err(Arc::new)
    }

    /// The state of all shelves.
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

    /// Stops launches and removes idle sandboxes. Waits for launches in progress: a sandbox can be removed only when
    /// its launch has finished.
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
            let Some(template) = self.begin_launch() else {
                tokio::select! {
                    () = self.wanted.notified() => {}
                    () = self.stopping.cancelled() => {}
                    () = tokio::time::sleep(CHECK_INTERVAL) => self.remove_dead(),
                }
                continue;
            };
            // There may be more to launch than this worker takes on.
            self.wanted.notify_one();
            let launched = Container::launch(&self.reaper, &template.spec(), &template, self.launch_timeout).await;
            self.deliver(&template, launched);
        }
    }

    /// The template of the most urgent launch, which is counted as begun.
    fn begin_launch(&self) -> Option<Arc<Template>> {
        let mut shelves = self.lock();
        for shelf in shelves.iter_mut() {
            shelf.waiting.retain(|waiting| !waiting.sender.is_closed());
        }
        let shelf = neediest(&mut shelves, Instant::now())?;
        shelf.launching += 1;
        Some(Arc::clone(&shelf.template))
    }

    /// Passes a new sandbox to the first request that still waits, or else to the shelf.
    fn deliver(&self, template: &Template, launched: Result<Container, LaunchError>) {
        let mut shelves = self.lock();
        let shelf =
            shelves.iter_mut().find(|shelf| shelf.template.name == template.name).expect("shelves are never removed");
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
                        // This request was cancelled.
                        Err(back) => sandbox = back,
                    }
                }
                // The shelf may be full already if this sandbox was launched for a request that was cancelled.
                let has_room = shelf.idle.len() < shelf.template.warm && !self.stopping.is_cancelled();
                if let (Ok(sandbox), true) = (sandbox, has_room) {
                    shelf.idle.push_back(sandbox);
                }
            }
            Err(err) => {
                shelf.failures += 1;
                shelf.not_before = Instant::now() + pause(shelf.failures, &err);
                // If the engine does not answer, the other requests would fail in the same way: they fail now.
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

    /// Drops idle sandboxes whose containers are gone.
    fn remove_dead(&self) {
        for shelf in self.lock().iter_mut() {
            shelf.idle.retain(|sandbox| !sandbox.link().is_closed());
        }
    }
}

/// The shelf with the most urgent launch: the one whose request has waited longest, or else the emptiest.
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

/// The pause after `failures` failed launches in a row, of which `last` is the last.
fn pause(failures: u32, last: &LaunchError) -> Duration {
    let longest = match last {
        LaunchError::Engine(_) => MAX_PAUSE_FOR_ENGINE,
        LaunchError::Agent(_) | LaunchError::Slow(_) => MAX_PAUSE,
    };
    (Duration::from_millis(500) * 2_u32.pow(failures.saturating_sub(1).min(8))).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(name: &str, warm: usize) -> Shelf {
        let templates = crate::config::Config::read(None).expect("the built-in configuration").templates;
        let template = Template { name: name.to_owned(), warm, ..templates[0].clone() };
        Shelf::new(Arc::new(template))
    }

    /// Adds a request that has waited since `since`. It waits as long as the receiver exists.
    fn wait(shelf: &mut Shelf, since: Instant) -> oneshot::Receiver<Taken> {
        let (sender, receiver) = oneshot::channel();
        shelf.waiting.push(Owner([0; 8]), Waiting { since, sender });
        receiver
    }

    #[track_caller]
    fn next(shelves: &mut [Shelf]) -> &str {
        let shelf = neediest(shelves, Instant::now()).expect("a launch is needed");
        shelf.launching += 1;
        &shelf.template.name
    }

    #[test]
    fn the_emptiest_shelf_is_filled_first_until_all_are_full() {
        let mut shelves = [shelf("one", 1), shelf("four", 4)];
        let order: Vec<String> = (0..5).map(|_| next(&mut shelves).to_owned()).collect();
        assert_eq!(order, ["one", "four", "four", "four", "four"]);
        assert!(neediest(&mut shelves, Instant::now()).is_none());
    }

    #[test]
    fn the_longest_waiting_request_comes_first_and_warm_sandboxes_last() {
        let mut shelves = [shelf("warm", 8), shelf("busy", 1), shelf("rare", 0)];
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        // New requests keep coming to one shelf. The one request of another shelf is served in its turn all the same.
        let mut kept: Vec<_> = [1, 3, 4].map(|seconds| wait(&mut shelves[1], at(seconds))).into();
        kept.push(wait(&mut shelves[2], at(2)));
        let order: Vec<String> = (0..5).map(|_| next(&mut shelves).to_owned()).collect();
        assert_eq!(order, ["busy", "rare", "busy", "busy", "warm"]);
    }

    #[test]
    fn a_shelf_whose_launches_fail_pauses_but_not_for_waiting_requests() {
        let mut shelves = [shelf("failing", 1)];
        shelves[0].not_before = Instant::now() + Duration::from_secs(60);
        assert!(neediest(&mut shelves, Instant::now()).is_none());
        let _kept = wait(&mut shelves[0], Instant::now());
        assert_eq!(next(&mut shelves), "failing");
    }
}
