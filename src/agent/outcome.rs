//! Derives the outcome of an execution from the observations around it.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::cgroup::Counters;
use crate::protocol::runner::{Cause, Done};
use crate::protocol::{End, Exception, LimitHit, Limits, MAX_VALUE_BYTES, Outcome, OutcomeKind, Usage};

/// The reason why an execution stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The runner reported that it is done.
    Done(Done),
    /// The runner's process exited.
    Died(ExitStatus),
    /// The runner violated its protocol.
    Broken(Exception),
    /// The timeout passed.
    Timeout,
    /// The output exceeded its limit.
    OutputLimit,
    /// A line of the runner exceeded [`MAX_VALUE_BYTES`].
    ValueLimit,
    /// The context was restarted or removed.
    Restarted,
}

/// How code finished, before the end of its program.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) done: Done,
    /// The counters at that time: the cause of a failure is a limit that was hit before it.
    pub(crate) counters: Counters,
    /// Whether a writable directory had become full by then.
    pub(crate) disk_full: bool,
}

/// The observations around an execution.
#[derive(Debug)]
pub(crate) struct Observed {
    /// The reason why it stopped.
    pub(crate) stop: Stop,
    /// How the code had finished, if only the program's end was left to do.
    pub(crate) ending: Option<Ending>,
    /// The counters at its beginning.
    pub(crate) before: Counters,
    /// The counters at its end.
    pub(crate) after: Counters,
    /// Whether a writable directory became full during the execution.
    pub(crate) disk_full: bool,
    /// Its duration, milliseconds.
    pub(crate) wall_ms: u64,
}

impl Observed {
    /// The end of the execution. It names the limit that caused it, if one did.
    pub(crate) fn end(self, limits: &Limits) -> End {
        let usage = Usage {
            wall_ms: self.wall_ms,
            cpu_ms: Some(self.after.cpu_us.saturating_sub(self.before.cpu_us) / 1000),
            peak_memory_bytes: self.after.peak_memory_bytes,
        };
        let lost = matches!(self.stop, Stop::Died(_) | Stop::Broken(_) | Stop::Timeout);
        let (mut counters, mut is_full) = (self.after, self.disk_full);
        let stop = match (self.stop, self.ending) {
            // What goes wrong at the end of failed code does not hide the failure.
            (Stop::Done(_) | Stop::Died(_) | Stop::Timeout, Some(failed)) if failed.done.error.is_some() => {
                (counters, is_full) = (failed.counters, failed.disk_full);
                Stop::Done(failed.done)
            }
            (Stop::Died(status), Some(ended)) if status.success() => Stop::Done(ended.done),
            (stop, _) => stop,
        };
        let had_oom_kill = counters.oom_kills > self.before.oom_kills;
        let had_refused_fork = counters.refused_forks > self.before.refused_forks;
        let (own, exception, cause) = match stop {
            Stop::Timeout => {
                return End { outcome: timeout(limits), exception: None, usage, lost: true };
            }
            Stop::OutputLimit => {
                return End { outcome: output_limit(limits), exception: None, usage, lost: true };
            }
            Stop::ValueLimit => {
                return End { outcome: value_limit(), exception: None, usage, lost: true };
            }
            Stop::Restarted => {
                return End { outcome: restarted(), exception: None, usage, lost: true };
            }
            Stop::Done(Done { error: Some(error), cause, .. }) => (exception_outcome(&error), Some(error), cause),
            Stop::Done(Done { exit_code: Some(code), .. }) => (exit(code), None, None),
            Stop::Done(_) => (ok(), None, None),
            Stop::Died(status) => (died(status), None, None),
            Stop::Broken(error) => (exception_outcome(&error), Some(error), None),
        };
        // Code that hits a limit and still succeeds has not failed. If it fails afterwards, the limit is reported as
        // the cause: the code may turn a refused or killed child process into any error of its own.
        let outcome = if own.kind == OutcomeKind::Ok {
            own
        } else if had_oom_kill || cause == Some(Cause::Memory) {
            out_of_memory(limits)
        } else if is_full || cause == Some(Cause::Disk) {
            disk_full(limits)
        } else if had_refused_fork {
            process_limit(limits)
        } else {
            own
        };
        End { outcome, exception, usage, lost }
    }
}

fn plain(kind: OutcomeKind, message: impl Into<String>) -> Outcome {
    Outcome { kind, message: message.into(), limit: None }
}

fn limited(kind: OutcomeKind, name: &str, value: u64, message: String) -> Outcome {
    Outcome { kind, message, limit: Some(LimitHit { name: name.to_owned(), value }) }
}

