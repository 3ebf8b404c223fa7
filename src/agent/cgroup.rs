//! Reads memory, processes and processor time from the container's control group, under cgroup v2 and v1.

use std::fs;
use std::path::{Path, PathBuf};

/// A reading of the counters. A counter that the kernel does not offer is 0.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counters {
    /// Processor time used, microseconds.
    pub(crate) cpu_us: u64,
    /// Peak memory, bytes. `None` if the kernel does not record it: under cgroup v2 before Linux 5.19.
    pub(crate) peak_memory_bytes: Option<u64>,
    /// Processes that the kernel has killed because memory ran out.
    pub(crate) oom_kills: u64,
    /// Times that the kernel refused to start a process because of the limit.
    pub(crate) refused_forks: u64,
}

/// The container's limits, and its current usage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    /// Cores that it may use, possibly a fraction; more than 0.
    pub(crate) cores: f64,
    /// Memory in use, page cache included, bytes.
    pub(crate) memory_bytes: u64,
    /// Page cache, which includes files in memory, bytes.
    pub(crate) cache_bytes: u64,
    /// Memory that it may use, bytes.
    pub(crate) memory_limit_bytes: u64,
}

/// Reads the usage of the agent's container.
pub(crate) fn usage() -> Usage {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    usage_at(Path::new("/sys/fs/cgroup"), cores as f64, field(PathBuf::from("/proc/meminfo"), "MemTotal:") * 1024)
}

/// Reads the usage from the control group at `root`. A missing limit is replaced by the machine's `cores` or
/// `memory_bytes`.
fn usage_at(root: &Path, cores: f64, memory_bytes: u64) -> Usage {
    let (quota, memory, limit, cache) = if root.join("cgroup.controllers").exists() {
        let text = fs::read_to_string(root.join("cpu.max")).unwrap_or_default();
        let quota = text.split_once(' ').and_then(|(quota, period)| ratio(quota, period));
        (quota, "memory.current", "memory.max", field(root.join("memory.stat"), "file"))
    } else {
        let read = |name| fs::read_to_string(root.join(name)).unwrap_or_default();
        let quota = ratio(&read("cpu/cpu.cfs_quota_us"), &read("cpu/cpu.cfs_period_us"));
        let cache = field(root.join("memory/memory.stat"), "cache");
        (quota, "memory/memory.usage_in_bytes", "memory/memory.limit_in_bytes", cache)
    };
    let limit = Some(number(root.join(limit))).filter(|limit| *limit > 0);
    Usage {
        cores: quota.unwrap_or(cores).min(cores).max(0.001),
        memory_bytes: number(root.join(memory)),
        cache_bytes: cache,
        memory_limit_bytes: limit.map_or(memory_bytes, |limit| limit.min(memory_bytes)),
    }
}

/// The quota in cores; `None` without a quota, when the value is `max` or negative.
fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// Reads the counters of the agent's container.
pub(crate) fn read() -> Counters {
    read_at(Path::new("/sys/fs/cgroup"))
}

fn read_at(root: &Path) -> Counters {
    if root.join("cgroup.controllers").exists() {
        return Counters {
            cpu_us: field(root.join("cpu.stat"), "usage_usec"),
            peak_memory_bytes: reading(root.join("memory.peak")),
            oom_kills: field(root.join("memory.events"), "oom_kill"),
            refused_forks: field(root.join("pids.events"), "max"),
        };
    }
    Counters {
        cpu_us: number(root.join("cpuacct/cpuacct.usage")) / 1000,
        peak_memory_bytes: reading(root.join("memory/memory.max_usage_in_bytes")),
        oom_kills: field(root.join("memory/memory.oom_control"), "oom_kill"),
        refused_forks: field(root.join("pids/pids.events"), "max"),
    }
}

fn number(path: PathBuf) -> u64 {
    reading(path).unwrap_or(0)
}

fn reading(path: PathBuf) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The value of `key` in a file of `key value` lines.
fn field(path: PathBuf, key: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    #[test]
    fn version_2_is_read() {
        let root = tempfile::tempdir().expect("a directory");
        write(root.path(), "cgroup.controllers", "cpu memory pids");
        write(root.path(), "cpu.stat", "usage_usec 42\nuser_usec 40\n");
        write(root.path(), "memory.peak", "1048576\n");
        write(root.path(), "memory.events", "low 0\noom 3\noom_kill 2\n");
        write(root.path(), "pids.events", "max 5\n");
        let counters = read_at(root.path());
        assert_eq!((counters.cpu_us, counters.peak_memory_bytes), (42, Some(1_048_576)));
        assert_eq!((counters.oom_kills, counters.refused_forks), (2, 5));
        // Older kernels have no such file.
        fs::remove_file(root.path().join("memory.peak")).expect("a file");
        assert_eq!(read_at(root.path()).peak_memory_bytes, None);
    }

    #[test]
    fn version_1_is_read() {
        let root = tempfile::tempdir().expect("a directory");
        write(root.path(), "cpuacct/cpuacct.usage", "42000\n");
        write(root.path(), "memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
        let counters = read_at(root.path());
        assert_eq!((counters.cpu_us, counters.oom_kills, counters.refused_forks), (42, 1, 0));
    }

    #[test]
    fn a_missing_limit_is_the_machines() {
        let root = tempfile::tempdir().expect("a directory");
        write(root.path(), "cgroup.controllers", "cpu memory pids");
        write(root.path(), "cpu.max", "150000 100000\n");
        write(root.path(), "memory.current", "5000\n");
        write(root.path(), "memory.max", "max\n");
        write(root.path(), "memory.stat", "anon 1\nfile 2000\n");
        let usage = usage_at(root.path(), 8.0, 1 << 30);
        let expected = Usage { cores: 1.5, memory_bytes: 5000, cache_bytes: 2000, memory_limit_bytes: 1 << 30 };
        assert_eq!(usage, expected);

        let root = tempfile::tempdir().expect("a directory");
        write(root.path(), "cpu/cpu.cfs_quota_us", "-1\n");
        write(root.path(), "cpu/cpu.cfs_period_us", "100000\n");
        write(root.path(), "memory/memory.limit_in_bytes", "4096\n");
        let usage = usage_at(root.path(), 2.0, 1 << 30);
        assert_eq!((usage.cores, usage.memory_limit_bytes), (2.0, 4096));
    }
}
