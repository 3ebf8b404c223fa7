//! Live interpreters: the languages found in the image, and one runner process at a time per context.

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

/// `language.json` beside a runner in the image.
#[derive(Debug, Clone, Deserialize)]
struct Manifest {
    #[serde(flatten)]
    language: Language,
    command: Vec<String>,
    /// Whether each thing that the language prints is written at once, and is to be one event.
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

/// What it takes to start a runner.
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
    seat: StdMutex<Arc<Seat>>,
}

/// The place of a runner. Executions that came before a restart stay with the old one, and end with it.
#[derive(Debug, Default)]
struct Seat {
    /// Whoever holds the lock executes. Empty when the runner died: the next execution starts another one.
    runner: Mutex<Option<Seated>>,
    /// Interrupts whoever executes.
    interrupt: StdMutex<Option<mpsc::Sender<Signal>>>,
    /// Cancelled when the context was restarted or removed.
    abandoned: CancellationToken,
}

#[derive(Debug)]
struct Seated {
    runner: Runner,
    /// The sandbox's environment when it started, which may have been added to since.
    environment: BTreeMap<String, String>,
}

impl Contexts {
    /// Reads the languages below `languages`; `fifos` is a directory for the runners' pipes.
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

    /// The languages found in the image.
    pub(crate) fn languages(&self) -> Vec<Language> {
        self.manifests.values().map(|manifest| manifest.language.clone()).collect()
    }

    /// Starts a context and returns once its runner is ready, unless the runner is to come later.
    pub(crate) async fn start(&self, asked: StartContext) -> Result<protocol::Context, Refused> {
        let language = asked.language;
        let manifest = self
            .manifests
            .get(&language)
            .ok_or_else(|| Refused::invalid(format!("the image has no language named `{language}`")))?;
        let context = Arc::new(Context {
            id: format!("{language}-{}", self.created.fetch_add(1, Ordering::Relaxed)),
            language,
            command: manifest.command.clone(),
            keep_writes_apart: manifest.keep_writes_apart,
            cwd: self.starter.users.default.resolve_cwd(asked.cwd.as_deref())?,
            env: asked.env,
            seat: StdMutex::default(),
        });
        if !asked.lazy {
            let seated = self.starter.start(&context).await?;
            *context.seat().runner.lock().await = Some(seated);
        }
        self.list().push(Arc::clone(&context));
        Ok(context.info())
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<protocol::Context> {
        self.list().iter().map(|context| context.info()).collect()
    }

    /// Ends what runs in a context and starts its interpreter anew.
    pub(crate) async fn restart(&self, id: &str) -> Result<protocol::Context, Refused> {
        let context = self.find(id)?;
        let seat = Arc::new(Seat::default());
        // Held from the start, so that nobody executes in it before it is ready.
        let mut runner = seat.runner.lock().await;
        let old = std::mem::replace(&mut *context.lock_seat(), Arc::clone(&seat));
        old.abandon();
        drop(old);
        *runner = Some(self.starter.start(&context).await?);
        Ok(context.info())
    }

    /// Ends a context and what runs in it.
    pub(crate) fn remove(&self, id: &str) -> Result<(), Refused> {
        let context = self.find(id)?;
        self.list().retain(|other| !Arc::ptr_eq(other, &context));
        context.seat().abandon();
        Ok(())
    }

    /// Interrupts the code that runs in a context, if any does.
    pub(crate) fn interrupt(&self, id: &str) -> Result<(), Refused> {
        let seat = self.find(id)?.seat();
        let interrupt = seat.interrupt.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(interrupt) = &*interrupt {
            let _ = interrupt.try_send(Signal::INT);
        }
        Ok(())
    }

    /// Starts an execution, which waits for those before it in the same context, and sends its events.
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
    async fn start(&self, context: &Context) -> Result<Seated, Refused> {
        let user = &self.users.default;
        // It was there when the context was made; code may have removed it since.
        let cwd = if context.cwd.is_dir() { &context.cwd } else { &user.home };
        let environment = self.users.environment(user, &context.env);
        let fifos = self.fifos.join(self.started.fetch_add(1, Ordering::Relaxed).to_string());
        let keep_writes_apart = context.keep_writes_apart;
        let start = Start { command: &context.command, cwd, environment, keep_writes_apart };
        let name = &context.language;
        let mut runner = Runner::spawn(&self.processes, user, fifos, start)
            .map_err(|err| Refused::new(Code::Internal, format!("cannot start the runner of `{name}`: {err}")))?;
        if runner.ready().await {
            return Ok(Seated { runner, environment: self.users.sandbox_environment() });
        }
        Err(Refused::new(Code::Internal, format!("the runner of `{name}` did not become ready")))
    }
}

impl Context {
    async fn execute(&self, starter: &Starter, mut execute: Execute, events: mpsc::Sender<Event>) {
        let seat = self.seat();
        let mut place = tokio::select! {
            place = seat.runner.lock() => place,
            () = events.closed() => return,
            () = seat.abandoned.cancelled() => return execution::abandon(events).await,
        };
        if events.is_closed() {
            return;
        }
        if seat.abandoned.is_cancelled() {
            return execution::abandon(events).await;
        }
        let mut seated = match place.take().filter(|seated| seated.runner.is_alive()) {
            Some(seated) => seated,
            None => match starter.start(self).await {
                Ok(seated) => seated,
                Err(refused) => return execution::fail(events, refused.0.message).await,
            },
        };
        let added = starter.users.sandbox_environment().into_iter();
        let added = added.filter(|(name, value)| {
            // The context's own variables and those it was started with are in place.
            !self.env.contains_key(name) && seated.environment.get(name) != Some(value)
        });
        execute.env = added.chain(execute.env).collect();
        let (interrupt, interrupts) = mpsc::channel(1);
        *seat.interrupt.lock().unwrap_or_else(PoisonError::into_inner) = Some(interrupt);
        let survived = execution::run(&mut seated.runner, execute, events, interrupts, &seat.abandoned).await;
        *seat.interrupt.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if survived {
            *place = Some(seated);
        }
    }

    fn seat(&self) -> Arc<Seat> {
        Arc::clone(&self.lock_seat())
    }

    fn lock_seat(&self) -> MutexGuard<'_, Arc<Seat>> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn info(&self) -> protocol::Context {
        protocol::Context {
            id: self.id.clone(),
            language: self.language.clone(),
            cwd: self.cwd.to_string_lossy().into_owned(),
        }
    }
}

impl Seat {
    /// Ends what runs or waits here. The runner goes with the last who knows this seat.
    fn abandon(&self) {
        self.abandoned.cancel();
    }
}
