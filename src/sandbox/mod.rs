//! Chooses the container that serves a request, and how long the container lives.

mod admission;
mod allowance;
mod container;
mod creations;
mod error;
mod execution;
mod fair_queue;
mod kept;
mod meter;
mod operations;
mod owner;
mod owners;
mod pool;
mod readings;
mod record;
mod registry;
mod run;
mod supervise;
mod template;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EngineError, Spec};
use admission::{Admission, Permit};
use container::{Container, Reaper};
use creations::{Creations, KeyedError};
use meter::{KeptMeter, RunMeter};
use owners::Owners;
use pool::Pool;
use rand::distr::{Alphanumeric, SampleString};
use registry::Registry;

pub use admission::SandboxesConfig;
pub use allowance::{Allowance, OwnerLimits};
pub use creations::CreationKey;
pub use error::{Ending, LaunchError, LimitScope, OperationError, SandboxError};
pub(crate) use error::{Retry, seconds};
pub use execution::Execution;
pub use kept::{CreateSpec, Life, OnTimeout, RequestedNetwork, Sandbox, Traffic};
pub use operations::{File, Items};
pub use owner::{Owner, ParseOwnerError};
pub use pool::ShelfStatus;
pub use readings::Reading;
pub use record::{HashSecret, Observer, Origin, RECENT, Records, Refusal, RunRecord};
pub use run::{Place, Report, RunSpec, Running};
pub use template::{NetworkKind, Template, TemplateError};

/// All sandboxes of the server: creates, finds and removes them, and runs code in them. A clone is another handle.
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
    owners: Arc<Owners>,
    records: Arc<Records>,
    admission: Admission,
    kept: Registry,
    creations: Creations,
    cancelled: CancellationToken,
}

/// The state of all sandboxes, for reports.
#[derive(Debug)]
pub struct Status {
    /// Sandboxes that serve single runs, including those that are being removed.
    pub running: usize,
    /// Kept sandboxes.
    pub kept: usize,
    /// Runs that wait in the queue.
    pub queued: usize,
    /// The limits of these numbers.
    pub config: SandboxesConfig,
    /// The warm sandboxes of each template.
    pub shelves: Vec<ShelfStatus>,
}

impl Sandboxes {
    /// Removes the containers that an earlier server of the same owner left, then starts to launch warm sandboxes.
    ///
    /// # Errors
    ///
    /// When the engine does not answer, or does not remove a container. A network that it does not remove is not an
    /// error.
    pub async fn open(
        engine: Arc<dyn Engine>,
        templates: Vec<Template>,
        config: SandboxesConfig,
        records: Records,
    ) -> Result<Self, EngineError> {
        match engine.sweep().await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed {removed} containers that an earlier server had left"),
            Err(err @ EngineError::InUse(_)) => tracing::warn!("{err}; it is used again if it is not removed"),
            Err(err) => return Err(err),
        }
        let templates: Vec<_> = templates.into_iter().map(Arc::new).collect();
        let reaper = Reaper::new(Arc::clone(&engine));
        let workers = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
        let pool = Pool::start(&templates, reaper.clone(), workers, config.launch_timeout);
        let owners = Arc::<Owners>::default();
        let (admission, kept) = (Admission::new(config, Arc::clone(&owners)), Registry::new(Arc::clone(&owners)));
        let (creations, cancelled) = (Creations::default(), CancellationToken::new());
        let records = Arc::new(records);
        let shared = Shared { templates, engine, reaper, pool, owners, records, admission, kept, creations, cancelled };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The template that single runs can use under the language name `name`.
    ///
    /// # Errors
    ///
    /// [`SandboxError::UnknownLanguage`], which lists the known names.
    pub fn template(&self, name: &str) -> Result<Arc<Template>, SandboxError> {
        let wanted = name.trim().to_lowercase();
        let runs = || self.shared.templates.iter().filter(|template| template.runs);
        let found = runs().find(|template| template.is_called(&wanted));
        found.cloned().ok_or_else(|| {
            let known: Vec<_> = runs().map(|template| template.name.as_str()).collect();
            SandboxError::UnknownLanguage { name: name.to_owned(), known: known.join(", ") }
        })
    }

    /// Takes a sandbox, writes the files and starts the code.
    ///
    /// # Errors
    ///
    /// When the run cannot start. The outcome of the code is in its last event.
    pub async fn run(&self, spec: RunSpec) -> Result<Running, SandboxError> {
        self.start(spec).await.inspect_err(|err| self.shared.records.failed(err))
    }

