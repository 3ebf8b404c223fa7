//! Live interpreters: the languages found in the image, and one runner process per context.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use futures::future::Shared;
use futures::{FutureExt, StreamExt};
use rustix::fs::Mode;
use rustix::process::{Pid, Signal};
use serde::Deserialize;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, oneshot};
use tokio_util::codec::{FramedRead, LinesCodec};

use super::sys::{self, Processes, User};
use crate::protocol::runner::Line;
use crate::protocol::{Language, MAX_EVENT_BYTES};

/// Why a context could not be started.
#[derive(Debug, Error)]
pub(crate) enum ContextError {
    /// The image has no such language.
    #[error("the image has no language named `{0}`")]
    UnknownLanguage(String),
    /// There is no such context.
    #[error("there is no context `{0}`")]
    NotFound(String),
    /// The runner ended, or closed its pipe, before it was ready.
    #[error("the runner of `{0}` did not become ready")]
    NotReady(String),
    /// The operating system refused.
    #[error("cannot start the runner of `{language}`")]
    Start {
        /// The language.
        language: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// `language.json` beside a runner in the image.
#[derive(Debug, Clone, Deserialize)]
struct Manifest {
    #[serde(flatten)]
    language: Language,
    command: Vec<String>,
}

/// All contexts of this container.
#[derive(Debug)]
pub(crate) struct Contexts {
    processes: Processes,
    user: User,
    fifos: PathBuf,
    manifests: BTreeMap<String, Manifest>,
    running: StdMutex<HashMap<String, Arc<Mutex<Runner>>>>,
}

impl Contexts {
    /// Reads the languages below `languages`; `fifos` is a directory for the runners' pipes.
    pub(crate) fn new(processes: Processes, user: User, languages: &Path, fifos: PathBuf) -> io::Result<Self> {
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
        Ok(Self { processes, user, fifos, manifests, running: StdMutex::default() })
    }

    /// The languages found in the image.
    pub(crate) fn languages(&self) -> Vec<Language> {
        self.manifests.values().map(|manifest| manifest.language.clone()).collect()
    }

    /// Starts a runner and returns its context's id once it is ready.
    pub(crate) async fn start(&self, language: &str) -> Result<String, ContextError> {
        let manifest =
            self.manifests.get(language).ok_or_else(|| ContextError::UnknownLanguage(language.to_owned()))?;
        let id = {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            format!("{language}-{}", running.len())
        };
        let start = |source| ContextError::Start { language: language.to_owned(), source };
        let mut runner =
            Runner::spawn(&self.processes, &self.user, &self.fifos.join(&id), &manifest.command).map_err(start)?;
        if !runner.ready().await {
            return Err(ContextError::NotReady(language.to_owned()));
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(id.clone(), Arc::new(Mutex::new(runner)));
        Ok(id)
    }

    /// The runner of a context; whoever holds the lock executes in it.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Mutex<Runner>>, ContextError> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(id).cloned().ok_or_else(|| ContextError::NotFound(id.to_owned()))
    }
}

/// A runner process and its pipes. Dropping it kills its process group.
#[derive(Debug)]
pub(crate) struct Runner {
    group: Pid,
    /// Resolves when the process has ended.
    pub(crate) exit: Shared<oneshot::Receiver<ExitStatus>>,
    /// What user code reads; closed by the first execution.
    pub(crate) stdin: Option<pipe::Sender>,
    /// What user code writes.
    pub(crate) stdout: pipe::Receiver,
    /// What user code writes.
    pub(crate) stderr: pipe::Receiver,
    requests: pipe::Sender,
    /// Lines from the runner, not yet parsed.
    pub(crate) lines: FramedRead<pipe::Receiver, LinesCodec>,
}

impl Runner {
    fn spawn(processes: &Processes, user: &User, fifos: &Path, command: &[String]) -> io::Result<Self> {
        let (program, arguments) =
            command.split_first().ok_or_else(|| io::Error::other("language.json has an empty command"))?;
        std::fs::create_dir_all(fifos)?;
        user.own(fifos)?;
        let (input, output) = (fifos.join("in"), fifos.join("out"));
        for path in [&input, &output] {
            rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::RUSR | Mode::WUSR)?;
            user.own(path)?;
        }
        // Opened for both directions: neither waits for the other end, nor sees its end of file.
        let requests = pipe::OpenOptions::new().read_write(true).open_sender(&input)?;
        let lines = pipe::OpenOptions::new().read_write(true).open_receiver(&output)?;

        let (stdin, stdin_end) = user_pipe_in()?;
        let (stdout_end, stdout) = user_pipe_out()?;
        let (stderr_end, stderr) = user_pipe_out()?;
        let mut process = Command::new(program);
        process
            .args(arguments)
            .current_dir(&user.home)
            .env("HOME", &user.home)
            .env("USER", &user.name)
            .env("LOGNAME", &user.name)
            .env("RUNNER_IN", &input)
            .env("RUNNER_OUT", &output)
            .stdin(Stdio::from(stdin_end))
            .stdout(Stdio::from(stdout_end))
            .stderr(Stdio::from(stderr_end));
        let started = processes.spawn(process, user)?;
        Ok(Self {
            group: started.pid,
            exit: started.exit.shared(),
            stdin: Some(stdin),
            stdout,
            stderr,
            requests,
            lines: FramedRead::new(lines, LinesCodec::new_with_max_length(MAX_EVENT_BYTES)),
        })
    }

    /// Waits for the first line. False if the runner ended, or said something else.
    async fn ready(&mut self) -> bool {
        tokio::select! {
            line = self.lines.next() => {
                matches!(line, Some(Ok(line)) if serde_json::from_str(&line).is_ok_and(|line: Line| line == Line::Ready))
            }
            _ = self.exit.clone() => false,
        }
    }

    /// Sends one line, without its end.
    pub(crate) async fn send(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        self.requests.write_all(&line).await
    }

    /// Sends a signal to the runner and its children.
    pub(crate) fn signal(&self, signal: Signal) {
        sys::signal_group(self.group, signal);
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// A pipe that the agent writes and the user's code reads.
fn user_pipe_in() -> io::Result<(pipe::Sender, std::os::fd::OwnedFd)> {
    let (sender, receiver) = pipe::pipe()?;
    Ok((sender, receiver.into_blocking_fd()?))
}

/// A pipe that the user's code writes and the agent reads.
fn user_pipe_out() -> io::Result<(std::os::fd::OwnedFd, pipe::Receiver)> {
    let (sender, receiver) = pipe::pipe()?;
    Ok((sender.into_blocking_fd()?, receiver))
}
