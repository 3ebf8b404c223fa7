//! A kept sandbox: one container with an id and a deadline.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::container::Container;
use super::error::OperationError;
use super::meter::KeptMeter;
use super::owner::Owner;
use super::readings::{INTERVAL, Reading, Readings};
use super::record::{Origin, Recording, Records};
use super::template::Template;
use crate::engine::{EngineError, Network};
use crate::link::Link;
use crate::protocol::{Metrics, Notebook};

/// How long the last reading of a sandbox's processor time may delay its removal.
const LAST_READING: Duration = Duration::from_millis(500);

/// What happens to a sandbox at its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTimeout {
    /// The sandbox is removed.
    Kill,
    /// The sandbox is frozen, and stays until it is killed.
    Pause,
}

/// Access to the ports of a sandbox, and the `Host` header that servers inside see.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// Whether requests to its ports must carry [`Sandbox::traffic_token`].
    pub private: bool,
    /// Replaces the client's `Host` header in requests to its ports; `${PORT}` in it stands for the port.
    pub host: Option<String>,
}

/// A client's network options, as its request spells them; `None` for those that it does not have. They are only
/// reported: [`CreateSpec::network`] is what they mean. If the owner may not have that, `internet` is false.
#[derive(Debug, Clone, Default)]
pub struct RequestedNetwork {
    /// Whether the internet is reached.
    pub internet: Option<bool>,
    /// The addresses, networks and hosts that are reached.
    pub allow: Option<Vec<String>>,
    /// The addresses and networks that are not reached.
    pub deny: Option<Vec<String>>,
}

/// A checked request for a sandbox.
#[derive(Debug, Clone)]
pub struct CreateSpec {
    /// The template.
    pub template: Arc<Template>,
    /// The owner of the sandbox.
    pub owner: Owner,
    /// The time from its creation to its deadline.
    pub timeout: Duration,
    /// What happens at the deadline.
    pub on_timeout: OnTimeout,
    /// Whether a request to the paused sandbox resumes it.
    pub auto_resume: bool,
    /// The addresses that it can reach.
    pub network: Network,
    /// Whether the client has chosen the network; otherwise it is the template's, or less if the owner may not have that.
    pub network_is_chosen: bool,
    /// The network options of the request.
    pub requested_network: RequestedNetwork,
    /// The client's own metadata.
    pub metadata: BTreeMap<String, String>,
    /// Environment variables of all code and commands in it.
    pub env: BTreeMap<String, String>,
    /// Whether requests to it must carry its token.
    pub secure: bool,
    /// Access to its ports.
    pub traffic: Traffic,
}

/// The deadline of a sandbox, and whether the sandbox is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// The deadline; for a paused sandbox, the time when it was paused.
    pub end: SystemTime,
    /// Whether the sandbox is paused.
    pub paused: bool,
}

/// A sandbox that is kept until its deadline.
#[derive(Debug)]
pub struct Sandbox {
    /// The id: lower-case letters and digits.
    pub id: String,
    /// The token that requests to this sandbox carry; unique and unguessable.
    pub token: String,
    /// The token that requests to its ports must carry; `None` if they need none.
    pub traffic_token: Option<String>,
    /// The request that created it.
    pub spec: CreateSpec,
    /// When it was created.
    pub started: SystemTime,
    pub(super) container: Container,
    pub(super) life: watch::Sender<Life>,
    pub(super) readings: Readings,
    /// Locked while the metrics are read, which counts from one reading to the next.
    meter: tokio::sync::Mutex<KeptMeter>,
    records: Arc<Records>,
    /// Cancelled when the sandbox is killed.
    pub(super) gone: CancellationToken,
    /// Cancelled when the sandbox is killed, paused or cut off: streams from it must end then. Replaced when it goes on.
    streams: Mutex<CancellationToken>,
    /// Whether its streams were ended last because they were cut off.
    was_cut: AtomicBool,
    /// Locked during a pause or a resume, so that there is one at a time.
    transition: tokio::sync::Mutex<()>,
    /// The default context of each language, by language.
    pub(super) defaults: tokio::sync::Mutex<BTreeMap<String, String>>,
    /// The number of executions so far, by context.
    executions: Mutex<BTreeMap<String, u64>>,
}

