//! Commands that run beside the contexts: starts, lists and signals them, writes their input, and streams their output
//! to any number of readers.

use std::future::Future;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex as StdMutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use rustix::process::{Pid, Signal};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, oneshot};
use tokio_util::sync::CancellationToken;

use super::answer::{Refused, line};
use super::broadcast::{Broadcast, Subscription};
use super::sys::{self, Processes, Terminal};
use super::users::{User, Users};
use crate::protocol::{Code, ProcessEnd, ProcessEvent, ProcessInfo, ProcessQuery, StartProcess, TerminalSize};

/// The most output in one event of a pipe, bytes.
const PIPE_CHUNK: usize = 32 * 1024;
/// The most output in one event of a terminal, bytes.
const TERMINAL_CHUNK: usize = 16 * 1024;

/// How long the end of a process can be fetched after it.
const END_KEPT: Duration = Duration::from_secs(30);

/// How long output of a process's children is awaited after the process was signalled and has exited.
const CHILD_OUTPUT_WAIT: Duration = Duration::from_millis(100);

/// All commands of this container.
#[derive(Debug)]
pub(crate) struct Commands {
    processes: Processes,
    users: Users,
    /// In the order of their starts, including those that ended less than [`END_KEPT`] ago.
    started: Arc<StdMutex<Vec<Arc<Running>>>>,
}

/// A command, with its input and its readers.
#[derive(Debug)]
pub(crate) struct Running {
    pid: Pid,
    spec: StartProcess,
    processes: Processes,
    input: Mutex<Option<pipe::Sender>>,
    terminal: Option<Terminal>,
    broadcast: Broadcast,
    /// Cancelled when it was signalled or timed out: its end then no longer waits for the output of its children.
    signalled: CancellationToken,
    /// Cancelled when its end is known.
    ended: CancellationToken,
}

impl Commands {
    pub(crate) fn new(processes: Processes, users: Users) -> Self {
        Self { processes, users, started: Arc::default() }
    }

    /// Starts a command. The subscription receives its output from the first byte on.
    pub(crate) fn start(&self, spec: StartProcess) -> Result<Subscription, Refused> {
        let user = self.users.get(spec.user.as_deref())?;
        if spec.command.is_empty() {
            return Err(Refused::invalid("the command is missing"));
        }
        let mut command = Command::new(&spec.command);
        command
            .args(&spec.args)
            .envs(self.users.environment(&user, &spec.env))
            .current_dir(user.resolve_cwd(spec.cwd.as_deref())?);
        let refused = |err: std::io::Error| {
            let err = Refused::io(format!("cannot start `{}`", spec.command), &err);
            // Here the command does not exist. `NotFound` is for a process that does not exist.
            if err.0.code == Code::NotFound { Refused::invalid(err.0.message) } else { err }
        };
        let (streams, exit) = match spec.pty {
            Some(size) => Streams::on_terminal(&self.processes, command, &user, size),
            None => Streams::on_pipes(&self.processes, command, &user, spec.stdin),
        }
        .map_err(refused)?;
        let Streams { pid, outputs, input, terminal } = streams;
        let timeout = spec.timeout_ms.map(Duration::from_millis);
        let running = Arc::new(Running {
            pid,
            spec,
            processes: self.processes.clone(),
            input: Mutex::new(input),
            terminal,
            broadcast: Broadcast::new(started(pid)),
            signalled: CancellationToken::new(),
            ended: CancellationToken::new(),
        });
        let subscription = running.broadcast.subscribe();
        self.list().push(Arc::clone(&running));
        tokio::spawn(supervise(running, outputs, exit, timeout, Arc::downgrade(&self.started)));
        Ok(subscription)
    }

    /// The commands that run.
    pub(crate) fn running(&self) -> Vec<Arc<Running>> {
        self.list().iter().filter(|running| !running.broadcast.is_over()).cloned().collect()
    }

    /// Finds the command that `query` selects, including one that ended less than [`END_KEPT`] ago.
    pub(crate) fn find(&self, query: &ProcessQuery) -> Result<Arc<Running>, Refused> {
        let is_selected = |running: &Running| match (query.pid, &query.tag) {
            (Some(pid), _) => raw(running.pid) == pid,
            (None, tag) => tag.is_some() && running.spec.tag == *tag,
        };
        // An id or a tag may have been reused: the last command with it is selected.
        let found = self.list().iter().rev().find(|running| is_selected(running)).cloned();
        found.ok_or_else(|| unknown(query))
    }