    async fn start(&self, mut spec: RunSpec) -> Result<Running, SandboxError> {
        let requested = Instant::now();
        let allowance = self.shared.owners.allowance(spec.owner);
        allowance.check_template(&spec.template)?;
        spec.container.network = allowance.network(spec.container.network, spec.network_is_chosen)?;
        if spec.timeout_is_chosen {
            allowance.check_timeout(Duration::from_millis(spec.limits.timeout_ms))?;
        } else if let Some(longest) = allowance.longest() {
            spec.limits.timeout_ms = spec.limits.timeout_ms.min(longest.as_millis() as u64);
        }
        let permit = tokio::select! {
            permit = self.shared.admission.run(spec.owner) => permit?,
            () = self.shared.cancelled.cancelled() => return Err(SandboxError::ShuttingDown),
        };
        let (sandbox, warm) = self.container(&spec.template, &spec.container, spec.owner, permit).await?;
        let wait_ms = requested.elapsed().as_millis() as u64;
        tracing::debug!(sandbox.id = %sandbox.id(), warm, wait_ms, "took sandbox {}", sandbox.id());
        let place = Place { template: spec.template.name.clone(), warm, wait_ms };
        let meter = RunMeter::start(Arc::clone(&self.shared.owners), spec.owner, spec.container.cpu_millis);
        Running::start(sandbox, place, spec, meter, &self.shared.records, self.shared.cancelled.clone()).await
    }

    /// The template with this name or alias, for a kept sandbox.
    pub fn kept_template(&self, name: &str) -> Option<Arc<Template>> {
        self.shared.templates.iter().find(|template| template.is_called(name)).cloned()
    }

    /// Whether the engine can pause sandboxes.
    pub fn can_pause(&self) -> bool {
        self.shared.engine.freezer().is_some()
    }

    /// All templates.
    pub fn templates(&self) -> &[Arc<Template>] {
        &self.shared.templates
    }

    /// The default language of sandboxes whose template has none: that of the first template that is only for kept
    /// sandboxes and has a language.
    pub fn default_language(&self) -> &str {
        let kept = self.shared.templates.iter().filter(|template| !template.runs);
        kept.map(|template| template.language.as_str()).find(|language| !language.is_empty()).unwrap_or_default()
    }

    /// Takes a sandbox, sets its environment variables, and keeps it until its deadline. The timeout starts when the
    /// sandbox is ready: a short one could otherwise end the sandbox before that.
    ///
    /// # Errors
    ///
    /// When the owner may not have such a sandbox; [`SandboxError::Full`] at the limit of kept sandboxes,
    /// [`SandboxError::TooOften`] and [`SandboxError::CpuUsedUp`]; [`SandboxError::Launch`] when no container can be
    /// started, and [`SandboxError::Lost`].
    pub async fn create(
        &self,
        spec: CreateSpec,
        environment: impl FnOnce(&Sandbox) -> BTreeMap<String, String>,
    ) -> Result<Arc<Sandbox>, SandboxError> {
        self.keep(spec, environment).await.inspect_err(|err| self.shared.records.failed(err))
    }

    async fn keep(
        &self,
        mut spec: CreateSpec,
        environment: impl FnOnce(&Sandbox) -> BTreeMap<String, String>,
    ) -> Result<Arc<Sandbox>, SandboxError> {
        let allowance = self.shared.owners.allowance(spec.owner);
        allowance.check_template(&spec.template)?;
        allowance.check_timeout(spec.timeout)?;
        let network = allowance.network(spec.network.clone(), spec.network_is_chosen)?;
        if network != spec.network {
            spec.requested_network.internet = Some(false);
            spec.network = network;
        }
        let permit = self.shared.admission.keep(spec.owner)?;
        let container = Spec { network: spec.network.clone(), ..spec.template.spec() };
        let (container, warm) = self.container(&spec.template, &container, spec.owner, permit).await?;
        let meter = KeptMeter::start(Arc::clone(&self.shared.owners), spec.owner, spec.template.cpu_millis);
        let sandbox =
            Arc::new(Sandbox::new(new_id(), new_token(), spec, container, meter, Arc::clone(&self.shared.records)));
        sandbox.link().set_environment(&environment(&sandbox)).await.map_err(SandboxError::Lost)?;
        sandbox.set_timeout(sandbox.spec.timeout);
        self.shared.kept.insert(Arc::clone(&sandbox));
        tracing::info!(sandbox.id, template.name = sandbox.spec.template.name, warm, "created sandbox {}", sandbox.id);
        Ok(sandbox)
    }

    /// Creates a sandbox like [`Self::create`], unless its owner has one that was created with the same key. A
    /// repetition waits while the sandbox is being created. A creation that fails is not remembered, and the key is
    /// free again when the sandbox has ended.
    ///
    /// # Errors
    ///
    /// [`SandboxError::OtherRequest`] if the key belongs to another request, and those of [`Self::create`].
    pub async fn create_once(
        &self,
        key: &CreationKey,
        spec: CreateSpec,
        environment: impl FnOnce(&Sandbox) -> BTreeMap<String, String>,
    ) -> Result<Arc<Sandbox>, SandboxError> {
        let created = self.shared.creations.once(
            spec.owner,
            key,
            |id| self.get(id),
            async || {
                let sandbox = self.create(spec, environment).await?;
                Ok((sandbox.id.clone(), sandbox))
            },
        );
        created.await.map_err(|err| match err {
            KeyedError::OtherRequest => SandboxError::OtherRequest { key: key.key.clone() },
            KeyedError::Failed(err) => err,
        })
    }

