//! The machine on which a report was measured.

use std::fs;
use std::process::Command;

/// One line: the date, the build, the engine, the kernel, the processors, the memory.
pub(crate) fn machine() -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.split('.').take(2).collect::<Vec<_>>().join(".");
    let docker = said("docker", &["version", "--format", "{{.Server.Version}}"]);
    let cgroups = said("docker", &["info", "--format", "cgroup v{{.CgroupVersion}}, {{.Driver}}"]);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let (version, date) = (env!("CARGO_PKG_VERSION"), said("date", &["+%F"]));
    format!(
        "{date}: oncebox {version} ({build} build), Docker {docker} ({cgroups}), kernel {kernel}, {cores} cores, {} GiB.",
        memory >> 20
    )
}