impl Sandbox {
    pub(super) fn new(
        id: String,
        token: String,
        spec: CreateSpec,
        container: Container,
        meter: KeptMeter,
        records: Arc<Records>,
    ) -> Self {
        let started = SystemTime::now();
        let gone = CancellationToken::new();
        Self {
            id,
            token,
            traffic_token: spec.traffic.private.then(super::new_token),
            started,
            life: watch::Sender::new(Life { end: started + spec.timeout, paused: false }),
            streams: Mutex::new(gone.child_token()),
            was_cut: AtomicBool::new(false),
            meter: tokio::sync::Mutex::new(meter),
            records,
            gone,
            transition: tokio::sync::Mutex::default(),
            defaults: tokio::sync::Mutex::new(container.contexts.clone()),
            executions: Mutex::default(),
            readings: Readings::default(),
            spec,
            container,
        }
    }

    /// The current deadline, and whether the sandbox is paused.
    pub fn life(&self) -> Life {
        *self.life.borrow()
    }

    /// Moves the deadline to `timeout` from now, earlier or later.
    pub fn set_timeout(&self, timeout: Duration) {
        self.life.send_modify(|life| life.end = SystemTime::now() + timeout);
    }

    /// Moves the deadline to `timeout` from now, unless it is later already.
    pub fn extend(&self, timeout: Duration) {
        self.life.send_modify(|life| life.end = life.end.max(SystemTime::now() + timeout));
    }

    /// The link to its agent.
    pub(super) fn link(&self) -> &Link {
        self.container.link()
    }

    /// How a notebook of this language differs, as the image describes it.
    pub fn notebook(&self, language: &str) -> Notebook {
        let found = self.container.languages.iter().find(|found| found.name == language);
        found.map(|found| found.notebook.clone()).unwrap_or_default()
    }

    /// The sandbox's current resource usage.
    ///
    /// # Errors
    ///
    /// When the sandbox is lost, or is killed or paused meanwhile.
    pub async fn metrics(self: &Arc<Self>) -> Result<Metrics, OperationError> {
        let sandbox = Arc::clone(self);
        // Also if the caller stops waiting: the agent counts from this reading on, whoever gets it.
        let reading = tokio::spawn(async move {
            let mut meter = sandbox.meter.lock().await;
            // A frozen agent does not answer, and the link would take that for a dead agent.
            let reading = sandbox.interrupted().run_until_cancelled_owned(sandbox.read_metrics()).await;
            let metrics = reading.unwrap_or_else(|| Err(OperationError::Unfinished("it was interrupted".into())))?;
            meter.read(&metrics);
            Ok(metrics)
        });
        reading.await.expect("a reading does not panic")
    }

    async fn read_metrics(&self) -> Result<Metrics, OperationError> {
        let mut metrics = self.link().metrics().await?;
        if self.spec.template.writable_root {
            // The agent reports the engine's whole disk.
            metrics.disk_total_bytes = self.spec.template.disk_bytes;
            metrics.disk_used_bytes = self.readings.written_bytes();
        }
        Ok(metrics)
    }

    /// Its resource usage at intervals of five seconds, oldest first.
    pub fn readings(&self) -> Vec<Reading> {
        self.readings.all()
    }

