//! One execution: sends the code to the runner, forwards its output in order, and ends it at its limits.

use std::fmt::Display;
use std::io;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use rustix::io::Errno;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::Instant as Deadline;
use tokio_util::codec::{Decoder as _, LinesCodecError};
use tokio_util::sync::CancellationToken;

use super::cgroup;
use super::outcome::{self, Ending, Observed, Stop};
use super::runner::Runner;
use super::text::Decoder;
use crate::protocol::runner::{Line, Request};
use crate::protocol::{End, Event, Exception, Execute, Limits, MAX_VALUE_BYTES, Outcome, OutcomeKind, Usage};

/// The most bytes of one read: the capacity of a pipe.
const CHUNK: usize = 64 * 1024;

/// The number of reads that empty a full pipe: it holds one chunk, or this many pages with one write in each.
const READS_PER_PIPE: usize = 16;

/// The number of pieces after which writes are no longer kept apart. A longer output need not be one event per write.
const MAX_SEPARATE_PIECES: u32 = 1000;

/// How long to wait for the rest of a line. Languages write the text of a line and its line end separately; waiting
/// joins them into one event.
const REST_OF_LINE: Duration = Duration::from_millis(5);

/// How long code may go on after its client hung up, before it is interrupted. Code that has just begun or is about to
/// end would otherwise be interrupted while its interpreter starts or finishes the execution.
const GRACE: Duration = Duration::from_millis(50);

/// How many times code is interrupted after its client hung up. The code may handle one interrupt for another purpose,
/// or may not have begun at the first one.
const MAX_INTERRUPTS: usize = 5;

/// How long the interpreter may take to react to an interrupt, before its child processes are interrupted too.
const INTERPRETER_WAIT: Duration = Duration::from_millis(100);

/// How long to wait for the end of the code after its child processes were interrupted.
const CHILDREN_WAIT: Duration = Duration::from_secs(1);

/// The least time between an interrupt and the next execution. An interpreter may notice an interrupt with a delay,
/// even one that arrived just after the code had ended by itself.
const INTERRUPT_DELAY: Duration = Duration::from_millis(100);

/// How long events that happened before the timeout are still sent after it.
const LATE: Duration = Duration::from_secs(1);

/// The timeout that stands for "no limit", because the clock needs an instant.
const FOREVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// Runs `execute` on `runner` and sends its events; the last one is [`Event::End`]. When the receiver is dropped, the
/// code is interrupted. Returns whether the runner can execute again.
pub(crate) async fn run(
    runner: &mut Runner,
    execute: Execute,
    events: mpsc::Sender<Event>,
    interrupts: mpsc::Receiver<Signal>,
    abandoned: &CancellationToken,
) -> bool {
    // The client may have hung up while the interpreter started.
    if events.is_closed() {
        return true;
    }
    let started = Instant::now();
    let (before, full_before) = (cgroup::read(), full_disks());
    let limits = execute.limits;
    let timeout = if limits.timeout_ms == 0 { FOREVER } else { Duration::from_millis(limits.timeout_ms) };
    let mut execution = Execution {
        deadline: Deadline::now() + timeout.min(FOREVER),
        room: limits.output_bytes,
        stdout: Source::new(),
        stderr: Source::new(),
        full_before,
        ending: None,
        pieces: 0,
        separate_writes: true,
        missed_event: false,
        chunk: vec![0; 2 * CHUNK].into_boxed_slice(),
        events,
        interrupts,
        interrupted_at: None,
    };
    let halt = tokio::select! {
        biased;
        halt = execution.execute(runner, execute) => halt,
        () = abandoned.cancelled() => Halt::Stop(Stop::Restarted),
    };
    let stop = match halt {
        Halt::Stop(stop) => stop,
        Halt::HungUp => {
            let settled = tokio::select! {
                settled = execution.settle(runner) => settled,
                () = abandoned.cancelled() => false,
            };
            if !settled {
                runner.signal(Signal::KILL);
            }
            return settled;
        }
    };
    let survived = matches!(stop, Stop::Done(_));
    // Output that was printed before the timeout is sent, even if the agent had no time to read it before. After a
    // missed event it is not, because the output would have a gap.
    let has_rest = matches!(stop, Stop::Timeout) && !execution.missed_event;
    if !survived {
        // Also if the runner died by itself: its children may live on.
        runner.signal(Signal::KILL);
    }
    let observed = Observed {
        stop,
        ending: execution.ending.take(),
        before,
        after: cgroup::read(),
        disk_full: has_become_full(full_before),
        wall_ms: started.elapsed().as_millis() as u64,
    };
    let end = observed.end(&limits);
    if has_rest {
        execution.deadline = Deadline::now() + LATE;
        let _ = execution.drain(runner).await;
    }
    execution.send_end(end, &limits).await;
    if survived && let Some(interrupted_at) = execution.interrupted_at {
        execution.discard_until(runner, interrupted_at + INTERRUPT_DELAY).await;
    }
    survived
}

