//! Which container serves a request, and how long it lives.

mod error;
mod instance;
mod pool;
mod run;
mod template;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EngineError};
use instance::Reaper;
use pool::Pool;

pub use error::{LaunchError, SandboxError};
pub use pool::ShelfStatus;
pub use run::{Place, Report, RunSpec, Running};
pub use template::Template;

/// How many sandboxes there may be.
#[derive(Debug, Clone)]
pub struct SandboxesConfig {
    /// Sandboxes that serve requests at once; the warm ones wait beside them.
    pub max_sandboxes: usize,
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
    queued: AtomicUsize,
    cancelled: CancellationToken,
}

/// What there is and what is going on.
#[derive(Debug)]
pub struct Status {
    /// Sandboxes that serve requests, those being removed included.
    pub running: usize,
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
        let shared = Shared { config, templates, engine, reaper, pool, permits, queued, cancelled };
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
        let (sandbox, warm) = if spec.container == spec.template.spec() {
            self.shared.pool.take(&spec.template).await
        } else {
            let launch = self.shared.pool.launch(spec.container.clone(), spec.template.language.clone());
            launch.await.map(|sandbox| (sandbox, false))
        }
        .map_err(|err| match self.shared.cancelled.is_cancelled() {
            true => SandboxError::ShuttingDown,
            false => SandboxError::Launch(err),
        })?;
        sandbox.hold(permit);
        let wait_ms = asked.elapsed().as_millis() as u64;
        tracing::debug!(sandbox.id = %sandbox.id(), warm, wait_ms, "took sandbox {}", sandbox.id());
        let place = Place { template: spec.template.name.clone(), warm, wait_ms };
        Running::start(sandbox, place, spec, self.shared.cancelled.clone()).await
    }

    /// What is going on.
    pub fn status(&self) -> Status {
        let shared = &self.shared;
        Status {
            running: shared.config.max_sandboxes - shared.permits.available_permits(),
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

    /// Ends what still runs, as `cancelled`.
    pub fn cancel(&self) {
        self.shared.cancelled.cancel();
    }

    /// Removes everything. To be called when no request is served any longer.
    pub async fn close(self) {
        self.cancel();
        self.shared.pool.stop().await;
        self.shared.reaper.drain().await;
        if let Err(err) = self.shared.engine.sweep().await {
            tracing::error!(error = &err as &dyn std::error::Error, "cannot remove the last containers");
        }
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
