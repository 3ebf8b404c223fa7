//! The checks of `oncebox doctor`: whether the Docker daemon answers, how it isolates containers, which limits it can
//! enforce, and whether the images are current.

mod access;
mod hosts;
mod network;
mod runc;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::{SystemInfo, SystemVersion};

use super::daemon;
use super::images::{BuildError, ImageBuilder, ImageState};
use access::Address;
pub use network::clean_up;

const GIB: u64 = 1 << 30;
/// The free disk space, bytes, below which the images do not fit, and below which the disk may soon be full.
const DISK_NEEDED: u64 = 2 * GIB;
const DISK_ADVISED: u64 = 10 * GIB;

/// The time after which the daemon counts as unreachable.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The result of a check. A later variant is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// No problem was found.
    Ok,
    /// It works, but isolation or room is less than it could be.
    Warning,
    /// It does not work, or gives access to the host.
    Failure,
}

/// The finding of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The result.
    pub status: Status,
    /// The subject of the check, in a word or two.
    pub subject: &'static str,
    /// The finding, on one line.
    pub finding: String,
    /// The remedy, unless the status is [`Status::Ok`].
    pub advice: Option<String>,
}

/// All findings, in reading order. Each displays as one line, with its advice on a second one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The findings of all checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// The status of the worst check.
    #[must_use]
    pub fn worst(&self) -> Status {
        self.checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok)
    }

    /// The exit code of the command: 1 when a check failed, or warned and `strict` is true; otherwise 0.
    #[must_use]
    pub fn exit_code(&self, strict: bool) -> u8 {
        let tolerated = if strict { Status::Ok } else { Status::Warning };
        u8::from(self.worst() > tolerated)
    }

    fn ok(&mut self, subject: &'static str, finding: impl Into<String>) {
        self.checks.push(Check { status: Status::Ok, subject, finding: finding.into(), advice: None });
    }

    fn warning(&mut self, subject: &'static str, finding: impl Into<String>, advice: impl Into<String>) {
        let (finding, advice) = (finding.into(), Some(advice.into()));
        self.checks.push(Check { status: Status::Warning, subject, finding, advice });
    }

    fn failure(&mut self, subject: &'static str, finding: impl Into<String>, advice: impl Into<String>) {
        let (finding, advice) = (finding.into(), Some(advice.into()));
        self.checks.push(Check { status: Status::Failure, subject, finding, advice });
    }
}

/// Examines the daemon that `DOCKER_HOST` names, or the local one, and the images made from `images_dir` and
/// `agent_binary`. `processors` holds each template's name and thousandths of a processor; `engine_timeout` is the
/// timeout of calls to the daemon. Starts small containers on a network of their own to try the filter of sandboxes'
/// networks, and removes them. A check that is not possible is a finding too.
pub async fn examine(
    images_dir: impl Into<PathBuf>,
    agent_binary: impl Into<PathBuf>,
    processors: &[(String, u64)],
    engine_timeout: Duration,
) -> Report {
    let mut report = Report::default();
    let address = Address::new(daemon::host_from_env());
    access::address_check(&mut report, &address);
    let connected = daemon::connect();
    let answers = async {
        let docker = connected?;
        Ok::<_, bollard::errors::Error>((docker.version().await?, docker.info().await?, docker))
    };
    let answers = tokio::time::timeout(ANSWER_TIMEOUT, answers).await;
    let (version, info, docker) = match answers.unwrap_or(Err(bollard::errors::Error::RequestTimeoutError)) {
        Ok(answers) => answers,
        Err(err) => {
            report.failure("engine", format!("no Docker at {}: {}", address.text, innermost(&err)), address.advice());
            return report;
        }
    };
    access::plain_tcp_check(&mut report, &info, access::PLAIN_TCP).await;
    engine_checks(&mut report, &address, &version, &info);
    hosts::check(&mut report, &version, &info);
    runc_checks(&mut report, &version, &info);
    limit_checks(&mut report, &info);
    processors_check(&mut report, &info, processors);
    isolation_checks(&mut report, &info);
    network::check(&mut report, docker.clone(), engine_timeout).await;
    storage_check(&mut report, &info);
    disk_check(&mut report, &address, &info);
    let images_dir = images_dir.into();
    let images = ImageBuilder::new(docker, images_dir.clone(), agent_binary.into());
    match images.state().await {
        Ok(states) => image_checks(&mut report, &states),
        Err(BuildError::Unreadable { path, source })
            if path == images_dir && source.kind() == io::ErrorKind::NotFound =>
        {
            uncompared_check(&mut report, &images_dir, &images.on_engine().await.unwrap_or_default());
        }
        Err(err) => report.failure("images", format!("{err}: {}", innermost(&err)), "check the images directory"),
    }
    report
}