/// Ends an execution whose context was restarted or removed before its turn came.
pub(crate) async fn abandon(events: mpsc::Sender<Event>) {
    end_unstarted(events, outcome::restarted()).await;
}

/// Ends an execution that has no interpreter to run in.
pub(crate) async fn fail(events: mpsc::Sender<Event>, message: String) {
    end_unstarted(events, Outcome { kind: OutcomeKind::Infrastructure, message, limit: None }).await;
}

async fn end_unstarted(events: mpsc::Sender<Event>, outcome: Outcome) {
    let end = End { outcome, exception: None, usage: Usage::default(), lost: true };
    let _ = events.send(Event::End(end)).await;
}

/// The reason why the agent stops following an execution.
enum Halt {
    /// The execution ended, or has to end.
    Stop(Stop),
    /// The client dropped the stream of events.
    HungUp,
}

/// One of the two output streams.
#[derive(Clone, Copy)]
enum Stream {
    Stdout,
    Stderr,
}

struct Execution {
    deadline: Deadline,
    /// Bytes of output that are still allowed.
    room: u64,
    stdout: Source,
    stderr: Source,
    events: mpsc::Sender<Event>,
    /// Signals to send to the runner.
    interrupts: mpsc::Receiver<Signal>,
    /// The time at which the last of them was sent.
    interrupted_at: Option<Deadline>,
    /// Which of the writable file systems were full when the execution began.
    full_before: [bool; 4],
    /// How the code finished, if the end of its program follows.
    ending: Option<Ending>,
    /// The number of pieces that have been read.
    pieces: u32,
    /// Whether writes are still kept apart.
    separate_writes: bool,
    /// Whether an event could not be sent, because the client did not read it before the deadline.
    missed_event: bool,
    /// The buffer for pieces. Where writes are kept apart, a read into too small a buffer loses the rest of the write.
    /// The buffer is two chunks long, so that behind an incomplete chunk there is always room for a whole page of any
    /// size.
    chunk: Box<[u8]>,
}

/// One output stream of the code.
struct Source {
    decoder: Decoder,
    /// Whether a process may still write to it.
    open: bool,
}

impl Source {
    fn new() -> Self {
        Self { decoder: Decoder::default(), open: true }
    }
}

impl Execution {
    async fn execute(&mut self, runner: &mut Runner, execute: Execute) -> Halt {
        match self.start(runner, execute).await {
            Ok(()) => self.follow(runner).await,
            Err(halt) => halt,
        }
    }

    async fn start(&mut self, runner: &mut Runner, execute: Execute) -> Result<(), Halt> {
        let has_stdin = execute.stdin.is_some();
        if let Some(mut stdin) = runner.stdin.take() {
            // Written by a task of its own, because the code need not read it. Dropping `stdin` is the end of file.
            if let Some(text) = execute.stdin {
                tokio::spawn(async move { stdin.write_all(text.as_bytes()).await });
            }
        }
        let request = Request {
            code: &execute.code,
            env: &execute.env,
            cwd: execute.cwd.as_deref(),
            mode: execute.mode,
            stdin: has_stdin,
            formats: &execute.formats,
        };
        runner.keep_writes_apart(true);
        let line = serde_json::to_vec(&request).expect("strings can be written as JSON");
        let died = runner.exit.clone();
        // Sent completely even if the client hangs up: a partial request would corrupt the next one.
        tokio::select! {
            biased;
            _ = runner.send(line) => Ok(()),
            // `follow` then finds the runner's exit and reports its cause.
            _ = died => Ok(()),
            () = tokio::time::sleep_until(self.deadline) => Err(Halt::Stop(Stop::Timeout)),
        }
    }

