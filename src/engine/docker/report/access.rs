//! Checks who can reach the Docker daemon: everyone who can is root on its host.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use bollard::models::SystemInfo;
use bollard::{API_DEFAULT_VERSION, Docker};

use super::Report;
use crate::engine::docker::daemon::LOCAL;

/// The usual address of a daemon that listens without TLS.
pub(super) const PLAIN_TCP: &str = "127.0.0.1:2375";

/// The timeout of a call to a daemon on this host, seconds.
const ANSWER_TIMEOUT_S: u64 = 2;

/// The address of the daemon.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) text: String,
    /// Whether `DOCKER_HOST` names it.
    pub(super) named: bool,
}

impl Address {
    /// The address `host`, or the local daemon's.
    pub(super) fn new(host: Option<String>) -> Self {
        let named = host.is_some();
        Self { text: host.unwrap_or_else(|| LOCAL.to_owned()), named }
    }

    pub(super) fn socket(&self) -> Option<&Path> {
        self.text.strip_prefix("unix://").map(Path::new)
    }

    fn is(&self, schemes: &[&str]) -> bool {
        schemes.iter().any(|scheme| self.text.starts_with(scheme))
    }

    /// The remedy when no daemon answers at this address.
    pub(super) fn advice(&self) -> String {
        if self.is(&["ssh://", "https://"]) {
            let forward = "forward it: `ssh -L /path/docker.sock:/var/run/docker.sock HOST`";
            return format!("oncebox needs a Unix socket; for another host's, {forward}");
        }
        let how = if self.named { "is DOCKER_HOST right?" } else { "is Docker installed and started?" };
        let how = format!("{how} may this user open the socket (group `docker`)?");
        if self.named {
            return how;
        }
        // Docker's own command finds such a daemon through its context.
        format!(
            "{how} for rootless Docker, Docker Desktop or Colima, set DOCKER_HOST to what \
             `docker context inspect --format '{{{{.Endpoints.docker.Host}}}}'` prints"
        )
    }
}

/// Checks the address that this program uses.
pub(super) fn address_check(report: &mut Report, address: &Address) {
    if let Some(path) = address.socket() {
        let accounts = |file| std::fs::read_to_string(file).unwrap_or_default();
        socket_check(report, path, &accounts("/etc/group"), &accounts("/etc/passwd"));
    } else if address.is(&["tcp://", "http://"]) {
        report.failure(
            "socket",
            format!("{} is TCP without TLS: everyone who can reach the port is root on that host", address.text),
            "use a Unix socket; for another host, forward its socket: `ssh -L /path/docker.sock:/var/run/docker.sock HOST`",
        );
    }
}

fn socket_check(report: &mut Report, path: &Path, group: &str, passwd: &str) {
    // Another check reports that the engine does not answer.
    let Ok(found) = std::fs::metadata(path) else { return };
    let shown = path.display();
    if !found.file_type().is_socket() {
        return report.failure("socket", format!("{shown} is not a socket"), "correct DOCKER_HOST");
    }
    if found.mode() & 0o002 != 0 {
        let finding = format!("everyone on this host can write to {shown}, and so become root");
        return report.failure("socket", finding, format!("chmod o-rw {shown}"));
    }
    let (mode, uid, gid) = (found.mode() & 0o777, found.uid(), found.gid());
    let others = if mode & 0o020 == 0 { BTreeSet::new() } else { members(gid, group, passwd) };
    if others.is_empty() {
        return report.ok("socket", format!("{shown} (mode {mode:o}, uid {uid}, gid {gid})"));
    }
    let others = others.into_iter().collect::<Vec<_>>().join(", ");
    report.warning(
        "socket",
        format!("through its group (gid {gid}) others can write to {shown}, and so become root: {others}"),
        "remove users who do not need Docker from the group: `gpasswd --delete NAME GROUP`",
    );
}

/// The members of a group in the host's own files, except root and the user who runs this check: they know about it.
fn members<'a>(gid: u32, group: &'a str, passwd: &'a str) -> BTreeSet<&'a str> {
    let fields = |line: &'a str| line.split(':').collect::<Vec<_>>();
    let number = |text: Option<&&str>| text.and_then(|text| text.parse::<u32>().ok());
    let listed = group.lines().map(fields).filter(|line| number(line.get(2)) == Some(gid));
    let listed = listed.filter_map(|line| line.get(3).copied()).flat_map(|names| names.split(','));
    let accounts: Vec<_> = passwd.lines().map(fields).collect();
    let primary =
        accounts.iter().filter(|line| number(line.get(3)) == Some(gid)).filter_map(|line| line.first().copied());
    let own = rustix::process::getuid().as_raw();
    let is_excluded = |name: &str| {
        accounts
            .iter()
            .any(|line| line.first() == Some(&name) && number(line.get(2)).is_some_and(|uid| uid == 0 || uid == own))
    };
    listed.chain(primary).filter(|name| !name.is_empty() && !is_excluded(name)).collect()
}

