//! One execution: feeds the runner, forwards what it writes in order, ends it at its limits.

use std::io;
use std::time::{Duration, Instant};

use futures::StreamExt;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::Instant as Deadline;

use super::cgroup;
use super::contexts::Runner;
use super::outcome::{Seen, Stop};
use super::text::Decoder;
use crate::protocol::runner::{Done, Line, Request};
use crate::protocol::{Event, Exception, Execute, Limits};

/// Read from a pipe at once, bytes: what a pipe holds.
const CHUNK: usize = 64 * 1024;

/// Runs `execute` on `runner` and sends its events; the last is [`Event::End`]. When the receiver is dropped, the code is
/// interrupted.
pub(crate) async fn run(runner: &mut Runner, execute: Execute, events: mpsc::Sender<Event>) {
    let started = Instant::now();
    let before = cgroup::read();
    let limits = execute.limits;
    let mut execution = Execution {
        deadline: Deadline::now() + Duration::from_millis(limits.timeout_ms),
        room: limits.output_bytes,
        stdout: Source::new(),
        stderr: Source::new(),
        events,
    };
    let stop = match execution.start(runner, execute).await {
        Ok(()) => execution.listen(runner).await,
        Err(halt) => halt,
    };
    let stop = match stop {
        Halt::Stop(stop) => stop,
        Halt::HungUp => {
            runner.signal(Signal::INT);
            return;
        }
    };
    if matches!(stop, Stop::Timeout | Stop::OutputLimit) {
        runner.signal(Signal::KILL);
    }
    let seen = Seen {
        stop,
        before,
        after: cgroup::read(),
        disk_full: disk_is_full(),
        wall_ms: started.elapsed().as_millis() as u64,
    };
    let end = seen.end(&limits);
    execution.finish(end, &limits).await;
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
    async fn start(&mut self, runner: &mut Runner, execute: Execute) -> Result<(), Halt> {
        if let Some(mut stdin) = runner.stdin.take() {
            // Fed beside the run: code need not read it. Dropped at the end, which is the end of file.
            if let Some(text) = execute.stdin {
                tokio::spawn(async move { stdin.write_all(text.as_bytes()).await });
            }
        }
        let request = Request { code: &execute.code, env: &execute.env, cwd: None };
        let line = serde_json::to_vec(&request).expect("strings can be written as JSON");
        tokio::select! {
            // A runner that is gone is met by `listen`, which knows how to name it.
            _ = runner.send(line) => Ok(()),
            () = tokio::time::sleep_until(self.deadline) => Err(Halt::Stop(Stop::Timeout)),
            () = self.events.closed() => Err(Halt::HungUp),
        }
    }

    async fn listen(&mut self, runner: &mut Runner) -> Halt {
        loop {
            let step = tokio::select! {
                () = self.events.closed() => return Halt::HungUp,
                () = tokio::time::sleep_until(self.deadline) => return Halt::Stop(Stop::Timeout),
                _ = runner.stdout.readable(), if self.stdout.open => self.read_once(&runner.stdout, Stream::Stdout).await,
                _ = runner.stderr.readable(), if self.stderr.open => self.read_once(&runner.stderr, Stream::Stderr).await,
                line = runner.lines.next() => match line {
                    Some(Ok(line)) => self.line(runner, &line).await.map(|()| true),
                    // Longer than any line may be, or not text: what a runner does not say.
                    _ => Err(Halt::Stop(Stop::OutputLimit)),
                },
                status = runner.exit.clone() => self.died(runner, status.unwrap_or_default()).await.map(|()| true),
            };
            if let Err(halt) = step {
                return halt;
            }
        }
    }

    /// Reads and forwards one piece. False if there is nothing to read now, or ever.
    async fn read_once(&mut self, pipe: &pipe::Receiver, stream: Stream) -> Result<bool, Halt> {
        let source = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let mut chunk = vec![0; CHUNK];
        let read = match pipe.try_read(&mut chunk) {
            Ok(read) => read,
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(_) => 0,
        };
        // Code may close its stdout and go on. The pipe then stays readable for ever, with nothing in it.
        source.open = read > 0;
        let allowed = read.min(usize::try_from(self.room).unwrap_or(usize::MAX));
        self.room -= allowed as u64;
        let text = source.decoder.push(&chunk[..allowed]);
        self.send_text(stream, text).await?;
        if allowed < read { Err(Halt::Stop(Stop::OutputLimit)) } else { Ok(read > 0) }
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
            Err(_) => Err(Halt::Stop(Stop::Timeout)),
        }
    }

    /// Empties both streams: whoever spoke has flushed them before.
    async fn drain(&mut self, runner: &Runner) -> Result<(), Halt> {
        while self.read_once(&runner.stdout, Stream::Stdout).await? {}
        while self.read_once(&runner.stderr, Stream::Stderr).await? {}
        Ok(())
    }

    async fn line(&mut self, runner: &Runner, line: &str) -> Result<(), Halt> {
        self.drain(runner).await?;
        match serde_json::from_str(line) {
            Ok(Line::Result(output)) => {
                let size = line.len() as u64;
                if size > self.room {
                    return Err(Halt::Stop(Stop::OutputLimit));
                }
                self.room -= size;
                self.send(Event::Output(output)).await
            }
            Ok(Line::Done(done)) => Err(Halt::Stop(Stop::Done(done))),
            Ok(Line::Ready) => Ok(()),
            Err(err) => Err(Halt::Stop(Stop::Done(broken(&err)))),
        }
    }

    /// The process is gone; what it still said comes first.
    async fn died(&mut self, runner: &mut Runner, status: std::process::ExitStatus) -> Result<(), Halt> {
        self.drain(runner).await?;
        while let Some(Some(Ok(line))) = futures::FutureExt::now_or_never(runner.lines.next()) {
            self.line(runner, &line).await?;
        }
        Err(Halt::Stop(Stop::Died(status)))
    }

    async fn finish(&mut self, end: crate::protocol::End, limits: &Limits) {
        // The reader gets a little longer than the code: the end is worth waiting for.
        self.deadline = Deadline::now() + Duration::from_millis(limits.timeout_ms.clamp(1_000, 10_000));
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

/// A runner that says what no runner says: user code wrote to its pipe, which only harms this run.
fn broken(err: &serde_json::Error) -> Done {
    let error = Exception {
        name: "RunnerError".to_owned(),
        value: format!("the code broke its own interpreter's pipe: {err}"),
        traceback: Vec::new(),
    };
    Done { error: Some(error), ..Done::default() }
}

/// Whether a writable directory has no room, or no inode, left.
fn disk_is_full() -> bool {
    ["/home/user", "/tmp"].iter().any(|path| {
        rustix::fs::statvfs(*path).is_ok_and(|fs| fs.f_blocks > 0 && (fs.f_bavail == 0 || fs.f_favail == 0))
    })
}