fn engine_checks(report: &mut Report, address: &Address, version: &SystemVersion, info: &SystemInfo) {
    let by = if address.named { " (DOCKER_HOST)" } else { "" };
    let number = or_unknown(version.version.as_deref());
    let api = or_unknown(version.api_version.as_deref());
    report.ok("engine", format!("Docker {number} (API {api}) at {}{by}", address.text));
    let (system, kernel) = (or_unknown(info.operating_system.as_deref()), or_unknown(info.kernel_version.as_deref()));
    report.ok("host", format!("{system}, kernel {kernel}, {} processors", info.ncpu.unwrap_or(0)));
    if security_option(info, "rootless").is_some() {
        report.ok("rootless", "yes: code that escapes from a container is an ordinary user on the host");
    } else {
        report.ok("rootless", "no: the daemon is root");
    }
}

fn runc_checks(report: &mut Report, version: &SystemVersion, info: &SystemInfo) {
    let default = or_unknown(info.default_runtime.as_deref());
    let names = info.runtimes.iter().flatten();
    let mut stronger: Vec<_> = names
        .filter(|(name, runtime)| {
            let program = runtime.path.as_deref().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
            ["runsc", "kata", "crun"].iter().any(|known| name.contains(known) || program.contains(known))
        })
        .map(|(name, _)| name.as_str())
        .collect();
    stronger.sort_unstable();
    let others = if stronger.is_empty() {
        "no gVisor, Kata or crun".to_owned()
    } else {
        format!("also {}", stronger.join(", "))
    };
    report.ok("OCI runtimes", format!("{default} by default; {others}"));

    // Distributions' packages have the full version in RuncCommit, and Docker's own packages have it in the component.
    let component = version.components.iter().flatten().find(|component| component.name == "runc");
    let commit = info.runc_commit.as_ref().and_then(|commit| commit.id.as_deref()).unwrap_or_default();
    let number = component.map_or(commit, |component| component.version.as_str());
    let distribution = runc::is_distribution_build(number) || runc::is_distribution_build(commit);
    let shown = if commit.starts_with(number) && !number.is_empty() { commit } else { number };
    match runc::vulnerabilities(number) {
        Some(found) if found.is_empty() => report.ok("runc", format!("{shown}, no known container escape")),
        Some(found) => {
            let unless = if distribution { ", unless your distribution has backported the fix" } else { "" };
            let finding = format!("{shown} is vulnerable to {}{unless}", found.join(", "));
            let or_look_up =
                if distribution { " or look the numbers up in your distribution's security tracker" } else { "" };
            report.warning("runc", finding, format!("upgrade runc to {} or newer{or_look_up}", runc::ADVISED));
        }
        None if number.is_empty() && !default.contains("runc") => {}
        None => {
            let finding = format!("the version `{number}` cannot be compared with known vulnerabilities");
            report.warning("runc", finding, format!("check that `runc --version` is {} or newer", runc::ADVISED));
        }
    }
}