fn ok() -> Outcome {
    plain(OutcomeKind::Ok, "the code ran to its end")
}

fn exception_outcome(error: &Exception) -> Outcome {
    let value = error.value.lines().next().unwrap_or_default();
    let text = if value.is_empty() { error.name.clone() } else { format!("{}: {value}", error.name) };
    // Shortened, because an exception's text may be of any length.
    plain(OutcomeKind::Exception, text.chars().take(500).collect::<String>())
}

fn exit(code: i32) -> Outcome {
    if code == 0 {
        return ok();
    }
    plain(OutcomeKind::Exit, format!("the code exited with status {code}"))
}

fn died(status: ExitStatus) -> Outcome {
    match status.signal() {
        Some(signal) => plain(OutcomeKind::Signal, format!("the interpreter was killed by {}", signal_name(signal))),
        None => exit(status.code().unwrap_or(-1)),
    }
}

/// A signal's number and name: `signal 11 (SIGSEGV)`.
fn signal_name(signal: i32) -> String {
    let Some(named) = rustix::process::Signal::from_named_raw(signal) else { return format!("signal {signal}") };
    // The debug form is `"Signal::SEGV"`, and the library writes some names out in full.
    let debug = format!("{named:?}");
    let name = match debug.trim_matches('"').trim_start_matches("Signal::") {
        "ABORT" => "ABRT",
        "ALARM" => "ALRM",
        "CHILD" => "CHLD",
        "POWER" => "PWR",
        "VTALARM" => "VTALRM",
        name => name,
    };
    format!("signal {signal} (SIG{name})")
}

/// The outcome of an execution whose context was restarted or removed.
pub(crate) fn restarted() -> Outcome {
    plain(OutcomeKind::Restarted, "the context was restarted while the code ran or waited to run")
}

fn timeout(limits: &Limits) -> Outcome {
    let value = limits.timeout_ms;
    let message = format!("the code ran longer than timeout_ms = {value} and was stopped; do less, or allow more time");
    limited(OutcomeKind::Timeout, "timeout_ms", value, message)
}

fn output_limit(limits: &Limits) -> Outcome {
    let value = limits.output_bytes;
    let message = format!("the code wrote more than output_bytes = {value} and was stopped; print less");
    limited(OutcomeKind::OutputLimit, "output_bytes", value, message)
}

fn value_limit() -> Outcome {
    let value = MAX_VALUE_BYTES as u64;
    let message = format!(
        "a single value, display or error message of the code was larger than value_bytes = {value} and could not be sent; \
         print it in pieces, or write it to a file"
    );
    limited(OutcomeKind::OutputLimit, "value_bytes", value, message)
}

fn out_of_memory(limits: &Limits) -> Outcome {
    let value = limits.memory_bytes;
    let message = format!("the code needed more than memory_bytes = {value}; files it wrote count too");
    limited(OutcomeKind::OutOfMemory, "memory_bytes", value, message)
}

fn disk_full(limits: &Limits) -> Outcome {
    let value = limits.disk_bytes;
    let message = format!("the code filled the writable disk: disk_bytes = {value} in each writable directory");
    limited(OutcomeKind::DiskFull, "disk_bytes", value, message)
}

