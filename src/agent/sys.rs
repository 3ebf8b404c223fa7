//! Starts processes as a user, waits for them and kills them. As process 1 the agent also reaps orphaned processes.

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

/// Starts processes and reports their ends.
#[derive(Debug, Clone)]
pub(crate) struct Processes {
    waiters: Arc<Mutex<HashMap<i32, oneshot::Sender<ExitStatus>>>>,
    /// The uid of user code. Processes with another uid, such as root's, are restrained.
    user_code_uid: Option<u32>,
}

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Started {
    /// Its id, which is also the id of its process group.
    pub(crate) pid: Pid,
    /// Resolves when it has exited.
    pub(crate) exit: oneshot::Receiver<ExitStatus>,
}

impl Processes {
    /// Starts the reaper, a task that lives as long as the runtime. `user` is the account of user code.
    pub(crate) fn start(user: &User) -> io::Result<Self> {
        let processes = Self { waiters: Arc::default(), user_code_uid: user.ids.map(|(uid, _)| uid) };
        let mut ended = signal(SignalKind::child())?;
        let reaper = processes.clone();
        tokio::spawn(async move {
            while ended.recv().await.is_some() {
                reaper.reap();
            }
        });
        Ok(processes)
    }

    /// Starts `command` as `user` and as the leader of a new process group.
    pub(crate) fn spawn(&self, mut command: Command, user: &User) -> io::Result<Started> {
        command.process_group(0);
        self.spawn_leader(command, user)
    }

    /// Starts `command` as `user` and as the leader of a new session, with the terminal as its three standard streams.
    #[expect(unsafe_code, reason = "a process can take its terminal only between fork and exec")]
    pub(crate) fn spawn_on(&self, terminal: &Terminal, mut command: Command, user: &User) -> io::Result<Started> {
        let end = terminal.open_end()?;
        // Programs that open their terminal by its name, such as `screen`, must own it.
        user.chown_file(&end)?;
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
            if Some(uid) != self.user_code_uid {
                restrain(&mut command)?;
            }
        }
        // Locked until the waiter is registered, so that the reaper cannot reap the child before.
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        let child = spawn_as_first_oom_victim(&mut command)?;
        let pid = Pid::from_child(&child);
        let (sender, exit) = oneshot::channel();
        waiters.insert(pid.as_raw_nonzero().get(), sender);
        drop(waiters);
        Ok(Started { pid, exit })
    }

    /// Sends a signal to one process that was started here. False if it has exited: its id may now belong to another
    /// process.
    pub(crate) fn signal(&self, pid: Pid, signal: Signal) -> bool {
        let waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.contains_key(&pid.as_raw_nonzero().get()) && rustix::process::kill_process(pid, signal).is_ok()
    }

    fn reap(&self) {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        let ended: Vec<(Pid, WaitStatus)> = if std::process::id() == 1 {
            std::iter::from_fn(|| rustix::process::wait(WaitOptions::NOHANG).ok().flatten()).collect()
        } else {
            // In another process, such as a test, other code waits for the other children.
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

/// The most pending signals and timers of all root processes in all sandboxes.
const MAX_PENDING_SIGNALS: u64 = 4096;

/// The most bytes in message queues of all root processes in all sandboxes: half of the usual limit.
const MAX_MESSAGE_QUEUE_BYTES: u64 = 400_000;

/// Limits the kernel resources of a process that runs as root or as another account of the image. Accounts of the host
/// have the same uids, and the kernel counts some resources per uid of the whole host, so the process could use them up
/// for the host. Where the kernel compares such a count with a limit of the calling process, that limit is set so low
/// here that the host's own processes, which have higher limits, never reach theirs.
#[expect(unsafe_code, reason = "only between fork and exec do limits apply to the process and not to the agent")]
fn restrain(command: &mut Command) -> io::Result<()> {
    let without_inotify = seccomp::without_inotify()?;
    // SAFETY: after the fork of a process with threads only async-signal-safe calls are allowed. These are plain system
    // calls, and the filter was compiled before the fork.
    unsafe {
        command.pre_exec(move || {
            lower(Resource::Sigpending, MAX_PENDING_SIGNALS)?;
            lower(Resource::Msgqueue, MAX_MESSAGE_QUEUE_BYTES)?;
            seccompiler::apply_filter(&without_inotify).map_err(|_| io::ErrorKind::PermissionDenied.into())
        });
    }
    Ok(())
}

/// Lowers the calling process's limits of a resource to `max`.
fn lower(resource: Resource, max: u64) -> io::Result<()> {
    let limit = getrlimit(resource);
    let lower = |limit: Option<u64>| Some(limit.map_or(max, |limit| limit.min(max)));
    Ok(setrlimit(resource, Rlimit { current: lower(limit.current), maximum: lower(limit.maximum) })?)
}

/// Starts a process that the kernel kills before the agent when memory runs out. The child inherits the score from the
/// agent, which changes its own for a moment: set afterwards, the score would miss processes that the child forks at
/// once.
fn spawn_as_first_oom_victim(command: &mut Command) -> io::Result<Child> {
    let mut before = [0; 8];
    let score = File::options().read(true).write(true).open("/proc/self/oom_score_adj");
    let Ok((score, length)) = score.and_then(|score| score.read_at(&mut before, 0).map(|length| (score, length)))
    else {
        return command.spawn();
    };
    let _ = score.write_all_at(b"1000", 0);
    let child = command.spawn();
    let _ = score.write_all_at(&before[..length], 0);
    child
}

/// The emulator's side of a terminal: it writes the typed input and reads the output to show.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: OwnedFd,
}

impl Terminal {
    /// Makes a terminal of this size.
    pub(crate) fn open(size: TerminalSize) -> io::Result<Self> {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        let terminal = Self { master };
        terminal.resize(size)?;
        Ok(terminal)
    }

    /// Changes its size. The kernel notifies the foreground process.
    pub(crate) fn resize(&self, size: TerminalSize) -> io::Result<()> {
        let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(&self.master, size)?)
    }

    /// A new descriptor for reading or writing; non-blocking.
    pub(crate) fn handle(&self) -> io::Result<OwnedFd> {
        self.master.try_clone()
    }

    fn open_end(&self) -> io::Result<OwnedFd> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        Ok(rustix::pty::ioctl_tiocgptpeer(&self.master, flags)?)
    }
}