/// Checks for daemons that listen without TLS: the addresses that the daemon itself warns of, and `address`.
pub(super) async fn plain_tcp_check(report: &mut Report, info: &SystemInfo, address: &str) {
    let advice =
        "remove `tcp://` from `hosts` in daemon.json and from dockerd's option `-H`, or require client certificates";
    // `WARNING: API is accessible on http://0.0.0.0:2375 without encryption.`, followed by lines of explanation.
    let warnings = info.warnings.iter().flatten().filter_map(|text| text.strip_prefix("WARNING: "));
    let mut warnings = warnings.filter(|text| text.starts_with("API is accessible on")).peekable();
    if warnings.peek().is_some() {
        for text in warnings {
            report.failure("tcp", text.lines().next().unwrap_or_default(), advice);
        }
        return;
    }
    let answer = match Docker::connect_with_http(address, ANSWER_TIMEOUT_S, API_DEFAULT_VERSION) {
        Ok(docker) => docker.ping().await,
        Err(err) => Err(err),
    };
    match answer {
        Ok(answer) if answer == "OK" => {
            let finding = format!(
                "a daemon answers without TLS at {address}: every user of this host is root on the daemon's host"
            );
            report.failure("tcp", finding, advice);
        }
        _ => report.ok("tcp", format!("no daemon answers without TLS at {address}")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::tests::lines;
    use super::*;

    #[test]
    fn tcp_and_a_socket_for_everyone_are_failures() {
        let address = Address::new(Some("tcp://127.0.0.1:2375".to_owned()));
        assert!(lines(|report| address_check(report, &address)).starts_with("FAIL socket: tcp://"));

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        for (mode, start) in [(0o600, "ok   socket"), (0o660, "ok   socket"), (0o666, "FAIL socket: everyone")] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(&path, mode).unwrap();
            let shown = lines(|report| socket_check(report, &path, "", ""));
            assert!(shown.starts_with(start), "{shown}");
        }
        let shown = lines(|report| socket_check(report, dir.path(), "", ""));
        assert!(shown.contains("is not a socket"), "{shown}");
    }

    #[test]
    fn members_of_the_sockets_group_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o660)).unwrap();
        let gid = std::fs::metadata(&path).unwrap().gid();
        let own = rustix::process::getuid().as_raw();
        let passwd = format!("root:x:0:0::/:/\nme:x:{own}:{gid}::/:/\neve:x:4001:{gid}::/:/\nbob:x:4002:4002::/:/\n");
        let shown = lines(|report| socket_check(report, &path, &format!("docker:x:{gid}:me,bob,root\n"), &passwd));
        assert!(shown.starts_with("warn socket: ") && shown.contains("and so become root: bob, eve\n"), "{shown}");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let shown = lines(|report| socket_check(report, &path, &format!("docker:x:{gid}:bob\n"), &passwd));
        assert!(shown.starts_with("ok   socket: "), "{shown}");
    }

    #[tokio::test]
    async fn a_daemon_that_answers_without_tls_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let daemon = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /_ping "));
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK").await.unwrap();
        });
        let mut report = Report::default();
        plain_tcp_check(&mut report, &SystemInfo::default(), &address).await;
        daemon.await.unwrap();
        assert!(report.to_string().starts_with("FAIL tcp: a daemon answers without TLS at"), "{report}");

        // Nothing listens there any longer.
        let mut report = Report::default();
        plain_tcp_check(&mut report, &SystemInfo::default(), &address).await;
        assert!(report.to_string().starts_with("ok   tcp: no daemon"), "{report}");

        let warning =
            "WARNING: API is accessible on http://0.0.0.0:2375 without encryption.\n         Access to the remote API";
        let info =
            SystemInfo { warnings: Some(vec!["WARNING: No swap limit".into(), warning.into()]), ..Default::default() };
        let mut report = Report::default();
        plain_tcp_check(&mut report, &info, &address).await;
        let start = "FAIL tcp: API is accessible on http://0.0.0.0:2375 without encryption.\n     ->";
        assert!(report.to_string().starts_with(start), "{report}");
    }

    #[test]
    fn advice_depends_on_the_address_that_does_not_answer() {
        let advice = |host: &str| Address::new(Some(host.to_owned())).advice();
        assert!(advice("ssh://user@host").contains("ssh -L"));
        assert!(advice("unix:///nowhere").starts_with("is DOCKER_HOST right?"));
        let local = Address::new(None).advice();
        assert!(local.starts_with("is Docker installed and started?"), "{local}");
        assert!(local.ends_with("`docker context inspect --format '{{.Endpoints.docker.Host}}'` prints"), "{local}");
    }
}