    /// Finds the command that `query` selects, if it still runs.
    pub(crate) fn find_running(&self, query: &ProcessQuery) -> Result<Arc<Running>, Refused> {
        let running = self.find(query)?;
        if running.broadcast.is_over() { Err(unknown(query)) } else { Ok(running) }
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Running>>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        for running in self.list().iter().filter(|running| !running.broadcast.is_over()) {
            sys::signal_group(running.pid, Signal::KILL);
            running.signalled.cancel();
        }
    }
}

impl Running {
    /// Streams its events from now on.
    pub(crate) fn subscribe(&self) -> Subscription {
        self.broadcast.subscribe()
    }

    /// Writes all of `body` to its standard input, and waits while the process does not read.
    pub(crate) async fn write_stdin<E>(
        &self,
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<(), Refused> {
        if self.terminal.is_some() {
            return Err(Refused::new(Code::FailedPrecondition, "the process has a terminal and no separate stdin"));
        }
        self.write(body).await
    }

    /// Types all of `body` on its terminal.
    pub(crate) async fn write_terminal<E>(
        &self,
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<(), Refused> {
        self.terminal()?;
        self.write(body).await
    }

    async fn write<E>(&self, mut body: impl Stream<Item = Result<Bytes, E>> + Unpin) -> Result<(), Refused> {
        let closed = || Refused::new(Code::FailedPrecondition, "the process's stdin is closed");
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|_| Refused::invalid("the input broke off"))?;
            // Locked for each piece, so that another request can type Ctrl-C between the pieces of a long input.
            let mut input = self.input.lock().await;
            let pipe = input.as_mut().ok_or_else(closed)?;
            tokio::select! {
                written = pipe.write_all(&chunk) => written.map_err(|_| closed())?,
                // After its end, its children may hold the other end of the pipe open without reading.
                () = self.ended.cancelled() => return Err(closed()),
            }
        }
        // A closed input is an error even if the body was empty.
        if self.input.lock().await.is_none() { Err(closed()) } else { Ok(()) }
    }

    /// Closes its standard input, which the process sees as the end of file. A terminal cannot be closed.
    pub(crate) async fn close_stdin(&self) -> Result<(), Refused> {
        if self.terminal.is_some() {
            return Err(Refused::new(Code::FailedPrecondition, "the stdin of a terminal cannot be closed"));
        }
        self.input.lock().await.take();
        Ok(())
    }

    /// Changes the size of its terminal.
    pub(crate) fn resize(&self, size: TerminalSize) -> Result<(), Refused> {
        self.terminal()?.resize(size).map_err(|err| Refused::io("cannot resize the terminal", &err))
    }

    fn terminal(&self) -> Result<&Terminal, Refused> {
        let none = || Refused::new(Code::FailedPrecondition, "the process has no terminal");
        self.terminal.as_ref().ok_or_else(none)
    }

    /// Sends a signal to the process itself.
    pub(crate) fn signal(&self, signal: i32) -> Result<(), Refused> {
        let signal = Signal::from_named_raw(signal)
            .ok_or_else(|| Refused::invalid(format!("there is no signal with the number {signal}")))?;
        // Also if the process has exited: the caller then no longer wants to wait for its children.
        self.processes.signal(self.pid, signal);
        self.signalled.cancel();
        Ok(())
    }

    /// Its id, and the request that started it.
    pub(crate) fn info(&self) -> ProcessInfo {
        ProcessInfo {
            pid: raw(self.pid),
            tag: self.spec.tag.clone(),
            command: self.spec.command.clone(),
            args: self.spec.args.clone(),
            env: self.spec.env.clone(),
            cwd: self.spec.cwd.clone(),
        }
    }
}

fn unknown(query: &ProcessQuery) -> Refused {
    match (query.pid, &query.tag) {
        (Some(pid), _) => Refused::not_found(format!("process with pid {pid} not found")),
        (None, Some(tag)) => Refused::not_found(format!("process with tag {tag} not found")),
        (None, None) => Refused::invalid("the pid or the tag of the process is missing"),
    }
}

