//! A runner: the program of one language that executes code, and the pipes to it.

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

/// How a runner is started.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    /// The program and its arguments.
    pub(crate) command: &'a [String],
    /// Where it starts.
    pub(crate) cwd: &'a Path,
    /// What is added to the image's own environment.
    pub(crate) environment: Vec<(String, String)>,
    /// Whether what it writes at once is to be read by itself.
    pub(crate) keep_writes_apart: bool,
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
    /// The runner's ends of both, if what it writes at once can be kept apart.
    ends: Vec<OwnedFd>,
    requests: pipe::Sender,
    fifos: PathBuf,
    /// Lines from the runner, not yet parsed.
    pub(crate) lines: FramedRead<pipe::Receiver, LinesCodec>,
}

impl Runner {
    /// Starts a runner; `fifos` is a directory to make for its pipes.
    pub(crate) fn spawn(processes: &Processes, user: &User, fifos: PathBuf, start: Start<'_>) -> io::Result<Self> {
        let (program, arguments) =
            start.command.split_first().ok_or_else(|| io::Error::other("language.json has an empty command"))?;
        std::fs::create_dir_all(&fifos)?;
        user.own(&fifos)?;
        let (input, output) = (fifos.join("in"), fifos.join("out"));
        for path in [&input, &output] {
            rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::RUSR | Mode::WUSR)?;
            user.own(path)?;
        }
        // Opened for both directions: neither waits for the other end, nor sees its end of file.
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

    /// Waits for the first line. False if the runner ended, or said something else.
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

    /// Sends one line, without its end.
    pub(crate) async fn send(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        self.requests.write_all(&line).await
    }

    /// Has what is written at once be read by itself, where the language wants that; or joined with what is there already.
    pub(crate) fn keep_writes_apart(&self, apart: bool) {
        for end in &self.ends {
            // The flag is the description's, and so the runner's too. A kernel that does not know it joins all that is written.
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

    /// Sends a signal to the processes that the runner has started, and not to itself. Whether there are any.
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