    /// Handles everything that happens to the execution until a reason to stop.
    async fn follow(&mut self, runner: &mut Runner) -> Halt {
        loop {
            let step = tokio::select! {
                () = self.events.closed() => return Halt::HungUp,
                Some(signal) = self.interrupts.recv() => {
                    self.interrupted_at = Some(Deadline::now());
                    runner.signal(signal);
                    Ok(true)
                }
                () = tokio::time::sleep_until(self.deadline) => return self.time_is_up(runner).await,
                _ = runner.stdout.readable(), if self.stdout.open => self.read_piece(runner, Stream::Stdout, REST_OF_LINE).await,
                _ = runner.stderr.readable(), if self.stderr.open => self.read_piece(runner, Stream::Stderr, REST_OF_LINE).await,
                line = runner.lines.next() => match line {
                    Some(Ok(line)) => self.handle_line(runner, &line).await.map(|()| true),
                    Some(Err(LinesCodecError::MaxLineLengthExceeded)) => Err(self.line_too_long()),
                    Some(Err(LinesCodecError::Io(err))) => Err(broken(&err)),
                    // Should not happen: the agent itself holds the other end open.
                    None => Err(broken(&"it ended")),
                },
                status = runner.exit.clone() => {
                    self.handle_exit(runner, status.unwrap_or_default()).await.map(|()| true)
                }
            };
            if let Err(halt) = step {
                return halt;
            }
            if self.separate_writes && self.pieces > MAX_SEPARATE_PIECES {
                self.separate_writes = false;
                runner.keep_writes_apart(false);
            }
        }
    }

    /// Handles the timeout. The lines and the exit that came before it are handled first, because one of them may be
    /// the end and a busy agent may not have read it yet.
    async fn time_is_up(&mut self, runner: &mut Runner) -> Halt {
        self.deadline = Deadline::now() + LATE;
        while Deadline::now() < self.deadline {
            let Some(Some(Ok(line))) = runner.lines.next().now_or_never() else { break };
            if let Err(halt) = self.handle_line(runner, &line).await {
                return halt;
            }
        }
        if let Some(status) = runner.exit.clone().now_or_never()
            && let Err(halt) = self.handle_exit(runner, status.unwrap_or_default()).await
        {
            return halt;
        }
        Halt::Stop(Stop::Timeout)
    }

    /// Interrupts the code and waits until the runner is done with it. The output meanwhile is discarded. False if the
    /// runner exited, or the code did not end.
    async fn settle(&mut self, runner: &mut Runner) -> bool {
        if let Ok(settled) = tokio::time::timeout(GRACE, self.wait_until_done(runner)).await {
            return settled;
        }
        let began = Deadline::now();
        // A number of attempts instead of a total time, because the clock goes on while the sandbox is paused.
        for _ in 0..MAX_INTERRUPTS {
            let interrupted_at = Deadline::now();
            if let Some((settled, has_children)) = self.interrupt(runner).await {
                if settled {
                    // An interpreter that reacted late to the first interrupt may be as late to notice the last one.
                    let noticed = interrupted_at + INTERRUPT_DELAY.max(began.elapsed());
                    let children_ended = if has_children { Deadline::now() + INTERRUPT_DELAY } else { noticed };
                    self.discard_until(runner, noticed.max(children_ended)).await;
                }
                return settled;
            }
        }
        false
    }

    /// Interrupts the interpreter first and the code's child processes afterwards. If both were interrupted at once,
    /// code that waits for a child would end with the child before its own interrupt arrives. The children are
    /// interrupted once more at the end, because one may have started after the interrupt. Returns `None` if the code
    /// goes on. Otherwise returns whether the runner is done with it, and whether it had children at the last
    /// interrupt.
    async fn interrupt(&mut self, runner: &mut Runner) -> Option<(bool, bool)> {
        runner.signal_alone(Signal::INT);
        let mut settled = tokio::time::timeout(INTERPRETER_WAIT, self.wait_until_done(runner)).await.ok();
        if settled.is_none() {
            runner.signal_children(Signal::INT);
            settled = tokio::time::timeout(CHILDREN_WAIT, self.wait_until_done(runner)).await.ok();
        }
        let has_children = runner.signal_children(Signal::INT);
        settled.map(|settled| (settled, has_children))
    }

