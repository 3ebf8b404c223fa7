//! Processes: started as a user, waited for, killed. As process 1 the agent also reaps what others leave behind.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getrlimit, setrlimit};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::seccomp;
use super::users::User;
use crate::protocol::TerminalSize;

/// Starts processes and tells when they end.
#[derive(Debug, Clone)]
pub(crate) struct Processes {
    waiters: Arc<Mutex<HashMap<i32, oneshot::Sender<ExitStatus>>>>,
    /// The uid of user code. What runs under another one, as root's does, is restrained.
    own: Option<u32>,
}

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Started {
    /// Its id, which is its process group's too.
    pub(crate) pid: Pid,
    /// Resolves when it has ended.
    pub(crate) exit: oneshot::Receiver<ExitStatus>,
}

impl Processes {
    /// Starts the reaper. It needs a runtime and lives as long as that does. `user` is who code runs as.
    pub(crate) fn start(user: &User) -> io::Result<Self> {
        let processes = Self { waiters: Arc::default(), own: user.ids.map(|(uid, _)| uid) };
        let mut ended = signal(SignalKind::child())?;
        let reaper = processes.clone();
        tokio::spawn(async move {
            while ended.recv().await.is_some() {
                reaper.reap();
            }
        });
        Ok(processes)
    }

    /// Starts `command` as `user`, as the leader of a process group of its own.
    pub(crate) fn spawn(&self, mut command: Command, user: &User) -> io::Result<Started> {
        command.process_group(0);
        self.spawn_leader(command, user)
    }

    /// Starts `command` as `user` with the terminal for its three streams, as the leader of a session of its own.
    #[expect(unsafe_code, reason = "only between fork and exec can a process take its terminal")]
    pub(crate) fn spawn_on(&self, terminal: &Terminal, mut command: Command, user: &User) -> io::Result<Started> {
        let end = terminal.open_end()?;
        // Programs that open their terminal by its name, as `screen` does, need it to be theirs.
        user.own_file(&end)?;
        command.stdin(Stdio::from(end.try_clone()?)).stdout(Stdio::from(end.try_clone()?)).stderr(Stdio::from(end));
        // SAFETY: after the fork of a process with threads only async-signal-safe calls are allowed. These two are
        // plain system calls that allocate nothing; descriptor 0 is the terminal by then.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            });
        }
        self.spawn_leader(command, user)
    }

    fn spawn_leader(&self, mut command: Command, user: &User) -> io::Result<Started> {
        if let Some((uid, gid)) = user.ids {
            // As root, this also drops the supplementary groups.
            command.gid(gid).uid(uid);
            if Some(uid) != self.own {
                restrain(&mut command)?;
            }
        }
        // Held until the pid is known, so that the reaper cannot meet a child that nobody waits for yet.
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        let child = spawn_first_to_go(&mut command)?;
        let pid = Pid::from_child(&child);
        let (sender, exit) = oneshot::channel();
        waiters.insert(pid.as_raw_nonzero().get(), sender);
        drop(waiters);
        Ok(Started { pid, exit })
    }

    /// Sends a signal to one process that was started here. False if it has ended: the id may be another's by now.
    pub(crate) fn signal(&self, pid: Pid, signal: Signal) -> bool {
        let waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.contains_key(&pid.as_raw_nonzero().get()) && rustix::process::kill_process(pid, signal).is_ok()
    }

    fn reap(&self) {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        let ended: Vec<(Pid, WaitStatus)> = if std::process::id() == 1 {
            std::iter::from_fn(|| rustix::process::wait(WaitOptions::NOHANG).ok().flatten()).collect()
        } else {
            // Elsewhere, as in tests, other children are other people's to wait for.
            let pids = waiters.keys().copied().filter_map(Pid::from_raw);
            pids.filter_map(|pid| rustix::process::waitpid(Some(pid), WaitOptions::NOHANG).ok().flatten()).collect()
        };
        for (pid, status) in ended {
            if let Some(waiter) = waiters.remove(&pid.as_raw_nonzero().get()) {
                let _ = waiter.send(ExitStatus::from_raw(status.as_raw()));
            }
        }
    }
}

/// Signals and timers that wait, of all processes of root in all sandboxes.
const WAITING_SIGNALS: u64 = 4096;

/// Bytes of message queues, of all processes of root in all sandboxes: half of the usual limit.
const MESSAGE_QUEUES: u64 = 400_000;

