//! Which container serves a request, and how long it lives.

mod error;
mod handle;
mod instance;
mod meter;
mod pool;
mod registry;
mod run;
mod template;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EngineError, Spec};
use instance::{Instance, Reaper};
use pool::Pool;
use rand::distr::{Alphanumeric, SampleString};
use registry::Registry;

pub use error::{LaunchError, SandboxError};
pub use handle::{CreateSpec, Life, OnTimeout, Profile, Sandbox, Tenant, Traffic};
pub use meter::Reading;
pub use pool::ShelfStatus;
pub use run::{Place, Report, RunSpec, Running};
pub use template::{NetworkKind, Template};

/// How many sandboxes there may be.
#[derive(Debug, Clone)]
pub struct SandboxesConfig {
    /// Sandboxes that serve single runs at once; the warm ones wait beside them.
    pub max_sandboxes: usize,
    /// Sandboxes that are kept at once, paused ones included.
    pub max_kept_sandboxes: usize,
    /// Requests that wait for one.
    pub max_queued: usize,
    /// How long a request waits at the most.
    pub queue_timeout: Duration,
}

/// The one door to sandboxes.
#[derive(Debug, Clone)]
pub struct Sandboxes {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: SandboxesConfig,
    templates: Vec<Arc<Template>>,
    engine: Arc<dyn Engine>,
    reaper: Reaper,
    pool: Pool,
    permits: Arc<Semaphore>,
    kept_permits: Arc<Semaphore>,
    kept: Registry,
    queued: AtomicUsize,
    cancelled: CancellationToken,
}

/// What there is and what is going on.
#[derive(Debug)]
pub struct Status {
    /// Sandboxes that serve requests, those being removed included.
    pub running: usize,
    /// Sandboxes that are kept.
    pub kept: usize,
    /// Requests that wait for one.
    pub queued: usize,
    /// The bounds of both.
    pub config: SandboxesConfig,
    /// The warm sandboxes.
    pub shelves: Vec<ShelfStatus>,
}