fn process_limit(limits: &Limits) -> Outcome {
    let value = limits.processes;
    let message = format!("the code started more than processes = {value} processes and threads");
    limited(OutcomeKind::ProcessLimit, "processes", value, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { timeout_ms: 1, memory_bytes: 2, processes: 3, disk_bytes: 4, output_bytes: 5 };

    fn observed(stop: Stop) -> Observed {
        let counters = Counters::default();
        Observed { stop, ending: None, before: counters, after: counters, disk_full: false, wall_ms: 0 }
    }

    fn raised_by(value: &str) -> Done {
        let error = Exception { name: "E".into(), value: value.into(), traceback: String::new() };
        Done { error: Some(error), ..Done::default() }
    }

    fn raised(value: &str) -> Stop {
        Stop::Done(raised_by(value))
    }

    fn kind(observed: Observed) -> OutcomeKind {
        observed.end(&LIMITS).outcome.kind
    }

    #[test]
    fn ends_that_the_code_itself_causes() {
        assert_eq!(kind(observed(Stop::Done(Done::default()))), OutcomeKind::Ok);
        assert_eq!(kind(observed(raised("no"))), OutcomeKind::Exception);
        assert_eq!(kind(observed(Stop::Done(Done { exit_code: Some(3), ..Done::default() }))), OutcomeKind::Exit);
        assert_eq!(kind(observed(Stop::Done(Done { exit_code: Some(0), ..Done::default() }))), OutcomeKind::Ok);
        assert_eq!(kind(observed(Stop::Died(ExitStatus::from_raw(3 << 8)))), OutcomeKind::Exit);
        let killed = observed(Stop::Died(ExitStatus::from_raw(11))).end(&LIMITS).outcome;
        assert_eq!(killed.message, "the interpreter was killed by signal 11 (SIGSEGV)");
        assert_eq!(killed.kind, OutcomeKind::Signal);
    }

    #[test]
    fn a_limit_is_named_with_its_value() {
        let mut oom = observed(Stop::Died(ExitStatus::from_raw(9)));
        oom.after.oom_kills = 1;
        let outcome = oom.end(&LIMITS).outcome;
        assert_eq!(outcome.kind, OutcomeKind::OutOfMemory);
        assert_eq!(outcome.limit, Some(LimitHit { name: "memory_bytes".into(), value: 2 }));

        let mut forks = observed(raised("try again"));
        forks.after.refused_forks = 9;
        assert_eq!(kind(forks), OutcomeKind::ProcessLimit);
        let done = |cause| Stop::Done(Done { cause, ..raised_by("[Errno 28] No space left on device") });
        assert_eq!(kind(observed(done(Some(Cause::Disk)))), OutcomeKind::DiskFull);
        assert_eq!(kind(observed(done(Some(Cause::Memory)))), OutcomeKind::OutOfMemory);
        // The text of the error alone does not make it a limit.
        assert_eq!(kind(observed(done(None))), OutcomeKind::Exception);
        assert_eq!(kind(observed(Stop::Timeout)), OutcomeKind::Timeout);
        assert_eq!(kind(observed(Stop::OutputLimit)), OutcomeKind::OutputLimit);
        let value = observed(Stop::ValueLimit).end(&LIMITS).outcome;
        assert_eq!(value.kind, OutcomeKind::OutputLimit);
        assert_eq!(value.limit, Some(LimitHit { name: "value_bytes".into(), value: 48 << 20 }));
    }

    #[test]
    fn a_limit_that_the_code_coped_with_is_not_an_end() {
        let mut coped = observed(Stop::Done(Done::default()));
        coped.after = Counters { oom_kills: 1, refused_forks: 1, ..Counters::default() };
        coped.disk_full = true;
        assert_eq!(kind(coped), OutcomeKind::Ok);
    }

    #[test]
    fn a_failure_is_not_hidden_by_the_end_of_the_program() {
        let ended = |done| Some(Ending { done, counters: Counters::default(), disk_full: false });
        let ending = |stop, done| kind(Observed { ending: ended(done), ..observed(stop) });
        let killed = || Stop::Died(ExitStatus::from_raw(9));
        let left = || Stop::Died(ExitStatus::from_raw(0));
        let exited = || Done { exit_code: Some(3), ..Done::default() };
        assert_eq!(ending(Stop::Timeout, raised_by("no")), OutcomeKind::Exception);
        assert_eq!(ending(killed(), raised_by("no")), OutcomeKind::Exception);
        assert_eq!(ending(left(), Done::default()), OutcomeKind::Ok);
        assert_eq!(ending(left(), exited()), OutcomeKind::Exit);
        // Code that succeeded and whose program then does not end, or ends badly, has not succeeded.
        assert_eq!(ending(Stop::Timeout, Done::default()), OutcomeKind::Timeout);
        assert_eq!(ending(Stop::Timeout, exited()), OutcomeKind::Timeout);
        assert_eq!(ending(killed(), Done::default()), OutcomeKind::Signal);
        assert_eq!(ending(Stop::OutputLimit, raised_by("no")), OutcomeKind::OutputLimit);
        // A limit that only the end of the program hit is not the cause of the failure.
        let after = Counters { oom_kills: 1, ..Counters::default() };
        let observed = Observed { ending: ended(raised_by("no")), after, disk_full: true, ..observed(raised("no")) };
        assert_eq!(kind(observed), OutcomeKind::Exception);
    }

    #[test]
    fn signals_have_the_names_of_the_manual() {
        let names =
            [(1, "HUP"), (2, "INT"), (6, "ABRT"), (11, "SEGV"), (14, "ALRM"), (17, "CHLD"), (24, "XCPU"), (31, "SYS")];
        for (number, name) in names {
            assert_eq!(signal_name(number), format!("signal {number} (SIG{name})"));
        }
        assert_eq!(signal_name(40), "signal 40");
    }

    #[test]
    fn the_message_is_one_line() {
        let outcome = observed(raised("first\nsecond")).end(&LIMITS).outcome;
        assert_eq!(outcome.message, "E: first");
    }
}
