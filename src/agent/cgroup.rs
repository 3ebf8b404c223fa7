//! What the container's control group says about memory, processes and processor time, under cgroup v2 and v1.

use std::fs;
use std::path::{Path, PathBuf};

/// A reading of the counters. One that the kernel does not offer is 0.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counters {
    /// Processor time used, microseconds.
    pub(crate) cpu_us: u64,
    /// The most memory ever held, bytes.
    pub(crate) peak_memory_bytes: u64,
    /// How many processes the kernel has killed for want of memory.
    pub(crate) oom_kills: u64,
    /// How often a new process was refused.
    pub(crate) refused_forks: u64,
}

/// Reads the counters of the container the agent runs in.
pub(crate) fn read() -> Counters {
    read_at(Path::new("/sys/fs/cgroup"))
}

fn read_at(root: &Path) -> Counters {
    if root.join("cgroup.controllers").exists() {
        return Counters {
            cpu_us: field(root.join("cpu.stat"), "usage_usec"),
            peak_memory_bytes: number(root.join("memory.peak")),
            oom_kills: field(root.join("memory.events"), "oom_kill"),
            refused_forks: field(root.join("pids.events"), "max"),
        };
    }
    Counters {
        cpu_us: number(root.join("cpuacct/cpuacct.usage")) / 1000,
        peak_memory_bytes: number(root.join("memory/memory.max_usage_in_bytes")),
        oom_kills: field(root.join("memory/memory.oom_control"), "oom_kill"),
        refused_forks: field(root.join("pids/pids.events"), "max"),
    }
}

fn number(path: PathBuf) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// The value of `key` in a file of `key value` lines.
fn field(path: PathBuf, key: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
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
        assert_eq!((counters.cpu_us, counters.peak_memory_bytes), (42, 1_048_576));
        assert_eq!((counters.oom_kills, counters.refused_forks), (2, 5));
    }

    #[test]
    fn version_1_is_read() {
        let root = tempfile::tempdir().expect("a directory");
        write(root.path(), "cpuacct/cpuacct.usage", "42000\n");
        write(root.path(), "memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
        let counters = read_at(root.path());
        assert_eq!((counters.cpu_us, counters.oom_kills, counters.refused_forks), (42, 1, 0));
    }
}
