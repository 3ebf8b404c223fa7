//! Checks whether the tests were run on a host like this one.

use bollard::models::{SystemInfo, SystemVersion};

use super::{Report, or_unknown};

/// The hosts that the tests were run on, as written by `make test-hosts`.
const TABLE: &str = include_str!("../../../../docs/hosts.md");

/// The properties that make hosts alike: sandboxes may behave differently if one of them differs.
#[derive(Debug, PartialEq, Eq)]
struct Kind<'a> {
    engine: &'a str,
    /// The engine's major version.
    major: &'a str,
    /// The name of the OCI runtime.
    oci_runtime: &'a str,
    cgroups: String,
}

/// A row of the table.
#[derive(Debug)]
struct Host<'a> {
    name: &'a str,
    /// The engine's whole version.
    version: &'a str,
    kind: Kind<'a>,
    failed: u64,
}

impl<'a> Host<'a> {
    /// Parses a row of the table, such as the following one. `None` for any other line.
    ///
    /// ```text
    /// | docker-28.5 | Docker 28.5.2 (API 1.51) | runc 1.3.6, cgroup v1, kernel 6.18 | ... | 80 | 0 | 9 | DATE |
    /// ```
    fn parse(row: &'a str) -> Option<Self> {
        let cells: Vec<_> = row.trim().strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
        let [name, engine, system, .., failed, _minutes, _date] = cells[..] else { return None };
        let mut engine = engine.split(' ');
        let (engine, version) = (engine.next()?, engine.next()?);
        let oci_runtime = system.split(' ').next()?;
        let cgroups = system.split(", ").find_map(|part| part.strip_prefix("cgroup v"))?.to_owned();
        let kind = Kind { engine, major: major(version), oci_runtime, cgroups };
        Some(Self { name, version, kind, failed: failed.parse().ok()? })
    }
}

fn major(version: &str) -> &str {
    version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default()
}

/// The length of the common prefix of two versions.
fn likeness(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

pub(super) fn check(report: &mut Report, version: &SystemVersion, info: &SystemInfo) {
    check_in(TABLE, report, version, info);
}

fn check_in(table: &str, report: &mut Report, version: &SystemVersion, info: &SystemInfo) {
    let is_podman = version.components.iter().flatten().any(|component| component.name == "Podman Engine");
    let number = or_unknown(version.version.as_deref());
    let own = Kind {
        engine: if is_podman { "Podman" } else { "Docker" },
        major: major(number),
        oci_runtime: or_unknown(info.default_runtime.as_deref()),
        cgroups: info.cgroup_version.map_or_else(|| "?".to_owned(), |version| version.to_string()),
    };
    let shown = format!("{} {}, cgroup v{}, {}", own.engine, own.major, own.cgroups, own.oci_runtime);
    let alike = table.lines().filter_map(Host::parse).filter(|host| host.kind == own);
    match alike.max_by_key(|host| likeness(host.version, number)) {
        Some(host) if host.failed == 0 => {
            report.ok("tested host", format!("`{}` in docs/hosts.md is like this one: {shown}", host.name));
        }
        Some(host) => report.warning(
            "tested host",
            format!(
                "on `{}` in docs/hosts.md, which is like this one ({shown}), tests failed: {}",
                host.name, host.failed
            ),
            "docs/hosts.md names those tests; run `make test` here",
        ),
        None => report.warning(
            "tested host",
            format!("the tests were not run on a host like this one: {shown}"),
            "run `make test` here; docs/hosts.md lists the tested hosts",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::lines;
    use super::*;

    const ROWS: &str = "
| host | engine | system | made from | storage and settings | tests | passed | failed | minutes | date |
| --- | --- | --- | --- | --- | --- | ---: | ---: | ---: | --- |
| old | Docker 28.1.0 (API 1.48) | runc 1.3.6, cgroup v1, kernel 6.18 | native | overlay2 | all | 80 | 0 | 9 | 2026-11-30 |
| new | Docker 28.5.2+dfsg4 (API 1.51) | runc 1.3.6, cgroup v1, kernel 6.18 | native | overlay2 | all | 80 | 0 | 9 | 2026-11-30 |
| vm | Docker 28.5.2 (API 1.51) | crun 1.28, cgroup v2, systemd driver, kernel 7.1 | vm | overlay2 | few | 12 | 2 | 9 | 2026-11-30 |
| pod | Podman 5.4.2 (API 1.41) | runc 1.3.6, cgroup v1, kernel 6.18 | native | overlay | all | 80 | 0 | 9 | 2026-11-30 |
";

    fn shown_on(version: &str, component: &str, oci_runtime: &str, cgroups: &str) -> String {
        let version = serde_json::json!({"Version": version, "Components": [{"Name": component, "Version": version}]});
        let info = serde_json::json!({"DefaultRuntime": oci_runtime, "CgroupVersion": cgroups});
        let (version, info) = (serde_json::from_value(version).unwrap(), serde_json::from_value(info).unwrap());
        lines(|report| check_in(ROWS, report, &version, &info))
    }

    #[test]
    fn the_host_with_the_nearest_version_is_named() {
        let shown = |version| shown_on(version, "Engine", "runc", "1");
        let like = |name| {
            format!("ok   tested host: `{name}` in docs/hosts.md is like this one: Docker 28, cgroup v1, runc\n")
        };
        assert_eq!(shown("28.5.1"), like("new"));
        assert_eq!(shown("28.1.1"), like("old"));
        let podman = "ok   tested host: `pod` in docs/hosts.md is like this one: Podman 5, cgroup v1, runc\n";
        assert_eq!(shown_on("5.6.0", "Podman Engine", "runc", "1"), podman);
    }

    #[test]
    fn another_engine_version_runtime_or_cgroup_version_is_another_host() {
        let unlike =
            [("29.0.0", "Engine", "runc", "1"), ("28.5.2", "Engine", "runc", "2"), ("28.5.2", "Engine", "crun", "1")];
        for (version, component, oci_runtime, cgroups) in unlike {
            let shown = shown_on(version, component, oci_runtime, cgroups);
            let head = "warn tested host: the tests were not run on a host like this one: Docker ";
            assert!(shown.starts_with(head), "{shown}");
        }
    }

    #[test]
    fn a_host_on_which_tests_failed_is_named_with_their_number() {
        let shown = shown_on("28.5.2", "Engine", "crun", "2");
        assert!(shown.starts_with("warn tested host: on `vm` in docs/hosts.md, which is like this one"), "{shown}");
        assert!(shown.contains("tests failed: 2\n"), "{shown}");
    }

    #[test]
    fn every_row_of_the_table_is_read() {
        let rows = TABLE.lines().filter(|line| line.starts_with("| ")).count();
        let hosts: Vec<_> = TABLE.lines().filter_map(Host::parse).collect();
        // Two of these rows are the table's head and the line below it.
        assert_eq!(hosts.len() + 2, rows);
        assert!(!hosts.is_empty());
    }
}