fn raw(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

fn started(pid: Pid) -> Bytes {
    line(&ProcessEvent::Started { pid: raw(pid) })
}

/// One output of a command: its pipe, the largest chunk in bytes, and the constructor of its events.
type Output = (pipe::Receiver, usize, fn(Bytes) -> ProcessEvent);

/// The agent's ends of a started command's streams.
struct Streams {
    pid: Pid,
    outputs: Vec<Output>,
    input: Option<pipe::Sender>,
    terminal: Option<Terminal>,
}

impl Streams {
    fn on_pipes(
        processes: &Processes,
        mut command: Command,
        user: &User,
        stdin: bool,
    ) -> std::io::Result<(Self, oneshot::Receiver<ExitStatus>)> {
        let (stdout_end, stdout) = sys::pipe_out()?;
        let (stderr_end, stderr) = sys::pipe_out()?;
        let input = if stdin {
            let (input, end) = sys::pipe_in()?;
            command.stdin(Stdio::from(end));
            Some(input)
        } else {
            command.stdin(Stdio::null());
            None
        };
        command.stdout(Stdio::from(stdout_end)).stderr(Stdio::from(stderr_end));
        let started = processes.spawn(command, user)?;
        let outputs: Vec<Output> = vec![
            (stdout, PIPE_CHUNK, |data| ProcessEvent::Stdout { data }),
            (stderr, PIPE_CHUNK, |data| ProcessEvent::Stderr { data }),
        ];
        Ok((Self { pid: started.pid, outputs, input, terminal: None }, started.exit))
    }

    fn on_terminal(
        processes: &Processes,
        command: Command,
        user: &User,
        size: TerminalSize,
    ) -> std::io::Result<(Self, oneshot::Receiver<ExitStatus>)> {
        let terminal = Terminal::open(size)?;
        // `unchecked`, because a terminal is not a pipe; it is polled, read and written in the same way.
        let output = pipe::Receiver::from_owned_fd_unchecked(terminal.handle()?)?;
        let input = pipe::Sender::from_owned_fd_unchecked(terminal.handle()?)?;
        let started = processes.spawn_on(&terminal, command, user)?;
        let outputs: Vec<Output> = vec![(output, TERMINAL_CHUNK, |data| ProcessEvent::Pty { data })];
        Ok((Self { pid: started.pid, outputs, input: Some(input), terminal: Some(terminal) }, started.exit))
    }
}

/// Forwards a command's output, reports its end, and forgets it after [`END_KEPT`].
async fn supervise(
    running: Arc<Running>,
    outputs: Vec<Output>,
    exit: oneshot::Receiver<ExitStatus>,
    timeout: Option<Duration>,
    list: Weak<StdMutex<Vec<Arc<Running>>>>,
) {
    let pumps = outputs.into_iter().map(|output| pump(output, &running.broadcast));
    let (status, timed_out) = follow(&running, exit, futures::future::join_all(pumps), timeout).await;
    running.ended.cancel();
    let end = ProcessEnd { exit_code: status.code(), signal: status.signal(), timed_out };
    running.broadcast.finish(line(&ProcessEvent::Ended(end))).await;
    tokio::time::sleep(END_KEPT).await;
    if let Some(list) = list.upgrade() {
        list.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| !Arc::ptr_eq(other, &running));
    }
}

/// Waits until the process has exited and its output has ended, or need not be awaited any longer. Returns the exit
/// status, and whether the timeout killed the process.
async fn follow(
    running: &Running,
    exit: oneshot::Receiver<ExitStatus>,
    pumps: impl Future,
    timeout: Option<Duration>,
) -> (ExitStatus, bool) {
    let (mut pumps, mut exit) = (pin!(pumps), pin!(exit));
    let (mut status, mut drained, mut timed_out) = (None, false, false);
    let mut deadline = pin!(async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    });
    loop {
        tokio::select! {
            _ = &mut pumps, if !drained => drained = true,
            ended = &mut exit, if status.is_none() => status = Some(ended.unwrap_or_default()),
            () = &mut deadline, if !timed_out => {
                timed_out = true;
                running.processes.signal(running.pid, Signal::KILL);
                running.signalled.cancel();
            }
            () = running.signalled.cancelled(), if status.is_some() && !drained => {
                let _ = tokio::time::timeout(CHILD_OUTPUT_WAIT, &mut pumps).await;
                drained = true;
            }
        }
        if let (Some(status), true) = (status, drained) {
            return (status, timed_out && status.signal() == Some(Signal::KILL.as_raw()));
        }
    }
}

/// Copies one output to the subscribers until it ends.
async fn pump((pipe, size, event): Output, broadcast: &Broadcast) {
    let mut chunk = vec![0; size];
    while pipe.readable().await.is_ok() {
        match pipe.try_read(&mut chunk) {
            Ok(0) => return,
            Ok(read) => broadcast.send(|| line(&event(Bytes::copy_from_slice(&chunk[..read])))).await,
            Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => {}
            // Reading a terminal fails once no process holds it open.
            Err(_) => return,
        }
    }
}