/// Takes from a process that is root, or that some other account of the image is, what it could use up for root of the host or for an
/// account of the host's. They have the same uids, and the kernel counts for these. Where it compares the count with a limit of the
/// process, that is so low here that the host's own processes, whose limits are higher, never meet it.
#[expect(unsafe_code, reason = "only between fork and exec is a process restrained and the agent not")]
fn restrain(command: &mut Command) -> io::Result<()> {
    let without_inotify = seccomp::without_inotify()?;
    // SAFETY: after the fork of a process with threads only async-signal-safe calls are allowed. These are plain system calls;
    // what the filter is made of is there already.
    unsafe {
        command.pre_exec(move || {
            lower(Resource::Sigpending, WAITING_SIGNALS)?;
            lower(Resource::Msgqueue, MESSAGE_QUEUES)?;
            seccompiler::apply_filter(&without_inotify).map_err(|_| io::ErrorKind::PermissionDenied.into())
        });
    }
    Ok(())
}

fn lower(resource: Resource, most: u64) -> io::Result<()> {
    let limit = getrlimit(resource);
    let lower = |limit: Option<u64>| Some(limit.map_or(most, |limit| limit.min(most)));
    Ok(setrlimit(resource, Rlimit { current: lower(limit.current), maximum: lower(limit.maximum) })?)
}

/// When memory runs out the kernel is to take user code first and the agent last. A child is born with that, or what it forks at
/// once would be without.
fn spawn_first_to_go(command: &mut Command) -> io::Result<Child> {
    let mut before = [0; 8];
    let own = File::options().read(true).write(true).open("/proc/self/oom_score_adj");
    let Ok((own, length)) = own.and_then(|own| own.read_at(&mut before, 0).map(|length| (own, length))) else {
        return command.spawn();
    };
    let _ = own.write_all_at(b"1000", 0);
    let child = command.spawn();
    let _ = own.write_all_at(&before[..length], 0);
    child
}

/// A terminal as its emulator sees it: what is written is typed, what is read is to be shown.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: OwnedFd,
}

impl Terminal {
    /// Makes one.
    pub(crate) fn open(size: TerminalSize) -> io::Result<Self> {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        let terminal = Self { master };
        terminal.resize(size)?;
        Ok(terminal)
    }

    /// Changes its size, of which the foreground process is told.
    pub(crate) fn resize(&self, size: TerminalSize) -> io::Result<()> {
        let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(&self.master, size)?)
    }

    /// A descriptor of its own for reading or writing; non-blocking.
    pub(crate) fn handle(&self) -> io::Result<OwnedFd> {
        self.master.try_clone()
    }

    fn open_end(&self) -> io::Result<OwnedFd> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        Ok(rustix::pty::ioctl_tiocgptpeer(&self.master, flags)?)
    }
}

/// A pipe that the agent writes and a process reads.
pub(crate) fn pipe_in() -> io::Result<(pipe::Sender, OwnedFd)> {
    let (sender, receiver) = pipe::pipe()?;
    Ok((sender, receiver.into_blocking_fd()?))
}

/// A pipe that a process writes and the agent reads.
pub(crate) fn pipe_out() -> io::Result<(OwnedFd, pipe::Receiver)> {
    let (sender, receiver) = pipe::pipe()?;
    Ok((sender.into_blocking_fd()?, receiver))
}

/// A descriptor whose readiness to be read can be awaited.
#[expect(unsafe_code, reason = "tokio cannot know whether a descriptor stays what it is")]
pub(crate) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped, which only the `AsyncFd` that owns it can do.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? })
}

/// Sends a signal to a process group. A group that is gone is not an error.
pub(crate) fn signal_group(group: Pid, signal: Signal) {
    let _ = rustix::process::kill_process_group(group, signal);
}

/// Sends a signal to one process. One that is gone is not an error.
pub(crate) fn signal_process(process: Pid, signal: Signal) {
    let _ = rustix::process::kill_process(process, signal);
}

/// The processes of a group, as far as `/proc` shows them.
pub(crate) fn members(group: Pid) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|number| group_of(*number) == Some(group)).filter_map(Pid::from_raw).collect()
}

/// The process group of a process: in `/proc/NUMBER/stat`, the third field after the name, which is in brackets and may hold any.
fn group_of(number: i32) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Pid::from_raw(fields.split_whitespace().nth(2)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_exit_of_a_process_is_told_once_it_is_reaped() {
        let user = User { name: String::new(), ids: None, home: "/".into(), confined: true };
        let processes = Processes::start(&user).expect("a reaper");
        let mut command = Command::new("sh");
        command.args(["-c", "exit 7"]);
        let started = processes.spawn(command, &user).expect("sh");
        assert_eq!(started.exit.await.expect("an end").code(), Some(7));
    }
}