    /// Discards output until an instant: the code's threads and children may still write for a moment.
    async fn discard_until(&mut self, runner: &Runner, until: Deadline) {
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(until) => return,
                _ = runner.stdout.readable(), if self.stdout.open => self.stdout.open = discard(&runner.stdout),
                _ = runner.stderr.readable(), if self.stderr.open => self.stderr.open = discard(&runner.stderr),
            }
        }
    }

    /// Waits for [`Line::Done`] and discards all output. False if the runner exited or broke the protocol.
    async fn wait_until_done(&mut self, runner: &mut Runner) -> bool {
        loop {
            tokio::select! {
                line = runner.lines.next() => match line.map(|line| line.map(|line| serde_json::from_str(&line))) {
                    Some(Ok(Ok(Line::Done(_)))) => {
                        discard(&runner.stdout);
                        discard(&runner.stderr);
                        return true;
                    }
                    Some(Ok(Ok(_))) => {}
                    _ => return false,
                },
                _ = runner.stdout.readable(), if self.stdout.open => self.stdout.open = discard(&runner.stdout),
                _ = runner.stderr.readable(), if self.stderr.open => self.stderr.open = discard(&runner.stderr),
                _ = runner.exit.clone() => return false,
            }
        }
    }

    /// Reads and forwards one piece. If it does not end with a line end, waits up to `rest` for more. False if there
    /// was nothing to read, or the stream has ended.
    async fn read_piece(&mut self, runner: &Runner, stream: Stream, rest: Duration) -> Result<bool, Halt> {
        let (pipe, source) = match stream {
            Stream::Stdout => (&runner.stdout, &mut self.stdout),
            Stream::Stderr => (&runner.stderr, &mut self.stderr),
        };
        let chunk = &mut self.chunk;
        let mut read = match read_now(pipe, &mut chunk[..CHUNK]) {
            Ok(read) => read,
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(_) => 0,
        };
        self.pieces += 1;
        let rest_until = Deadline::now() + rest;
        while (1..CHUNK).contains(&read) && chunk[read - 1] != b'\n' {
            match read_now(pipe, &mut chunk[read..]) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    // Checked first, because even a timer of zero takes a millisecond.
                    let is_over = Deadline::now() >= rest_until;
                    if is_over || tokio::time::timeout_at(rest_until, pipe.readable()).await.is_err() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        // Code may close its stdout and go on. The pipe is then always readable and always at its end.
        source.open = read > 0;
        let allowed = read.min(usize::try_from(self.room).unwrap_or(usize::MAX));
        self.room -= allowed as u64;
        let text = source.decoder.push(&chunk[..allowed]);
        self.send_text(stream, text).await?;
        if allowed < read { Err(Halt::Stop(Stop::OutputLimit)) } else { Ok(read > 0) }
    }

    /// The limit that a line of more than [`MAX_VALUE_BYTES`] has hit: the output limit, if less than that was left of
    /// it, and the limit of a single value otherwise.
    fn line_too_long(&self) -> Halt {
        let has_room = self.room >= MAX_VALUE_BYTES as u64;
        Halt::Stop(if has_room { Stop::ValueLimit } else { Stop::OutputLimit })
    }

    async fn send_text(&mut self, stream: Stream, text: String) -> Result<(), Halt> {
        if text.is_empty() {
            return Ok(());
        }
        self.send(match stream {
            Stream::Stdout => Event::Stdout { text },
            Stream::Stderr => Event::Stderr { text },
        })
        .await
    }

    /// Sends an event. Waits for a client that is slower than the code, but not beyond the deadline.
    async fn send(&mut self, event: Event) -> Result<(), Halt> {
        match tokio::time::timeout_at(self.deadline, self.events.send(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Halt::HungUp),
            Err(_) => {
                self.missed_event = true;
                Err(Halt::Stop(Stop::Timeout))
            }
        }
    }

    /// Forwards everything that is in both pipes. A runner flushes its output before it writes a line.
    async fn drain(&mut self, runner: &Runner) -> Result<(), Halt> {
        while self.read_piece(runner, Stream::Stdout, Duration::ZERO).await? {}
        while self.read_piece(runner, Stream::Stderr, Duration::ZERO).await? {}
        Ok(())
    }

    /// Handles a line of the runner, after the output that came before it.
    async fn handle_line(&mut self, runner: &Runner, line: &str) -> Result<(), Halt> {
        let parsed = serde_json::from_str(line);
        match self.drain(runner).await {
            // The client is gone, but the runner is ready for the next execution: the line counts.
            Err(Halt::HungUp) if matches!(parsed, Ok(Line::Done(_))) => {
                discard(&runner.stdout);
                discard(&runner.stderr);
            }
            drained => drained?,
        }
        match parsed {
            Ok(Line::Result(output)) => {
                let size = output.counted();
                if size > self.room {
                    return Err(Halt::Stop(Stop::OutputLimit));
                }
                self.room -= size;
                self.send(Event::Output(output)).await
            }
            Ok(Line::Ending(done)) => {
                let disk_full = has_become_full(self.full_before);
                self.ending = Some(Ending { done, counters: cgroup::read(), disk_full });
                Ok(())
            }
            Ok(Line::Done(done)) => Err(Halt::Stop(Stop::Done(done))),
            Ok(Line::Ready {}) => Ok(()),
            Err(err) => Err(broken(&err)),
        }
    }

    /// Handles the runner's exit, after the output and the lines that came before it.
    async fn handle_exit(&mut self, runner: &mut Runner, status: std::process::ExitStatus) -> Result<(), Halt> {
        self.drain(runner).await?;
        let mut rest = std::mem::take(runner.lines.read_buffer_mut());
        let mut chunk = vec![0; CHUNK];
        for _ in 0..READS_PER_PIPE {
            let Ok(read @ 1..) = read_now(runner.lines.get_ref(), &mut chunk) else { break };
            rest.extend_from_slice(&chunk[..read]);
        }
        while let Ok(Some(line)) = runner.lines.decoder_mut().decode(&mut rest) {
            self.handle_line(runner, &line).await?;
        }
        Err(Halt::Stop(Stop::Died(status)))
    }

    /// Sends the rest of the text and the end.
    async fn send_end(&mut self, end: End, limits: &Limits) {
        // A slow client gets extra time to read the end.
        let extra_ms = if limits.timeout_ms == 0 { 10_000 } else { limits.timeout_ms.clamp(1_000, 10_000) };
        self.deadline = Deadline::now() + Duration::from_millis(extra_ms);
        let (stdout, stderr) = (self.stdout.decoder.finish(), self.stderr.decoder.finish());
        let texts = [(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
        for (stream, text) in texts {
            if self.send_text(stream, text).await.is_err() {
                return;
            }
        }
        let _ = self.send(Event::End(end)).await;
    }
}

/// Reads the bytes that are in the pipe now. The runtime's own `try_read` does not look before it was notified of new
/// bytes, and of two pipes it may be notified of the later write first.
fn read_now(pipe: &pipe::Receiver, chunk: &mut [u8]) -> io::Result<usize> {
    match rustix::io::read(pipe, &mut *chunk) {
        // Clears the runtime's readiness, which would otherwise stay set although the pipe is empty.
        Err(Errno::AGAIN) => pipe.try_read(chunk),
        read => Ok(read?),
    }
}

/// Empties a pipe. False if no process has it open for writing any more.
fn discard(pipe: &pipe::Receiver) -> bool {
    let mut chunk = vec![0; CHUNK];
    for _ in 0..READS_PER_PIPE {
        match read_now(pipe, &mut chunk) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(err) => return err.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}

/// A violation of the runner's protocol: user code wrote to the runner's pipe, which harms only this execution.
fn broken(err: &dyn Display) -> Halt {
    Halt::Stop(Stop::Broken(Exception {
        name: "RunnerError".to_owned(),
        value: format!("the code broke its own interpreter's pipe: {err}"),
        traceback: String::new(),
    }))
}

/// Whether a writable file system is full that was not full before.
fn has_become_full(before: [bool; 4]) -> bool {
    full_disks().into_iter().zip(before).any(|(is, was)| is && !was)
}

/// Whether each of the writable file systems has no space or no inode left. Only file systems in memory count: the
/// others are on the engine's disk, which the code cannot fill.
fn full_disks() -> [bool; 4] {
    ["/home/user", "/tmp", "/var/tmp", "/dev/shm"].map(|path| {
        // A file system that does not count inodes, such as gVisor's, reports 0 free of 0.
        let is_full = |fs: rustix::fs::StatFs| fs.f_bavail == 0 && fs.f_blocks > 0 || fs.f_ffree == 0 && fs.f_files > 0;
        rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == libc::TMPFS_MAGIC && is_full(fs))
    })
}
