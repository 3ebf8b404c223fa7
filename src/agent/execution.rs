//! One execution: feeds the runner, forwards what it writes in order, ends it at its limits.

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
use super::outcome::{self, Seen, Stop};
use super::runner::Runner;
use super::text::Decoder;
use crate::protocol::runner::{Line, Request};
use crate::protocol::{End, Event, Exception, Execute, Limits, MAX_VALUE_BYTES, Outcome, OutcomeKind, Usage};

/// Read from a pipe at once, bytes: what a pipe holds.
const CHUNK: usize = 64 * 1024;

/// In so many pieces all that a pipe holds is read: it is one chunk, or as many pages with a write in each.
const PIECES: usize = 16;

/// So many pieces of an execution's output are one write each, where writes are kept apart: nobody wants a flood told
/// write by write.
const APART: u32 = 1000;

/// Languages write a line in two pieces, its text and its end. Waiting at most this long for the rest makes them one event.
const REST_OF_LINE: Duration = Duration::from_millis(5);

/// How long code that nobody listens to any longer may go on: one that has only begun, or is about to end, would be interrupted where
/// its interpreter is on the way in or out.
const GRACE: Duration = Duration::from_millis(50);

/// How often code is interrupted that nobody listens to any longer: it may take one interrupt for something else, or not have begun
/// when the first one came.
const INTERRUPTS: usize = 5;

/// How long an interpreter has to itself to heed an interrupt, before what its code has started is interrupted too.
const HEED: Duration = Duration::from_millis(100);

/// How long the code is waited for after each.
const SETTLE: Duration = Duration::from_secs(1);

/// How long after an interrupt the next execution may begin: interpreters take note of one in their own time, also of one that came
/// just when the code had ended by itself.
const NOTICE: Duration = Duration::from_millis(100);

/// How long what was said in time is told after it.
const LATE: Duration = Duration::from_secs(1);

