//! Which container serves a request, and how long it lives.

mod admission;
mod container;
mod error;
mod execution;
mod fair_queue;
mod kept;
mod operations;
mod owner;
mod pool;
mod readings;
mod registry;
mod run;
mod supervise;
mod template;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EngineError, Spec};
use admission::Admission;
use container::{Container, Reaper};
use pool::Pool;
use rand::distr::{Alphanumeric, SampleString};
use registry::Registry;

pub use admission::SandboxesConfig;
pub(crate) use error::seconds;
pub use error::{Ending, LaunchError, OperationError, SandboxError, Whose};
pub use execution::Execution;
pub use kept::{CreateSpec, Life, OnTimeout, Sandbox, Traffic};
pub use operations::{File, Items};
pub use owner::Owner;
pub use pool::ShelfStatus;
pub use readings::Reading;
pub use run::{Place, Report, RunSpec, Running};
pub use template::{NetworkKind, Template};

/// The one door to sandboxes.
#[derive(Debug, Clone)]
pub struct Sandboxes {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    templates: Vec<Arc<Template>>,
    engine: Arc<dyn Engine>,
    reaper: Reaper,
    pool: Pool,
    admission: Admission,
    kept: Registry,
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
    /// When the engine does not answer, or does not remove what runs. A network that it keeps is no error.
    pub async fn open(
        engine: Arc<dyn Engine>,
        templates: Vec<Template>,
        config: SandboxesConfig,
    ) -> Result<Self, EngineError> {
        match engine.sweep().await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed {removed} containers that an earlier server had left"),
            Err(err @ EngineError::InUse(_)) => tracing::warn!("{err}; it is used again if it stays"),
            Err(err) => return Err(err),
        }
        let templates: Vec<_> = templates.into_iter().map(Arc::new).collect();
        let reaper = Reaper::new(Arc::clone(&engine));
        let workers = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
        let pool = Pool::start(&templates, reaper.clone(), workers, config.launch_timeout);
        let (admission, kept, cancelled) = (Admission::new(config), Registry::default(), CancellationToken::new());
        let shared = Shared { templates, engine, reaper, pool, admission, kept, cancelled };
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
        let permit = tokio::select! {
            permit = self.shared.admission.run(spec.owner) => permit?,
            () = self.shared.cancelled.cancelled() => return Err(SandboxError::ShuttingDown),
        };
        let (sandbox, warm) = self.container(&spec.template, &spec.container, spec.owner).await?;
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

    /// Takes a sandbox, gives it these variables, and keeps it until its deadline. Its time begins when it is ready: a short one could
    /// end it in the middle.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Full`] when enough are kept, [`SandboxError::TooOften`], when no container can be started, and
    /// [`SandboxError::Lost`].
    pub async fn create(
        &self,
        spec: CreateSpec,
        environment: impl FnOnce(&Sandbox) -> BTreeMap<String, String>,
    ) -> Result<Arc<Sandbox>, SandboxError> {
        let permit = self.shared.admission.keep(spec.owner)?;
        let container = Spec { network: spec.network.clone(), ..spec.template.spec() };
        let (container, warm) = self.container(&spec.template, &container, spec.owner).await?;
        container.hold(permit);
        let sandbox = Arc::new(Sandbox::new(new_id(), new_token(), spec, container));
        sandbox.link().set_environment(&environment(&sandbox)).await.map_err(SandboxError::Lost)?;
        sandbox.set_timeout(sandbox.spec.timeout);
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

    /// Why a kept sandbox ended, if nobody asked for that and it was not long ago.
    pub fn ending(&self, id: &str) -> Option<Ending> {
        self.shared.kept.ending(id)
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
    async fn container(
        &self,
        template: &Arc<Template>,
        container: &Spec,
        owner: Owner,
    ) -> Result<(Container, bool), SandboxError> {
        let taken = if *container == template.spec() {
            self.shared.pool.take(template, owner).await
        } else {
            let launch = self.shared.pool.launch(container.clone(), Arc::clone(template));
            launch.await.map(|container| (container, false))
        };
        taken.map_err(|err| match self.shared.cancelled.is_cancelled() {
            true => SandboxError::ShuttingDown,
            false => SandboxError::Launch(err),
        })
    }

    /// What is going on.
    pub fn status(&self) -> Status {
        let shared = &self.shared;
        let (running, queued) = shared.admission.counts();
        Status {
            running,
            kept: shared.kept.all().len(),
            queued,
            config: shared.admission.config().clone(),
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
}

/// What a client names a sandbox by: it goes into host names, so lower-case letters and digits.
fn new_id() -> String {
    format!("i{}", Alphanumeric.sample_string(&mut rand::rng(), 20).to_lowercase())
}

/// What opens one sandbox: 32 characters from a generator fit for secrets.
fn new_token() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), 32)
}
