//! Processes: started as the user, waited for, killed. As process 1 the agent also reaps what others leave behind.

use std::collections::HashMap;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Gid, Pid, Signal, Uid, WaitOptions};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Who user code runs as.
#[derive(Debug, Clone)]
pub(crate) struct User {
    /// Its login name.
    pub(crate) name: String,
    /// Its uid and gid; `None` when the agent itself is not root and code runs as whoever started it.
    pub(crate) ids: Option<(u32, u32)>,
    /// Its home, which is also where code starts.
    pub(crate) home: PathBuf,
}

impl User {
    /// The account `user` of the image. An agent that is not root, as in tests without a container, has no choice.
    pub(crate) fn find() -> io::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
            let name = std::env::var("USER").unwrap_or_else(|_| "user".to_owned());
            return Ok(Self { name, ids: None, home });
        }
        // Read by hand: the C library's look-up wants plug-ins that a static program does not have.
        let passwd = std::fs::read_to_string("/etc/passwd")?;
        passwd
            .lines()
            .find_map(Self::from_passwd)
            .ok_or_else(|| io::Error::other("the image has no account named `user`"))
    }

    fn from_passwd(line: &str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| *name == "user")?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Self { name: name.to_owned(), ids: Some((uid, gid)), home: PathBuf::from(fields.nth(1)?) })
    }

    /// Does something with the rights of the user and no others. They are the calling thread's: for blocking work only.
    pub(crate) fn act<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some((uid, gid)) = self.ids else { return work() };
        set_thread_groups(&[])?;
        set_thread_res_gid(None, Gid::from_raw(gid), None)?;
        set_thread_res_uid(None, Uid::from_raw(uid), None)?;
        let done = work();
        set_thread_res_uid(None, Uid::ROOT, None).expect("root is still the saved user");
        set_thread_res_gid(None, Gid::ROOT, None).expect("root may");
        done
    }

    /// Gives a path to the user.
    pub(crate) fn own(&self, path: &std::path::Path) -> io::Result<()> {
        match self.ids {
            Some((uid, gid)) => std::os::unix::fs::lchown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }
}

/// Starts processes and tells when they end.
#[derive(Debug, Clone)]
pub(crate) struct Processes {
    waiters: Arc<Mutex<HashMap<i32, oneshot::Sender<ExitStatus>>>>,
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
    /// Starts the reaper. It needs a runtime and lives as long as that does.
    pub(crate) fn start() -> io::Result<Self> {
        let processes = Self { waiters: Arc::default() };
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
        if let Some((uid, gid)) = user.ids {
            // As root, this also drops the supplementary groups.
            command.gid(gid).uid(uid);
        }
        command.process_group(0);
        // Held until the pid is known, so that the reaper cannot meet a child that nobody waits for yet.
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let (sender, exit) = oneshot::channel();
        waiters.insert(pid.as_raw_nonzero().get(), sender);
        drop(waiters);
        // When memory runs out the kernel is to take user code first and the agent last.
        let _ = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), "1000");
        Ok(Started { pid, exit })
    }

    fn reap(&self) {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Some(waiter) = waiters.remove(&pid.as_raw_nonzero().get()) {
                let _ = waiter.send(ExitStatus::from_raw(status.as_raw()));
            }
        }
    }
}

/// Sends a signal to a process group. A group that is gone is not an error.
pub(crate) fn signal_group(group: Pid, signal: Signal) {
    let _ = rustix::process::kill_process_group(group, signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_read_from_passwd() {
        let user = User::from_passwd("user:x:1000:1001::/home/user:/bin/bash").expect("a user");
        assert_eq!((user.ids, user.home), (Some((1000, 1001)), PathBuf::from("/home/user")));
        assert!(User::from_passwd("root:x:0:0:root:/root:/bin/bash").is_none());
        assert!(User::from_passwd("user:x:many:0").is_none());
    }

    #[tokio::test]
    async fn the_exit_of_a_process_is_told_once_it_is_reaped() {
        let processes = Processes::start().expect("a reaper");
        let user = User { name: String::new(), ids: None, home: "/".into() };
        let mut command = Command::new("sh");
        command.args(["-c", "exit 7"]);
        let started = processes.spawn(command, &user).expect("sh");
        assert_eq!(started.exit.await.expect("an end").code(), Some(7));
    }
}
