//! What a server and its engine use at a time.

use std::fmt;
use std::fs;
use std::time::Duration;

/// What one process uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) rss_kib: u64,
    pub(crate) files: u64,
    pub(crate) threads: u64,
}

/// What all of them use after so many runs.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) runs: usize,
    pub(crate) at: Duration,
    pub(crate) server: Usage,
    /// Where it is on this machine, and may be looked at.
    pub(crate) dockerd: Option<Usage>,
    pub(crate) containerd: Option<Usage>,
}

impl Sample {
    pub(crate) fn take(runs: usize, at: Duration, server: u32) -> Self {
        let by_pid_file = |path: &str| usage(fs::read_to_string(path).ok()?.trim().parse().ok()?);
        Self {
            runs,
            at,
            server: usage(server).expect("the server runs"),
            dockerd: by_pid_file("/var/run/docker.pid"),
            containerd: by_pid_file("/var/run/docker/containerd/containerd.pid")
                .or_else(|| by_pid_file("/run/containerd/containerd.pid")),
        }
    }
}

/// What a process uses. `None` if it is not on this machine, or may not be looked at.
pub(crate) fn usage(pid: u32) -> Option<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    Some(Usage { rss_kib: field("VmRSS:")?, files, threads: field("Threads:")? })
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rss_kib, files, threads } = self;
        write!(f, "{:.1} MiB, {files} files, {threads} threads", *rss_kib as f64 / 1024.0)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server {}", self.server)?;
        for (name, usage) in [("dockerd", self.dockerd), ("containerd", self.containerd)] {
            if let Some(usage) = usage {
                write!(f, "; {name} {usage}")?;
            }
        }
        Ok(())
    }
}
