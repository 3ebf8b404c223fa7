//! Live interpreters: the languages of the image, and the contexts, each with one runner process at a time.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};

use rustix::process::Signal;
use serde::Deserialize;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::answer::Refused;
use super::execution;
use super::runner::{Runner, Start};
use super::sys::Processes;
use super::users::Users;
use crate::protocol::{self, Code, Event, Execute, Language, StartContext};

/// The content of `language.json`, which is beside a runner in the image.
#[derive(Debug, Clone, Deserialize)]
struct Manifest {
    #[serde(flatten)]
    language: Language,
    command: Vec<String>,
    /// Whether the language writes each printed item with one `write`, so that each `write` becomes one event.
    #[serde(default)]
    keep_writes_apart: bool,
}

/// All contexts of this container.
#[derive(Debug)]
pub(crate) struct Contexts {
    starter: Arc<Starter>,
    manifests: BTreeMap<String, Manifest>,
    /// In the order of their creation.
    contexts: StdMutex<Vec<Arc<Context>>>,
    created: AtomicU64,
}

/// Starts runners.
#[derive(Debug)]
struct Starter {
    processes: Processes,
    users: Users,
    fifos: PathBuf,
    started: AtomicU64,
}

/// A live interpreter, under an id that outlives its runners.
#[derive(Debug)]
struct Context {
    id: String,
    language: String,
    command: Vec<String>,
    keep_writes_apart: bool,
    cwd: PathBuf,
    env: BTreeMap<String, String>,
    /// Replaced by a restart.
    slot: StdMutex<Arc<Slot>>,
}

/// A slot for one runner. Executions that came before a restart keep the old slot and end with it.
#[derive(Debug, Default)]
struct Slot {
    /// Locked by the running execution. `None` before the first runner and after one died: the next execution starts a
    /// new one.
    runner: Mutex<Option<Started>>,
    /// Interrupts the running execution.
    interrupt: StdMutex<Option<mpsc::Sender<Signal>>>,
    /// Cancelled when the context was restarted or removed.
    abandoned: CancellationToken,
}

/// A started runner.
#[derive(Debug)]
struct Started {
    runner: Runner,
    /// The sandbox's environment at the start of the runner, which may have changed since.
    environment: BTreeMap<String, String>,
}

impl Contexts {
    /// Reads the languages below `languages`. The runners' FIFOs are made in the directory `fifos`.
    pub(crate) fn new(processes: Processes, users: Users, languages: &Path, fifos: PathBuf) -> io::Result<Self> {
        let mut manifests = BTreeMap::new();
        for entry in std::fs::read_dir(languages)? {
            let path = entry?.path().join("language.json");
            if !path.exists() {
                continue;
            }
            let manifest: Manifest = serde_json::from_slice(&std::fs::read(&path)?)
                .map_err(|err| io::Error::other(format!("{}: {err}", path.display())))?;
            manifests.insert(manifest.language.name.clone(), manifest);
        }
        let starter = Arc::new(Starter { processes, users, fifos, started: AtomicU64::new(0) });
        Ok(Self { starter, manifests, contexts: StdMutex::default(), created: AtomicU64::new(0) })
    }

    /// The languages of the image.
    pub(crate) fn languages(&self) -> Vec<Language> {
        self.manifests.values().map(|manifest| manifest.language.clone()).collect()
    }

    /// Starts a context and returns once its runner is ready, or at once if it is lazy.
    pub(crate) async fn start(&self, spec: StartContext) -> Result<protocol::Context, Refused> {
        let language = spec.language;
        let manifest = self
            .manifests
            .get(&language)
            .ok_or_else(|| Refused::not_found(format!("the image has no language named `{language}`")))?;
        let context = Arc::new(Context {
            id: format!("{language}-{}", self.created.fetch_add(1, Ordering::Relaxed)),
            language,
            command: manifest.command.clone(),
            keep_writes_apart: manifest.keep_writes_apart,
            cwd: self.starter.users.default.resolve_cwd(spec.cwd.as_deref())?,
            env: spec.env,
            slot: StdMutex::default(),
        });
        if !spec.lazy {
            let started = self.starter.start(&context).await?;
            *context.slot().runner.lock().await = Some(started);
        }
        self.list().push(Arc::clone(&context));
        Ok(context.info())
    }

    /// All contexts, in the order of their creation.
    pub(crate) fn all(&self) -> Vec<protocol::Context> {
        self.list().iter().map(|context| context.info()).collect()
    }

    /// Ends the executions of a context and replaces its interpreter by a new one.
    pub(crate) async fn restart(&self, id: &str) -> Result<protocol::Context, Refused> {
        let context = self.find(id)?;
        let slot = Arc::new(Slot::default());
        // Locked before the slot is visible, so that no execution runs in it before the runner is ready.
        let mut runner = slot.runner.lock().await;
        let old = std::mem::replace(&mut *context.lock_slot(), Arc::clone(&slot));
        old.abandon();
        drop(old);
        *runner = Some(self.starter.start(&context).await?);
        Ok(context.info())
    }

