//! The usage of a server and its engine at a point in time.

use std::fmt;
use std::fs;
use std::time::Duration;

/// The usage of one process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) rss_kib: u64,
    pub(crate) files: u64,
    pub(crate) threads: u64,
}

/// The usage of all processes after a number of runs.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) runs: usize,
    pub(crate) at: Duration,
    pub(crate) server: Usage,
    /// `None` if the engine does not run on this machine, or if its usage cannot be read.
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

/// The usage of a process. `None` if it is not on this machine, or cannot be read.
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
