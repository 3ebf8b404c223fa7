//! A kept sandbox: one container under an id, with a deadline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::container::Container;
use super::error::OperationError;
use super::owner::Owner;
use super::readings::{Reading, Readings};
use super::template::Template;
use crate::engine::{EngineError, Network};
use crate::link::Link;
use crate::protocol::{Metrics, Notebook};

/// What happens at the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTimeout {
    /// It is removed.
    Kill,
    /// It is frozen, and removed when killed.
    Pause,
}

/// Who may reach the ports of a sandbox, and under which name its servers see themselves asked.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// Whether requests to its ports must carry a token of their own.
    pub private: bool,
    /// What `Host` says towards its ports in place of what the client said; `${PORT}` in it is the port.
    pub host: Option<String>,
}

/// A checked request for a sandbox.
#[derive(Debug, Clone)]
pub struct CreateSpec {
    /// The recipe.
    pub template: Arc<Template>,
    /// Whose it is.
    pub owner: Owner,
    /// How long it lives.
    pub timeout: Duration,
    /// What happens then.
    pub on_timeout: OnTimeout,
    /// Whether requests to it resume it when it is paused.
    pub auto_resume: bool,
    /// What it can reach.
    pub network: Network,
    /// The client's own notes.
    pub metadata: BTreeMap<String, String>,
    /// Environment variables of everything that runs in it.
    pub env: BTreeMap<String, String>,
    /// Whether requests to it must carry its token.
    pub secure: bool,
    /// How its ports are reached.
    pub traffic: Traffic,
}

/// When it ends, and whether it is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// The deadline; of a paused one, when it was paused.
    pub end: SystemTime,
    /// Whether it is frozen.
    pub paused: bool,
}

/// A sandbox that is kept until its deadline.
#[derive(Debug)]
pub struct Sandbox {
    /// Lower-case letters and digits.
    pub id: String,
    /// What requests to it carry; unguessable, and its own.
    pub token: String,
    /// What requests to its ports carry, if they must.
    pub traffic_token: Option<String>,
    /// How it was asked for.
    pub spec: CreateSpec,
    /// When it was created.
    pub started: SystemTime,
    pub(super) container: Container,
    pub(super) life: watch::Sender<Life>,
    pub(super) readings: Readings,
    /// Cancelled when it is killed.
    pub(super) gone: CancellationToken,
    /// Cancelled when it is killed or paused: what streams from it must end then.
    streams: Mutex<CancellationToken>,
    /// One change between paused and running at a time.
    changing: tokio::sync::Mutex<()>,
    /// The context that is meant where only a language is named.
    pub(super) defaults: tokio::sync::Mutex<BTreeMap<String, String>>,
    /// How many executions each context has seen.
    executions: Mutex<BTreeMap<String, u64>>,
}

impl Sandbox {
    pub(super) fn new(id: String, token: String, spec: CreateSpec, container: Container) -> Self {
        let started = SystemTime::now();
        let gone = CancellationToken::new();
        Self {
            id,
            token,
            traffic_token: spec.traffic.private.then(super::new_token),
            started,
            life: watch::Sender::new(Life { end: started + spec.timeout, paused: false }),
            streams: Mutex::new(gone.child_token()),
            gone,
            changing: tokio::sync::Mutex::default(),
            defaults: tokio::sync::Mutex::new(container.contexts.clone()),
            executions: Mutex::default(),
            readings: Readings::default(),
            spec,
            container,
        }
    }

    /// Its deadline and whether it is frozen.
    pub fn life(&self) -> Life {
        *self.life.borrow()
    }

    /// Moves the deadline to `timeout` from now, whatever it was.
    pub fn set_timeout(&self, timeout: Duration) {
        self.life.send_modify(|life| life.end = SystemTime::now() + timeout);
    }

    /// Moves the deadline to `timeout` from now, unless that is earlier.
    pub fn extend(&self, timeout: Duration) {
        self.life.send_modify(|life| life.end = life.end.max(SystemTime::now() + timeout));
    }

