//! Agents within the server's own process, over pairs of byte streams: **no isolation at all**.
//!
//! For tests of everything above the engine, which need no container. Its agents are like any other, but find their
//! languages in the directory `ONCEBOX_LANGUAGES` and run everything as the server's own user.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::task::AbortOnDropHandle;

use super::{ContainerEnd, DiskMeter, Engine, EngineError, Freezer, InstanceId, Launched, Pipe, Spec};
use crate::agent::{self, User};

/// The environment variable that must be 1 to open this engine.
const CONSENT: &str = "ONCEBOX_UNSAFE_PROCESS_ENGINE";

/// The buffer of a pipe in each direction, bytes.
const PIPE_BYTES: usize = 64 << 10;

/// An engine without isolation.
#[derive(Debug)]
pub(super) struct ProcessEngine {
    languages: PathBuf,
    started: AtomicU64,
    running: Mutex<HashMap<InstanceId, Running>>,
}

/// An agent and its files. Dropping it ends the agent and its interpreters, and removes the files.
#[derive(Debug)]
struct Running {
    _agent: AbortOnDropHandle<()>,
    _files: tempfile::TempDir,
}

impl ProcessEngine {
    pub(super) fn open() -> Result<Self, EngineError> {
        if std::env::var_os(CONSENT).is_none_or(|consent| consent != "1") {
            return Err(EngineError::NotIsolated(CONSENT));
        }
        let languages = std::env::var_os("ONCEBOX_LANGUAGES").unwrap_or_else(|| "/opt/oncebox".into()).into();
        Ok(Self { languages, started: AtomicU64::default(), running: Mutex::default() })
    }

    async fn start(&self) -> std::io::Result<Launched> {
        let id = InstanceId(format!("process-{}", self.started.fetch_add(1, Ordering::Relaxed)));
        let files = tempfile::tempdir()?;
        let home = files.path().join("home");
        std::fs::create_dir(&home)?;
        let options = agent::Options {
            languages: self.languages.clone(),
            fifos: files.path().join("fifos"),
            user: Some(User { name: "user".to_owned(), ids: None, home, confined: true }),
            uid: None,
            superuser: false,
        };
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let agent = tokio::spawn(async move {
            // The server notices the end of the link.
            let _ = agent::serve(far, options).await;
        });
        let running = Running { _agent: AbortOnDropHandle::new(agent), _files: files };
        self.lock().insert(id.clone(), running);
        Ok(Launched { id, pipe: Pipe::new(near) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<InstanceId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for ProcessEngine {
    fn launch<'a>(&'a self, _: &'a Spec) -> BoxFuture<'a, Result<Launched, EngineError>> {
        async {
            let started = self.start().await;
            started.map_err(|err| EngineError::Refused { action: "start an agent", source: err.into() })
        }
        .boxed()
    }

    fn destroy<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), EngineError>> {
        let ended = self.lock().remove(id);
        drop(ended);
        std::future::ready(Ok(())).boxed()
    }

    fn end_of<'a>(&'a self, _: &'a InstanceId) -> BoxFuture<'a, ContainerEnd> {
        std::future::ready(ContainerEnd::default()).boxed()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<usize, EngineError>> {
        let ended = std::mem::take(&mut *self.lock());
        std::future::ready(Ok(ended.len())).boxed()
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        std::future::ready(Ok(())).boxed()
    }

    fn processors(&self) -> BoxFuture<'_, Result<u64, EngineError>> {
        let processors = std::thread::available_parallelism().map_or(1, |processors| processors.get() as u64);
        std::future::ready(Ok(processors)).boxed()
    }

    fn freezer(&self) -> Option<&dyn Freezer> {
        None
    }

    fn disk_meter(&self) -> Option<&dyn DiskMeter> {
        None
    }
}