    /// Counts an execution in a context and returns its number, from 1.
    pub(super) fn count_execution(&self, context: &str) -> u64 {
        let mut executions = self.executions.lock().unwrap_or_else(PoisonError::into_inner);
        let count = executions.entry(context.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// Resets a context's execution count.
    pub(super) fn forget_executions(&self, context: &str) {
        self.executions.lock().unwrap_or_else(PoisonError::into_inner).remove(context);
    }

    /// Whether the link to its agent has ended.
    pub(super) fn is_lost(&self) -> bool {
        self.link().is_closed()
    }

    /// A token that is cancelled when the sandbox is killed, paused or cut off: streams from it must end then.
    pub fn interrupted(&self) -> CancellationToken {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the sandbox was killed.
    pub fn is_killed(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// A run in the sandbox begins now.
    pub(super) fn recording(&self, origin: Origin) -> Recording {
        Recording::start(&self.records, self.spec.owner, origin, &self.spec.template.name).in_sandbox(&self.id)
    }

    /// Whether its streams were ended last because its owner may not use it any longer.
    pub fn was_cut(&self) -> bool {
        self.was_cut.load(Ordering::Relaxed)
    }

    /// Ends all streams from the sandbox, which goes on.
    pub(super) fn cut(&self) {
        self.was_cut.store(true, Ordering::Relaxed);
        let streams = self.interrupted();
        // First: a stream that begins now is a new one.
        self.renew_stream_token();
        streams.cancel();
    }

    /// Freezes the sandbox, even if the caller stops waiting. False if it was paused already.
    ///
    /// # Errors
    ///
    /// When the engine cannot freeze it. The sandbox then keeps running, but its streams have ended.
    pub async fn pause(self: &Arc<Self>) -> Result<bool, EngineError> {
        let sandbox = Arc::clone(self);
        let paused = async move {
            let _transition = sandbox.transition.lock().await;
            if sandbox.life().paused {
                return Ok(false);
            }
            sandbox.was_cut.store(false, Ordering::Relaxed);
            // Before the pause: a frozen agent could not end its streams.
            sandbox.interrupted().cancel();
            if let Err(err) = sandbox.container.pause().await {
                // An engine that answered too late may have frozen it nevertheless.
                let _ = sandbox.container.resume().await;
                sandbox.renew_stream_token();
                return Err(err);
            }
            sandbox.life.send_modify(|life| *life = Life { end: SystemTime::now(), paused: true });
            Ok(true)
        };
        tokio::spawn(paused).await.expect("a pause does not panic")
    }

    /// Resumes the sandbox for `timeout`, even if the caller stops waiting. False if it was not paused.
    ///
    /// # Errors
    ///
    /// When the engine cannot resume it.
    pub async fn resume(self: &Arc<Self>, timeout: Duration) -> Result<bool, EngineError> {
        let sandbox = Arc::clone(self);
        let resumed = async move {
            let _transition = sandbox.transition.lock().await;
            if !sandbox.life().paused {
                return Ok(false);
            }
            sandbox.container.resume().await?;
            sandbox.renew_stream_token();
            sandbox.life.send_modify(|life| *life = Life { end: SystemTime::now() + timeout, paused: false });
            Ok(true)
        };
        tokio::spawn(resumed).await.expect("a resumption does not panic")
    }

    fn renew_stream_token(&self) {
        *self.streams.lock().unwrap_or_else(PoisonError::into_inner) = self.gone.child_token();
    }

    /// Removes the container. The registry then notices that the sandbox is lost.
    pub(super) fn remove_container(&self) {
        self.container.remove();
    }

    /// Ends all streams from the sandbox and removes the container.
    pub(super) fn kill(self: &Arc<Self>, counts_cpu: bool) {
        let is_frozen = self.life().paused;
        self.gone.cancel();
        if !counts_cpu {
            self.container.remove();
            return;
        }
        let sandbox = Arc::clone(self);
        tokio::spawn(async move {
            let mut meter = sandbox.meter.lock().await;
            let reading = async { if is_frozen { None } else { sandbox.read_metrics().await.ok() } };
            match tokio::time::timeout(LAST_READING, reading).await {
                Ok(Some(metrics)) => meter.read(&metrics),
                // It was read at intervals before.
                Ok(None) | Err(_) => meter.give_up(INTERVAL),
            }
            sandbox.container.remove();
        });
    }
}