    /// The records of an owner's newest runs, at most [`RECENT`], the newest first.
    pub fn recent_runs(&self, owner: Owner) -> Vec<Arc<RunRecord>> {
        self.shared.records.recent(owner)
    }

    /// Replaces the allowances of all owners. Those that are missing have the default.
    pub fn set_allowances(&self, allowances: HashMap<Owner, Arc<Allowance>>) {
        self.shared.owners.set_allowances(allowances);
        self.shared.admission.limits_have_changed();
    }

    /// The longest time to the deadline of an owner's kept sandbox; `None` if it has no limit.
    pub fn longest_timeout(&self, owner: Owner) -> Option<Duration> {
        self.shared.owners.allowance(owner).longest()
    }

    /// Checks that an owner may move the deadline of a kept sandbox to `timeout` from now.
    ///
    /// # Errors
    ///
    /// [`SandboxError::TooLong`].
    pub fn check_timeout(&self, owner: Owner, timeout: Duration) -> Result<(), SandboxError> {
        self.shared.owners.allowance(owner).check_timeout(timeout)
    }

    /// Ends all streams from the kept sandboxes of an owner. The sandboxes go on.
    pub fn cut_all_of(&self, owner: Owner) {
        for sandbox in self.shared.kept.all_of(owner) {
            sandbox.cut();
        }
    }

    /// Removes all kept sandboxes of an owner, and returns how many there were.
    pub fn kill_all_of(&self, owner: Owner) -> usize {
        let sandboxes = self.shared.kept.all_of(owner);
        sandboxes.iter().filter(|sandbox| self.shared.kept.kill(&sandbox.id)).count()
    }

    /// The kept sandbox with this id.
    pub fn get(&self, id: &str) -> Option<Arc<Sandbox>> {
        self.shared.kept.get(id)
    }

    /// The kept sandbox with this token.
    pub fn by_token(&self, token: &str) -> Option<Arc<Sandbox>> {
        self.shared.kept.by_token(token)
    }

    /// The id of the kept sandbox that had this token, if it ended recently.
    pub fn ended_by_token(&self, token: &str) -> Option<String> {
        self.shared.kept.ended_by_token(token)
    }

    /// Why a kept sandbox ended recently. `None` if a client killed it, or it reached its deadline.
    pub fn ending(&self, id: &str) -> Option<Ending> {
        self.shared.kept.ending(id)
    }

    /// All kept sandboxes.
    pub fn all(&self) -> Vec<Arc<Sandbox>> {
        self.shared.kept.all()
    }

    /// Removes a kept sandbox. False if the id is unknown.
    pub fn kill(&self, id: &str) -> bool {
        self.shared.kept.kill(id)
    }

    /// Takes or launches a container with this spec: a warm one, if the template's have the same spec. True if it was
    /// warm.
    async fn container(
        &self,
        template: &Arc<Template>,
        container: &Spec,
        owner: Owner,
        permit: Permit,
    ) -> Result<(Container, bool), SandboxError> {
        let taken = if *container == template.spec() {
            self.shared.pool.take(template, owner).await.inspect(|(container, _)| container.hold(permit))
        } else {
            let launch = self.shared.pool.launch(container.clone(), Arc::clone(template), permit);
            launch.await.map(|container| (container, false))
        };
        taken.map_err(|err| match self.shared.cancelled.is_cancelled() {
            true => SandboxError::ShuttingDown,
            false => SandboxError::Launch(err),
        })
    }

    /// The current state of all sandboxes.
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

    /// Whether the engine answers.
    pub async fn engine_answers(&self) -> bool {
        self.shared.engine.ping().await.is_ok()
    }

    /// Whether requests can be served: the engine answers, and every template with warm sandboxes has launched one and
    /// did not fail at the last launch.
    pub async fn is_ready(&self) -> bool {
        let ready = |shelf: &ShelfStatus| shelf.template.warm == 0 || (shelf.has_launched && !shelf.failing);
        self.shared.pool.status().iter().all(ready) && self.engine_answers().await
    }

    /// Ends running code with the outcome `cancelled`, and removes all kept sandboxes.
    pub fn cancel(&self) {
        self.shared.cancelled.cancel();
        // What is used from now on is not counted any longer, so nothing delays the removal.
        self.shared.owners.set_allowances(HashMap::new());
        for sandbox in self.shared.kept.all() {
            self.shared.kept.kill(&sandbox.id);
        }
    }

    /// Removes all sandboxes. Call it when no request is served any longer.
    ///
    /// # Errors
    ///
    /// When containers may be left on the engine.
    pub async fn close(self) -> Result<(), EngineError> {
        self.cancel();
        self.shared.pool.stop().await;
        self.shared.reaper.drain().await;
        self.shared.engine.sweep().await.map(|_| ())
    }
}

/// A new sandbox id. It becomes part of host names, so it consists of lower-case letters and digits.
fn new_id() -> String {
    format!("i{}", Alphanumeric.sample_string(&mut rand::rng(), 20).to_lowercase())
}

/// A new token for one sandbox: 32 characters from a cryptographically secure generator.
fn new_token() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), 32)
}