/// Makes a pipe that the agent writes to and a process reads from.
pub(crate) fn pipe_in() -> io::Result<(pipe::Sender, OwnedFd)> {
    let (sender, receiver) = pipe::pipe()?;
    Ok((sender, receiver.into_blocking_fd()?))
}

/// Makes a pipe that a process writes to and the agent reads from.
pub(crate) fn pipe_out() -> io::Result<(OwnedFd, pipe::Receiver)> {
    let (sender, receiver) = pipe::pipe()?;
    Ok((sender.into_blocking_fd()?, receiver))
}

/// Registers a descriptor with the runtime, to await that it becomes readable.
#[expect(unsafe_code, reason = "tokio cannot check that the descriptor stays open and the same")]
pub(crate) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped, which only the `AsyncFd` that owns it can do.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? })
}

/// Sends a signal to a process group. A group that no longer exists is not an error.
pub(crate) fn signal_group(group: Pid, signal: Signal) {
    let _ = rustix::process::kill_process_group(group, signal);
}

/// Sends a signal to one process. A process that no longer exists is not an error.
pub(crate) fn signal_process(process: Pid, signal: Signal) {
    let _ = rustix::process::kill_process(process, signal);
}

/// The processes of a group that `/proc` shows.
pub(crate) fn members(group: Pid) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|number| group_of(*number) == Some(group)).filter_map(Pid::from_raw).collect()
}

/// The process group of a process: the third field after the name in `/proc/NUMBER/stat`. The name is in brackets and
/// may contain any characters.
fn group_of(number: i32) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Pid::from_raw(fields.split_whitespace().nth(2)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reaped_process_has_its_exit_status() {
        let user = User { name: String::new(), ids: None, home: "/".into(), confined: true };
        let processes = Processes::start(&user).expect("a reaper");
        let mut command = Command::new("sh");
        command.args(["-c", "exit 7"]);
        let started = processes.spawn(command, &user).expect("sh");
        assert_eq!(started.exit.await.expect("an end").code(), Some(7));
    }
}