fn limit_checks(report: &mut Report, info: &SystemInfo) {
    let version = info.cgroup_version.map_or_else(|| "?".to_owned(), |version| version.to_string());
    let driver = info.cgroup_driver.map_or_else(|| "?".to_owned(), |driver| driver.to_string());
    report.ok("cgroups", format!("version {version}, driver {driver}"));
    let limits = [
        ("memory", info.memory_limit, Status::Failure),
        ("swap", info.swap_limit, Status::Warning),
        ("cpu", info.cpu_cfs_quota, Status::Failure),
        ("processes", info.pids_limit, Status::Failure),
    ];
    let (can, cannot): (Vec<_>, Vec<_>) = limits.into_iter().partition(|(_, supported, _)| supported == &Some(true));
    let list = |limits: &[(&'static str, _, _)]| limits.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ");
    let Some(status) = cannot.iter().map(|(.., status)| *status).max() else {
        return report.ok("limits", list(&can));
    };
    let rootless = security_option(info, "rootless").is_some();
    let advice = if rootless {
        "rootless Docker limits only with cgroups 2 and delegation: see `Limiting resources` in Docker's rootless guide"
    } else if status == Status::Warning {
        "a sandbox may swap beyond its memory; boot with `swapaccount=1`, or disable swap"
    } else {
        "enable the controllers in the kernel: boot with `cgroup_enable=memory swapaccount=1`, or use cgroups 2"
    };
    let finding = format!("this daemon cannot limit: {}", list(&cannot));
    report.checks.push(Check { status, subject: "limits", finding, advice: Some(advice.to_owned()) });
}

fn processors_check(report: &mut Report, info: &SystemInfo, templates: &[(String, u64)]) {
    let processors = info.ncpu.and_then(|processors| u64::try_from(processors).ok()).unwrap_or(0);
    match crate::engine::too_many_processors(processors, templates) {
        Some(finding) => {
            let advice = "their sandboxes start, and share the processors that exist; \
                          `cpu_millis` in `config/templates` sets the number";
            report.warning("processors", finding, advice);
        }
        None => report.ok("processors", format!("{processors}, and no template asks for more")),
    }
}

fn isolation_checks(report: &mut Report, info: &SystemInfo) {
    match security_option(info, "seccomp") {
        Some(option) if !option.contains("profile=unconfined") => {
            report.ok("seccomp", option.replace("name=seccomp,", ""))
        }
        _ => report.failure(
            "seccomp",
            "off: containers may use every system call",
            "remove `seccomp-profile` from daemon.json, or use a kernel and a Docker with seccomp",
        ),
    }
    match ["apparmor", "selinux"].into_iter().find(|name| security_option(info, name).is_some()) {
        Some(name) => report.ok("access control", name),
        None => report.warning(
            "access control",
            "neither AppArmor nor SELinux confines containers",
            "enable your distribution's; without it, containers have only seccomp, capabilities and namespaces",
        ),
    }
    if security_option(info, "userns").is_some() || security_option(info, "rootless").is_some() {
        report.ok("user namespaces", "root in a container is an unprivileged user on the host");
    } else {
        report.ok(
            "user namespaces",
            "not used: user code has a uid of `user_ids` in its container and on the host, and no capabilities",
        );
    }
}

fn storage_check(report: &mut Report, info: &SystemInfo) {
    let driver = or_unknown(info.driver.as_deref());
    match driver {
        "vfs" | "devicemapper" | "aufs" => report.warning(
            "storage",
            format!("{driver} is slow or no longer maintained"),
            "use `overlay2`: set `storage-driver` in daemon.json, and build the images again",
        ),
        _ => report.ok("storage", driver),
    }
}

/// Checks the free disk space, if the daemon is on this host.
fn disk_check(report: &mut Report, address: &Address, info: &SystemInfo) {
    let Some(root) = info.docker_root_dir.as_deref().filter(|_| address.socket().is_some()) else { return };
    // The directory of a daemon in a virtual machine does not exist on this host.
    let Ok(found) = rustix::fs::statvfs(root) else { return };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let finding = format!("{:.1} GiB free for {root}", free as f64 / GIB as f64);
    let advice = "free some space, for example with `docker system prune`";
    match free {
        free if free < DISK_NEEDED => report.failure("disk", finding, advice),
        free if free < DISK_ADVISED => report.warning("disk", finding, advice),
        _ => report.ok("disk", finding),
    }
}

fn image_checks(report: &mut Report, states: &[ImageState]) {
    if states.is_empty() {
        return report.failure(
            "images",
            "the images directory contains no image",
            "pass oncebox's `images` folder with `--images DIR`",
        );
    }
    let named = |wanted: &dyn Fn(&&ImageState) -> bool| {
        states.iter().filter(wanted).map(|state| state.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let missing = named(&|state| !state.present);
    let outdated = named(&|state| state.present && state.current == Some(false));
    let unknown = named(&|state| state.present && state.current.is_none());
    let current = named(&|state| state.present && state.current == Some(true));
    if !missing.is_empty() {
        report.failure("images", format!("missing: {missing}"), "run `oncebox images build`");
    }
    if !outdated.is_empty() {
        let finding = format!("not built from the present content of the images directory: {outdated}");
        report.warning("images", finding, "run `oncebox images build`");
    }
    if !unknown.is_empty() {
        report.ok("images", format!("present, but there is no agent binary here to compare with: {unknown}"));
    }
    if !current.is_empty() {
        report.ok("images", format!("current: {current}"));
    }
}

/// Reports the engine's images where the sources are missing, so that it is unknown whether the images are current.
fn uncompared_check(report: &mut Report, images_dir: &Path, present: &[String]) {
    let here = "where oncebox's sources are, or pass their `images` folder with `--images DIR`";
    let nothing = format!("there is no directory `{}` here to compare them with", images_dir.display());
    if present.is_empty() {
        let finding = format!("the engine has none, and {nothing}");
        return report.failure("images", finding, format!("run `oncebox images build` {here}; or `docker load` them"));
    }
    report.warning("images", format!("present: {}; {nothing}", present.join(", ")), format!("run this {here}"));
}

/// The security option with this name, such as `name=seccomp,profile=default`.
fn security_option<'a>(info: &'a SystemInfo, name: &str) -> Option<&'a str> {
    let is_named = |option: &&String| {
        let first = option.split(',').next().unwrap_or_default();
        first.strip_prefix("name=").unwrap_or(first) == name
    };
    info.security_options.iter().flatten().find(is_named).map(String::as_str)
}

fn or_unknown(text: Option<&str>) -> &str {
    text.filter(|text| !text.is_empty()).unwrap_or("unknown")
}

fn innermost(err: &dyn std::error::Error) -> String {
    let mut cause = err;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warn",
            Self::Failure => "FAIL",
        })
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<4} {}: {}", self.status, self.subject, self.finding)?;
        match &self.advice {
            Some(advice) => write!(f, "\n     -> {advice}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.checks.iter().try_for_each(|check| writeln!(f, "{check}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn lines(check: impl FnOnce(&mut Report)) -> String {
        let mut report = Report::default();
        check(&mut report);
        report.to_string()
    }

    #[test]
    fn the_worst_check_decides_and_warnings_count_as_failures_only_if_strict() {
        let mut report = Report::default();
        assert_eq!((report.worst(), report.exit_code(false), report.exit_code(true)), (Status::Ok, 0, 0));
        report.warning("disk", "little", "make room");
        report.ok("engine", "there");
        assert_eq!((report.worst(), report.exit_code(false), report.exit_code(true)), (Status::Warning, 0, 1));
        report.failure("images", "missing: one", "build it");
        assert_eq!((report.worst(), report.exit_code(false), report.exit_code(true)), (Status::Failure, 1, 1));
        assert_eq!(
            report.to_string(),
            "warn disk: little\n     -> make room\nok   engine: there\nFAIL images: missing: one\n     -> build it\n"
        );
    }

    #[test]
    fn missing_limits_are_failures_and_a_missing_swap_limit_is_a_warning() {
        let all = SystemInfo {
            memory_limit: Some(true),
            swap_limit: Some(true),
            cpu_cfs_quota: Some(true),
            pids_limit: Some(true),
            ..SystemInfo::default()
        };
        assert!(lines(|report| limit_checks(report, &all)).ends_with("ok   limits: memory, swap, cpu, processes\n"));
        let no_swap = SystemInfo { swap_limit: Some(false), ..all };
        assert!(lines(|report| limit_checks(report, &no_swap)).contains("warn limits: this daemon cannot limit: swap"));
        let shown = lines(|report| limit_checks(report, &SystemInfo { memory_limit: None, ..no_swap.clone() }));
        assert!(shown.contains("FAIL limits: this daemon cannot limit: memory, swap"), "{shown}");
    }

    #[test]
    fn templates_that_need_more_processors_than_the_host_has_are_named() {
        let asked = [("small", 1000), ("large", 2000), ("odd", 2500)].map(|(name, cpus)| (name.to_owned(), cpus));
        let found = "the engine's host has 1 processor, and templates ask for more: `large` (2), `odd` (2.5)";
        let shown =
            |ncpu| lines(|report| processors_check(report, &SystemInfo { ncpu, ..SystemInfo::default() }, &asked));
        assert_eq!(shown(Some(4)), "ok   processors: 4, and no template asks for more\n");
        assert!(shown(Some(1)).starts_with(&format!("warn processors: {found}\n     -> ")), "{}", shown(Some(1)));
    }

    #[test]
    fn a_vulnerable_runc_of_a_distribution_may_have_backported_fixes() {
        let version: SystemVersion = serde_json::from_value(serde_json::json!({
            "Components": [{"Name": "runc", "Version": "1.1.5+ds1", "Details": {"GitCommit": "1.1.5+ds1-1+deb12u1"}}]
        }))
        .unwrap();
        let shown = lines(|report| runc_checks(report, &version, &SystemInfo::default()));
        assert!(shown.contains("CVE-2025-52881, unless your distribution has backported the fix"), "{shown}");
    }

    #[test]
    fn security_options_are_found_by_name() {
        let options = ["name=seccomp,profile=unconfined", "name=apparmor"].map(str::to_owned).to_vec();
        let info = SystemInfo { security_options: Some(options), ..SystemInfo::default() };
        let shown = lines(|report| isolation_checks(report, &info));
        assert!(shown.starts_with("FAIL seccomp: off") && shown.contains("ok   access control: apparmor"), "{shown}");
    }

    #[test]
    fn images_that_cannot_be_compared_are_a_warning_and_none_are_a_failure() {
        let shown = |present: &[&str]| {
            let present: Vec<_> = present.iter().map(|name| (*name).to_owned()).collect();
            lines(|report| uncompared_check(report, Path::new("images"), &present))
        };
        assert!(
            shown(&["agent", "base"]).starts_with("warn images: present: agent, base; there is no directory `images`")
        );
        assert!(shown(&[]).starts_with("FAIL images: the engine has none"));
    }

    #[test]
    fn images_are_missing_outdated_or_current() {
        let state =
            |name: &str, present, current| ImageState { name: name.to_owned(), present, current, size_bytes: 0 };
        let states = [state("a", false, Some(false)), state("b", true, Some(false)), state("c", true, Some(true))];
        let shown = lines(|report| image_checks(report, &states));
        assert!(shown.contains("FAIL images: missing: a\n"), "{shown}");
        assert!(shown.contains("images directory: b\n") && shown.contains("ok   images: current: c\n"), "{shown}");
    }
}
