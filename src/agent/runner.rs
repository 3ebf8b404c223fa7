//! A runner, the program that executes code of one language, and the pipes to it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use futures::future::Shared;
use futures::{FutureExt, StreamExt};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio_util::codec::{FramedRead, LinesCodec};

use super::sys::{self, Processes};
use super::users::User;
use crate::protocol::MAX_VALUE_BYTES;
use crate::protocol::runner::Line;

/// The settings for the start of a runner.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    /// The program and its arguments.
    pub(crate) command: &'a [String],
    /// The working directory.
    pub(crate) cwd: &'a Path,
    /// Environment variables, added to those of the image.
    pub(crate) environment: Vec<(String, String)>,
    /// Whether each `write` of the runner is read as a piece of its own.
    pub(crate) keep_writes_apart: bool,
}

/// A runner process and its pipes. Dropping it kills its process group.
#[derive(Debug)]
pub(crate) struct Runner {
    group: Pid,
    /// Resolves when the process has ended.
    pub(crate) exit: Shared<oneshot::Receiver<ExitStatus>>,
    /// The standard input of user code; taken by the first execution, which closes it.
    pub(crate) stdin: Option<pipe::Sender>,
    /// The standard output of user code.
    pub(crate) stdout: pipe::Receiver,
    /// The standard error of user code.
    pub(crate) stderr: pipe::Receiver,
    /// The runner's ends of stdout and stderr, if its writes can be kept apart; empty otherwise.
    ends: Vec<OwnedFd>,
    requests: pipe::Sender,
    fifos: PathBuf,
    /// Lines from the runner, not yet parsed.
    pub(crate) lines: FramedRead<pipe::Receiver, LinesCodec>,
}

impl Runner {
    /// Starts a runner. The directory `fifos` is made for its FIFOs.
    pub(crate) fn spawn(processes: &Processes, user: &User, fifos: PathBuf, start: Start<'_>) -> io::Result<Self> {
        let (program, arguments) =
            start.command.split_first().ok_or_else(|| io::Error::other("language.json has an empty command"))?;
        std::fs::create_dir_all(&fifos)?;
        user.chown(&fifos)?;
        let (input, output) = (fifos.join("in"), fifos.join("out"));
        for path in [&input, &output] {
            rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::RUSR | Mode::WUSR)?;
            user.chown(path)?;
        }
        // Opened for reading and writing, so that opening does not wait for the runner, and its exit is not an end of
        // file.
        let requests = pipe::OpenOptions::new().read_write(true).open_sender(&input)?;
        let lines = pipe::OpenOptions::new().read_write(true).open_receiver(&output)?;

        let (stdin, stdin_end) = sys::pipe_in()?;
        let (stdout_end, stdout) = sys::pipe_out()?;
        let (stderr_end, stderr) = sys::pipe_out()?;
        let ends =
            if start.keep_writes_apart { vec![stdout_end.try_clone()?, stderr_end.try_clone()?] } else { vec![] };
        let mut process = Command::new(program);
        process
            .args(arguments)
            .current_dir(start.cwd)
            .envs(start.environment)
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
            ends,
            requests,
            fifos,
            lines: FramedRead::new(lines, LinesCodec::new_with_max_length(MAX_VALUE_BYTES)),
        })
    }

    /// Waits for [`Line::Ready`], the first line. False if the runner ended or sent another line.
    pub(crate) async fn ready(&mut self) -> bool {
        tokio::select! {
            line = self.lines.next() => {
                matches!(line, Some(Ok(line)) if serde_json::from_str(&line).is_ok_and(|line| matches!(line, Line::Ready {})))
            }
            _ = self.exit.clone() => false,
        }
    }

    /// Whether its process still runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.exit.clone().now_or_never().is_none()
    }

    /// Sends one line. `line` is without its line end.
    pub(crate) async fn send(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        self.requests.write_all(&line).await
    }

    /// Sets whether each `write` is read as a piece of its own or joined with the bytes that wait in the pipe. No
    /// effect if the language does not ask for separate writes.
    pub(crate) fn keep_writes_apart(&self, apart: bool) {
        for end in &self.ends {
            // The flag belongs to the open file description, which the runner shares. A kernel without the flag joins
            // all writes.
            let _ = rustix::fs::fcntl_getfl(end).and_then(|mut flags| {
                flags.set(OFlags::DIRECT, apart);
                rustix::fs::fcntl_setfl(end, flags)
            });
        }
    }

    /// Sends a signal to the runner and its children.
    pub(crate) fn signal(&self, signal: Signal) {
        sys::signal_group(self.group, signal);
    }

    /// Sends a signal to the runner alone.
    pub(crate) fn signal_alone(&self, signal: Signal) {
        sys::signal_process(self.group, signal);
    }

    /// Sends a signal to the other processes of the runner's group, and not to the runner. False if there are none.
    pub(crate) fn signal_children(&self, signal: Signal) -> bool {
        let children = sys::members(self.group).into_iter().filter(|pid| *pid != self.group);
        children.map(|child| sys::signal_process(child, signal)).count() > 0
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = std::fs::remove_dir_all(&self.fifos);
    }
}