impl Sandboxes {
    /// Removes what an earlier server of the same owner left, then begins to warm up.
    ///
    /// # Errors
    ///
    /// When the engine does not answer.
    pub async fn open(
        engine: Arc<dyn Engine>,
        templates: Vec<Template>,
        config: SandboxesConfig,
    ) -> Result<Self, EngineError> {
        let removed = engine.sweep().await?;
        if removed > 0 {
            tracing::info!(removed, "removed {removed} containers that an earlier server had left");
        }
        let templates: Vec<_> = templates.into_iter().map(Arc::new).collect();
        let reaper = Reaper::new(Arc::clone(&engine));
        let workers = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
        let pool = Pool::start(&templates, reaper.clone(), workers);
        let permits = Arc::new(Semaphore::new(config.max_sandboxes));
        let (queued, cancelled) = (AtomicUsize::new(0), CancellationToken::new());
        let kept_permits = Arc::new(Semaphore::new(config.max_kept_sandboxes));
        let kept = Registry::default();
        let shared = Shared { config, templates, engine, reaper, pool, permits, kept_permits, kept, queued, cancelled };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The template that a request calls `name`.
    ///
    /// # Errors
    ///
    /// [`SandboxError::UnknownLanguage`], with the names there are.
    pub fn template(&self, name: &str) -> Result<Arc<Template>, SandboxError> {
        let asked = name.trim().to_lowercase();
        let runs = || self.shared.templates.iter().filter(|template| template.runs);
        let found = runs().find(|template| template.is_called(&asked));
        found.cloned().ok_or_else(|| {
            let known: Vec<_> = runs().map(|template| template.name.as_str()).collect();
            SandboxError::UnknownLanguage { name: name.to_owned(), known: known.join(", ") }
        })
    }

    /// Takes a sandbox, writes the files and starts the code.
    ///
    /// # Errors
    ///
    /// When it cannot begin. How the code ends is in its last event.
    pub async fn run(&self, spec: RunSpec) -> Result<Running, SandboxError> {
        let asked = Instant::now();
        let permit = self.permit().await?;
        let (sandbox, warm) = self.instance(&spec.template, &spec.container).await?;
        sandbox.hold(permit);
        let wait_ms = asked.elapsed().as_millis() as u64;
        tracing::debug!(sandbox.id = %sandbox.id(), warm, wait_ms, "took sandbox {}", sandbox.id());
        let place = Place { template: spec.template.name.clone(), warm, wait_ms };
        Running::start(sandbox, place, spec, self.shared.cancelled.clone()).await
    }

    /// The template that a client calls `name` when it asks for a sandbox to keep.
    pub fn kept_template(&self, name: &str) -> Option<Arc<Template>> {
        self.shared.templates.iter().find(|template| template.is_called(name)).cloned()
    }

    /// All templates.
    pub fn templates(&self) -> &[Arc<Template>] {
        &self.shared.templates
    }

    /// The language of the first kept template that has one: what a sandbox without one speaks unless asked otherwise.
    pub fn default_language(&self) -> &str {
        let kept = self.shared.templates.iter().filter(|template| !template.runs);
        kept.map(|template| template.language.as_str()).find(|language| !language.is_empty()).unwrap_or_default()
    }

    /// Takes a sandbox and keeps it until its deadline.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Full`] when enough are kept, and when no container can be started.
    pub async fn create(&self, spec: CreateSpec) -> Result<Arc<Sandbox>, SandboxError> {
        let permit = Arc::clone(&self.shared.kept_permits)
            .try_acquire_owned()
            .map_err(|_| SandboxError::Full { max_kept_sandboxes: self.shared.config.max_kept_sandboxes })?;
        let container = Spec { network: spec.network.clone(), ..spec.template.spec() };
        let (instance, warm) = self.instance(&spec.template, &container).await?;
        instance.hold(permit);
        let sandbox = Arc::new(Sandbox::new(new_id(), new_token(), spec, instance));
        self.shared.kept.insert(Arc::clone(&sandbox));
        tracing::info!(sandbox.id, template.name = sandbox.spec.template.name, warm, "created sandbox {}", sandbox.id);
        Ok(sandbox)
    }

    /// The kept sandbox of that id.
    pub fn get(&self, id: &str) -> Option<Arc<Sandbox>> {
        self.shared.kept.get(id)
    }

    /// The kept sandbox whose token this is.
    pub fn by_token(&self, token: &str) -> Option<Arc<Sandbox>> {
        self.shared.kept.by_token(token)
    }

    /// The id of the kept sandbox whose token this was, if it ended not long ago.
    pub fn ended_by_token(&self, token: &str) -> Option<String> {
        self.shared.kept.ended_by_token(token)
    }

    /// All kept sandboxes.
    pub fn all(&self) -> Vec<Arc<Sandbox>> {
        self.shared.kept.all()
    }

    /// Removes a kept sandbox. False if there is none.
    pub fn kill(&self, id: &str) -> bool {
        self.shared.kept.kill(id)
    }

    /// A container like `container`: one that waits, if those are like it.
    async fn instance(&self, template: &Arc<Template>, container: &Spec) -> Result<(Instance, bool), SandboxError> {
        let taken = if *container == template.spec() {
            self.shared.pool.take(template).await
        } else {
            let launch = self.shared.pool.launch(container.clone(), Arc::clone(template));
            launch.await.map(|instance| (instance, false))
        };
        taken.map_err(|err| match self.shared.cancelled.is_cancelled() {
            true => SandboxError::ShuttingDown,
            false => SandboxError::Launch(err),
        })
    }

    /// What is going on.
    pub fn status(&self) -> Status {
        let shared = &self.shared;
        Status {
            running: shared.config.max_sandboxes - shared.permits.available_permits(),
            kept: shared.kept.all().len(),
            queued: shared.queued.load(Ordering::Relaxed),
            config: shared.config.clone(),
            shelves: shared.pool.status(),
        }
    }

    /// Whether requests can be served: the engine answers, and every template has come up.
    pub async fn is_ready(&self) -> bool {
        let ready = |shelf: &ShelfStatus| shelf.template.warm == 0 || (shelf.has_launched && !shelf.failing);
        self.shared.pool.status().iter().all(ready) && self.shared.engine.ping().await.is_ok()
    }

    /// Ends what still runs, as `cancelled`, and removes what is kept.
    pub fn cancel(&self) {
        self.shared.cancelled.cancel();
        for sandbox in self.shared.kept.all() {
            self.shared.kept.kill(&sandbox.id);
        }
    }

    /// Removes everything. To be called when no request is served any longer.
    ///
    /// # Errors
    ///
    /// When something may be left.
    pub async fn close(self) -> Result<(), EngineError> {
        self.cancel();
        self.shared.pool.stop().await;
        self.shared.reaper.drain().await;
        self.shared.engine.sweep().await.map(|_| ())
    }

    /// A place among those that run; waits in line for it, but not in an endless one.
    async fn permit(&self) -> Result<OwnedSemaphorePermit, SandboxError> {
        let shared = &self.shared;
        if let Ok(permit) = Arc::clone(&shared.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let busy = |queued| SandboxError::Busy {
            max_sandboxes: shared.config.max_sandboxes,
            queued,
            retry_after: Duration::from_secs(1),
        };
        let queued = Queued::join(&shared.queued);
        if queued.place > shared.config.max_queued {
            return Err(busy(shared.config.max_queued));
        }
        tokio::select! {
            permit = Arc::clone(&shared.permits).acquire_owned() => {
                Ok(permit.expect("the semaphore is never closed"))
            }
            () = tokio::time::sleep(shared.config.queue_timeout) => Err(busy(queued.place)),
            () = shared.cancelled.cancelled() => Err(SandboxError::ShuttingDown),
        }
    }
}

/// What a client names a sandbox by: it goes into host names, so lower-case letters and digits.
fn new_id() -> String {
    format!("i{}", Alphanumeric.sample_string(&mut rand::rng(), 20).to_lowercase())
}

/// What opens one sandbox: 32 characters from a generator fit for secrets.
fn new_token() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), 32)
}

/// A place in the line, left when dropped.
struct Queued<'a> {
    line: &'a AtomicUsize,
    place: usize,
}

impl<'a> Queued<'a> {
    fn join(line: &'a AtomicUsize) -> Self {
        Self { line, place: line.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.line.fetch_sub(1, Ordering::Relaxed);
    }
}