    /// Ends a context and its executions.
    pub(crate) fn remove(&self, id: &str) -> Result<(), Refused> {
        let context = self.find(id)?;
        self.list().retain(|other| !Arc::ptr_eq(other, &context));
        context.slot().abandon();
        Ok(())
    }

    /// Interrupts the code that runs in a context, if any does.
    pub(crate) fn interrupt(&self, id: &str) -> Result<(), Refused> {
        let slot = self.find(id)?.slot();
        let interrupt = slot.interrupt.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(interrupt) = &*interrupt {
            let _ = interrupt.try_send(Signal::INT);
        }
        Ok(())
    }

    /// Starts an execution and sends its events. It waits for earlier executions in the same context.
    pub(crate) fn execute(&self, mut execute: Execute, events: mpsc::Sender<Event>) -> Result<(), Refused> {
        let context = self.find(&execute.context)?;
        if let Some(cwd) = &execute.cwd {
            let cwd = self.starter.users.default.resolve_cwd(Some(cwd))?;
            execute.cwd = Some(cwd.to_string_lossy().into_owned());
        }
        let starter = Arc::clone(&self.starter);
        tokio::spawn(async move { context.execute(&starter, execute, events).await });
        Ok(())
    }

    fn find(&self, id: &str) -> Result<Arc<Context>, Refused> {
        let found = self.list().iter().find(|context| context.id == id).cloned();
        found.ok_or_else(|| Refused::not_found(format!("there is no context `{id}`")))
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Context>>> {
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Starter {
    /// Starts a runner and waits until it is ready.
    async fn start(&self, context: &Context) -> Result<Started, Refused> {
        let user = &self.users.default;
        // The directory could be entered when the context was made, but code may have changed that since.
        let cwd = user.resolve_cwd(context.cwd.to_str());
        let cwd = cwd.as_deref().unwrap_or(&user.home);
        let environment = self.users.environment(user, &context.env);
        let fifos = self.fifos.join(self.started.fetch_add(1, Ordering::Relaxed).to_string());
        let keep_writes_apart = context.keep_writes_apart;
        let start = Start { command: &context.command, cwd, environment, keep_writes_apart };
        let name = &context.language;
        let mut runner = Runner::spawn(&self.processes, user, fifos, start)
            .map_err(|err| Refused::new(Code::Internal, format!("cannot start the runner of `{name}`: {err}")))?;
        if runner.ready().await {
            return Ok(Started { runner, environment: self.users.sandbox_environment() });
        }
        Err(Refused::new(Code::Internal, format!("the runner of `{name}` did not become ready")))
    }
}

impl Context {
    async fn execute(&self, starter: &Starter, mut execute: Execute, events: mpsc::Sender<Event>) {
        let slot = self.slot();
        let mut idle = tokio::select! {
            idle = slot.runner.lock() => idle,
            () = events.closed() => return,
            () = slot.abandoned.cancelled() => return execution::abandon(events).await,
        };
        if events.is_closed() {
            return;
        }
        if slot.abandoned.is_cancelled() {
            return execution::abandon(events).await;
        }
        let mut started = match idle.take().filter(|started| started.runner.is_alive()) {
            Some(started) => started,
            None => match starter.start(self).await {
                Ok(started) => started,
                Err(refused) => return execution::fail(events, refused.0.message).await,
            },
        };
        let added = starter.users.sandbox_environment().into_iter();
        let added = added.filter(|(name, value)| {
            // The runner already has the context's own variables and the ones that have not changed since its start.
            !self.env.contains_key(name) && started.environment.get(name) != Some(value)
        });
        execute.env = added.chain(execute.env).collect();
        let (interrupt, interrupts) = mpsc::channel(1);
        *slot.interrupt.lock().unwrap_or_else(PoisonError::into_inner) = Some(interrupt);
        let survived = execution::run(&mut started.runner, execute, events, interrupts, &slot.abandoned).await;
        *slot.interrupt.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if survived {
            *idle = Some(started);
        }
    }

    fn slot(&self) -> Arc<Slot> {
        Arc::clone(&self.lock_slot())
    }

    fn lock_slot(&self) -> MutexGuard<'_, Arc<Slot>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn info(&self) -> protocol::Context {
        protocol::Context {
            id: self.id.clone(),
            language: self.language.clone(),
            cwd: self.cwd.to_string_lossy().into_owned(),
        }
    }
}

impl Slot {
    /// Ends the executions that run or wait here. The runner is dropped with the last reference to this slot.
    fn abandon(&self) {
        self.abandoned.cancel();
    }
}