/// What "no limit" is on a clock that wants an instant.
const FOREVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// Runs `execute` on `runner` and sends its events; the last is [`Event::End`]. When the receiver is dropped, the code is
/// interrupted. Returns whether the runner can execute again.
pub(crate) async fn run(
    runner: &mut Runner,
    execute: Execute,
    events: mpsc::Sender<Event>,
    interrupts: mpsc::Receiver<Signal>,
    abandoned: &CancellationToken,
) -> bool {
    // Its interpreter may have taken long to start.
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
        pieces: 0,
        apart: true,
        missing: false,
        chunk: vec![0; 2 * CHUNK].into_boxed_slice(),
        events,
        interrupts,
        interrupted: None,
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
    // What was printed in time is told, even if nobody had a moment to read it; but not behind what is missing.
    let has_rest = matches!(stop, Stop::Timeout) && !execution.missing;
    if !survived {
        // Of a runner that died by itself, the children.
        runner.signal(Signal::KILL);
    }
    let seen = Seen {
        stop,
        before,
        after: cgroup::read(),
        disk_full: full_disks().into_iter().zip(full_before).any(|(is, was)| is && !was),
        wall_ms: started.elapsed().as_millis() as u64,
    };
    let end = seen.end(&limits);
    if has_rest {
        execution.deadline = Deadline::now() + LATE;
        let _ = execution.drain(runner).await;
    }
    execution.finish(end, &limits).await;
    if survived && let Some(interrupted) = execution.interrupted {
        execution.discard_until(runner, interrupted + NOTICE).await;
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

/// Why an execution is not listened to any longer.
enum Halt {
    Stop(Stop),
    HungUp,
}

/// Which of the two streams.
#[derive(Clone, Copy)]
enum Stream {
    Stdout,
    Stderr,
}

struct Execution {
    deadline: Deadline,
    /// Bytes of output still allowed.
    room: u64,
    stdout: Source,
    stderr: Source,
    events: mpsc::Sender<Event>,
    /// Signals to pass on.
    interrupts: mpsc::Receiver<Signal>,
    /// When the last of them was passed on.
    interrupted: Option<Deadline>,
    /// How many pieces have been read.
    pieces: u32,
    /// Whether writes are still kept apart.
    apart: bool,
    /// Whether something could not be told, because nobody took it in time.
    missing: bool,
    /// Where pieces are read to. Where writes are kept apart, a read that has no room for all of one would lose the rest:
    /// there is room for a page, of whatever size, behind a piece that is not full.
    chunk: Box<[u8]>,
}

/// One stream of the code's.
struct Source {
    decoder: Decoder,
    /// Whether anybody can still write to it.
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
            Ok(()) => self.listen(runner).await,
            Err(halt) => halt,
        }
    }

    async fn start(&mut self, runner: &mut Runner, execute: Execute) -> Result<(), Halt> {
        let has_stdin = execute.stdin.is_some();
        if let Some(mut stdin) = runner.stdin.take() {
            // Fed beside the run: code need not read it. Dropped at the end, which is the end of file.
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
        // Sent whole even when nobody waits for it any longer: half a request would spoil the next one.
        tokio::select! {
            biased;
            _ = runner.send(line) => Ok(()),
            // A runner that is gone is met by `listen`, which knows how to name it.
            _ = died => Ok(()),
            () = tokio::time::sleep_until(self.deadline) => Err(Halt::Stop(Stop::Timeout)),
        }
    }

    async fn listen(&mut self, runner: &mut Runner) -> Halt {
        loop {
            let step = tokio::select! {
                () = self.events.closed() => return Halt::HungUp,
                Some(signal) = self.interrupts.recv() => {
                    self.interrupted = Some(Deadline::now());
                    runner.signal(signal);
                    Ok(true)
                }
                () = tokio::time::sleep_until(self.deadline) => return self.late(runner).await,
                _ = runner.stdout.readable(), if self.stdout.open => self.read_piece(runner, Stream::Stdout, REST_OF_LINE).await,
                _ = runner.stderr.readable(), if self.stderr.open => self.read_piece(runner, Stream::Stderr, REST_OF_LINE).await,
                line = runner.lines.next() => match line {
                    Some(Ok(line)) => self.line(runner, &line).await.map(|()| true),
                    Some(Err(LinesCodecError::MaxLineLengthExceeded)) => Err(self.too_long()),
                    Some(Err(LinesCodecError::Io(err))) => Err(broken(&err)),
                    // As long as the agent holds the other end too, there is none.
                    None => Err(broken(&"it ended")),
                },
                status = runner.exit.clone() => self.died(runner, status.unwrap_or_default()).await.map(|()| true),
            };
            if let Err(halt) = step {
                return halt;
            }
            if self.apart && self.pieces > APART {
                self.apart = false;
                runner.keep_writes_apart(false);
            }
        }
    }

    /// The time is up. What has happened is heard first, for nobody may have had a moment for it: it may be the end.
    async fn late(&mut self, runner: &mut Runner) -> Halt {
        self.deadline = Deadline::now() + LATE;
        while Deadline::now() < self.deadline {
            let Some(Some(Ok(line))) = runner.lines.next().now_or_never() else { break };
            if let Err(halt) = self.line(runner, &line).await {
                return halt;
            }
        }
        if let Some(status) = runner.exit.clone().now_or_never()
            && let Err(halt) = self.died(runner, status.unwrap_or_default()).await
        {
            return halt;
        }
        Halt::Stop(Stop::Timeout)
    }

    /// Interrupts the code and waits until the runner is done with it. What it still says is for nobody. False if the
    /// runner ended instead, or did not end the code.
    async fn settle(&mut self, runner: &mut Runner) -> bool {
        if let Ok(settled) = tokio::time::timeout(GRACE, self.is_done(runner)).await {
            return settled;
        }
        let began = Deadline::now();
        // Counted, and not by a clock that goes on while the sandbox is paused.
        for _ in 0..INTERRUPTS {
            let sent = Deadline::now();
            if let Some((settled, has_children)) = self.interrupt(runner).await {
                if settled {
                    // An interpreter that was slow to heed an interrupt is as slow to heed the last one.
                    let heeded = sent + NOTICE.max(began.elapsed());
                    let ended = if has_children { Deadline::now() + NOTICE } else { heeded };
                    self.discard_until(runner, heeded.max(ended)).await;
                }
                return settled;
            }
        }
        false
    }

    /// Interrupts the interpreter, and then what the code has started: code that only waits for a child would end with that, and the
    /// interrupt come too late for it; and the child may have begun after the interrupt. `None` if the code goes on; otherwise whether the
    /// runner is done with it, and whether it had children at the last interrupt.
    async fn interrupt(&mut self, runner: &mut Runner) -> Option<(bool, bool)> {
        runner.signal_alone(Signal::INT);
        let mut settled = tokio::time::timeout(HEED, self.is_done(runner)).await.ok();
        if settled.is_none() {
            runner.signal_children(Signal::INT);
            settled = tokio::time::timeout(SETTLE, self.is_done(runner)).await.ok();
        }
        let has_children = runner.signal_children(Signal::INT);
        settled.map(|settled| (settled, has_children))
    }

    /// Discards what is still written: the code's threads and children end in their own time.
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

    async fn is_done(&mut self, runner: &mut Runner) -> bool {
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

    /// Reads and forwards one piece, for whose rest of a line it waits at most so long. False if there is nothing to read now, or ever.
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
        let patience = Deadline::now() + rest;
        while (1..CHUNK).contains(&read) && chunk[read - 1] != b'\n' {
            match read_now(pipe, &mut chunk[read..]) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    // A timer takes a millisecond, also one for no time at all.
                    let is_over = Deadline::now() >= patience;
                    if is_over || tokio::time::timeout_at(patience, pipe.readable()).await.is_err() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        // Code may close its stdout and go on. The pipe then stays readable for ever, with nothing in it.
        source.open = read > 0;
        let allowed = read.min(usize::try_from(self.room).unwrap_or(usize::MAX));
        self.room -= allowed as u64;
        let text = source.decoder.push(&chunk[..allowed]);
        self.send_text(stream, text).await?;
        if allowed < read { Err(Halt::Stop(Stop::OutputLimit)) } else { Ok(read > 0) }
    }

    /// A line of the runner's that is longer than any may be: it is beyond the room for output, unless there is more room than that.
    fn too_long(&self) -> Halt {
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

    /// Waits for a reader that is slower than the code, but not beyond the deadline.
    async fn send(&mut self, event: Event) -> Result<(), Halt> {
        match tokio::time::timeout_at(self.deadline, self.events.send(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Halt::HungUp),
            Err(_) => {
                self.missing = true;
                Err(Halt::Stop(Stop::Timeout))
            }
        }
    }

    /// Empties both streams: whoever spoke has flushed them before.
    async fn drain(&mut self, runner: &Runner) -> Result<(), Halt> {
        while self.read_piece(runner, Stream::Stdout, Duration::ZERO).await? {}
        while self.read_piece(runner, Stream::Stderr, Duration::ZERO).await? {}
        Ok(())
    }

    async fn line(&mut self, runner: &Runner, line: &str) -> Result<(), Halt> {
        let said = serde_json::from_str(line);
        match self.drain(runner).await {
            // Nobody hears it, but the runner is ready for the next one.
            Err(Halt::HungUp) if matches!(said, Ok(Line::Done(_))) => {
                discard(&runner.stdout);
                discard(&runner.stderr);
            }
            drained => drained?,
        }
        match said {
            Ok(Line::Result(output)) => {
                let size = output.counted();
                if size > self.room {
                    return Err(Halt::Stop(Stop::OutputLimit));
                }
                self.room -= size;
                self.send(Event::Output(output)).await
            }
            Ok(Line::Done(done)) => Err(Halt::Stop(Stop::Done(done))),
            Ok(Line::Ready {}) => Ok(()),
            Err(err) => Err(broken(&err)),
        }
    }

    /// The process is gone; what it still said comes first.
    async fn died(&mut self, runner: &mut Runner, status: std::process::ExitStatus) -> Result<(), Halt> {
        self.drain(runner).await?;
        let mut rest = std::mem::take(runner.lines.read_buffer_mut());
        let mut chunk = vec![0; CHUNK];
        for _ in 0..PIECES {
            let Ok(read @ 1..) = read_now(runner.lines.get_ref(), &mut chunk) else { break };
            rest.extend_from_slice(&chunk[..read]);
        }
        while let Ok(Some(line)) = runner.lines.decoder_mut().decode(&mut rest) {
            self.line(runner, &line).await?;
        }
        Err(Halt::Stop(Stop::Died(status)))
    }

    async fn finish(&mut self, end: End, limits: &Limits) {
        // The reader gets a little longer than the code: the end is worth waiting for.
        let patience = if limits.timeout_ms == 0 { 10_000 } else { limits.timeout_ms.clamp(1_000, 10_000) };
        self.deadline = Deadline::now() + Duration::from_millis(patience);
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

/// Reads what is there. The runtime's own `try_read` does not look before it has been told that there is something, and of two
/// pipes it may be told of the later write first.
fn read_now(pipe: &pipe::Receiver, chunk: &mut [u8]) -> io::Result<usize> {
    match rustix::io::read(pipe, &mut *chunk) {
        // Or it would go on saying that there is something.
        Err(Errno::AGAIN) => pipe.try_read(chunk),
        read => Ok(read?),
    }
}

/// Empties a pipe. False if nobody can write to it any more.
fn discard(pipe: &pipe::Receiver) -> bool {
    let mut chunk = vec![0; CHUNK];
    for _ in 0..PIECES {
        match read_now(pipe, &mut chunk) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(err) => return err.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}

/// A runner that says what no runner says: user code wrote to its pipe, which only harms this run.
fn broken(err: &dyn Display) -> Halt {
    Halt::Stop(Stop::Broken(Exception {
        name: "RunnerError".to_owned(),
        value: format!("the code broke its own interpreter's pipe: {err}"),
        traceback: String::new(),
    }))
}

/// Which of the writable file systems have no room, or no inode, left. The engine's own disk is not for the code to fill.
fn full_disks() -> [bool; 4] {
    ["/home/user", "/tmp", "/var/tmp", "/dev/shm"].map(|path| {
        // A file system that does not count its files, as gVisor's, has none left by its own account.
        let is_full = |fs: rustix::fs::StatFs| fs.f_bavail == 0 && fs.f_blocks > 0 || fs.f_ffree == 0 && fs.f_files > 0;
        rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == libc::TMPFS_MAGIC && is_full(fs))
    })
}