    /// The way to its agent.
    pub(super) fn link(&self) -> &Link {
        self.container.link()
    }

    /// What is different in a notebook of this language.
    pub fn notebook(&self, language: &str) -> Notebook {
        let found = self.container.languages.iter().find(|found| found.name == language);
        found.map(|found| found.notebook.clone()).unwrap_or_default()
    }

    /// What it uses now.
    ///
    /// # Errors
    ///
    /// When the sandbox is lost.
    pub async fn metrics(&self) -> Result<Metrics, OperationError> {
        let mut metrics = self.link().metrics().await?;
        if self.spec.template.writable_root {
            // The agent sees the engine's whole disk.
            metrics.disk_total_bytes = self.spec.template.disk_bytes;
            metrics.disk_used_bytes = self.readings.written_bytes();
        }
        Ok(metrics)
    }

    /// What it used every five seconds, oldest first.
    pub fn readings(&self) -> Vec<Reading> {
        self.readings.all()
    }

    /// Counts an execution in a context, from 1.
    pub(super) fn count_execution(&self, context: &str) -> u64 {
        let mut executions = self.executions.lock().unwrap_or_else(PoisonError::into_inner);
        let count = executions.entry(context.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// Begins to count a context's executions anew.
    pub(super) fn forget_executions(&self, context: &str) {
        self.executions.lock().unwrap_or_else(PoisonError::into_inner).remove(context);
    }

    /// Whether its container is gone without our doing.
    pub(super) fn is_lost(&self) -> bool {
        self.link().is_closed()
    }

    /// Resolves when streams from it must end: it was killed or paused.
    pub fn interrupted(&self) -> CancellationToken {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Freezes it, also if nobody waits for that any longer. False if it was frozen.
    ///
    /// # Errors
    ///
    /// When the engine cannot. It then goes on, but for its streams.
    pub async fn pause(self: &Arc<Self>) -> Result<bool, EngineError> {
        let sandbox = Arc::clone(self);
        let paused = async move {
            let _changing = sandbox.changing.lock().await;
            if sandbox.life().paused {
                return Ok(false);
            }
            // Streams first: their ends would otherwise wait in a frozen agent.
            sandbox.interrupted().cancel();
            if let Err(err) = sandbox.container.pause().await {
                // An engine that was too slow to say so may have frozen it all the same.
                let _ = sandbox.container.resume().await;
                sandbox.let_streams_begin();
                return Err(err);
            }
            sandbox.life.send_modify(|life| *life = Life { end: SystemTime::now(), paused: true });
            Ok(true)
        };
        tokio::spawn(paused).await.expect("a pause does not panic")
    }

    /// Lets it go on for `timeout`, also if nobody waits for that any longer. False if it was not frozen.
    ///
    /// # Errors
    ///
    /// When the engine cannot.
    pub async fn resume(self: &Arc<Self>, timeout: Duration) -> Result<bool, EngineError> {
        let sandbox = Arc::clone(self);
        let resumed = async move {
            let _changing = sandbox.changing.lock().await;
            if !sandbox.life().paused {
                return Ok(false);
            }
            sandbox.container.resume().await?;
            sandbox.let_streams_begin();
            sandbox.life.send_modify(|life| *life = Life { end: SystemTime::now() + timeout, paused: false });
            Ok(true)
        };
        tokio::spawn(resumed).await.expect("a resumption does not panic")
    }

    fn let_streams_begin(&self) {
        *self.streams.lock().unwrap_or_else(PoisonError::into_inner) = self.gone.child_token();
    }

    /// Removes its container. The registry then finds that the sandbox is lost.
    pub(super) fn remove_container(&self) {
        self.container.remove();
    }

    /// Removes its container and ends its streams.
    pub(super) fn kill(&self) {
        self.gone.cancel();
        self.container.remove();
    }
}
