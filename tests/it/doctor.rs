//! `oncebox doctor` on engines of every kind: this machine's, with changed descriptions of itself.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixStream};

use crate::proxy::{Calls, EngineProxy, Fate};
use crate::support::{docker, eventually, oncebox};

trials![
    it_tries_the_filter_of_networks_and_leaves_nothing,
    it_leaves_nothing_on_an_engine_that_is_slow_and_says_so_once,
    it_leaves_nothing_when_it_is_ended,
    it_removes_what_one_that_was_killed_has_left,
    it_says_how_another_hosts_engine_is_reached,
    an_empty_address_is_none,
    an_engine_without_root_is_told_from_one_that_is_root,
    user_namespaces_are_told,
    the_version_of_cgroups_is_told_and_what_they_cannot_limit,
    a_socket_that_is_everybodys_gives_the_host_away,
    an_engine_that_is_spoken_to_without_tls_gives_the_host_away,
    an_engine_that_says_it_listens_without_tls_gives_the_host_away,
    an_engine_that_listens_without_tls_and_says_nothing_is_found,
];

/// This machine's engine, with changed members in its description of itself.
fn engine(changed: &Value) -> EngineProxy {
    let mut info: Value = serde_json::from_str(&docker(&["info", "--format", "{{json .}}"])).expect("JSON");
    for (name, value) in changed.as_object().expect("an object") {
        info[name] = value.clone();
    }
    let info = info.to_string();
    EngineProxy::start(
        move |_, path| match path {
            "/info" => Fate::Answer(info.clone()),
            _ => Fate::Pass,
        },
        |_| {},
    )
}

/// The output of `oncebox doctor`, and its exit code.
fn doctor(mut command: Command) -> (String, Option<i32>) {
    // Outside of the source tree.
    let directory = tempfile::tempdir().expect("a directory");
    let output = command.current_dir(directory.path()).output().expect("oncebox doctor");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    (String::from_utf8(output.stdout).expect("text"), output.status.code())
}

fn doctor_at(address: &str) -> (String, Option<i32>) {
    let mut command = oncebox();
    command.arg("doctor").env("DOCKER_HOST", address);
    doctor(command)
}

/// Checks that these lines are printed for an engine with this description, and that no other line is a failure.
fn says(changed: &Value, lines: &[&str]) {
    let (said, code) = doctor_at(&engine(changed).address());
    for line in lines {
        assert!(said.lines().any(|other| other == *line), "{line} is not in {said}");
    }
    let failures = |lines: &mut dyn Iterator<Item = &str>| lines.filter(|line| line.starts_with("FAIL ")).count();
    let failed = failures(&mut lines.iter().copied());
    assert_eq!((failures(&mut said.lines()), code), (failed, Some(i32::from(failed > 0))), "{said}");
}

/// A description with these security options in addition to seccomp.
fn with_options(options: &[&str]) -> Value {
    let options = [&["name=seccomp,profile=default"], options].concat();
    json!({"SecurityOptions": options})
}

async fn it_tries_the_filter_of_networks_and_leaves_nothing() {
    // Outside of the source tree, so that there are warnings.
    let directory = tempfile::tempdir().expect("a directory");
    let mut strict = oncebox();
    strict.args(["doctor", "--strict"]).current_dir(directory.path());
    let strict = strict.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("oncebox");
    let process = strict.id();
    let output = strict.wait_with_output().expect("its end");
    let said = String::from_utf8(output.stdout).expect("text");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(1), ""), "{said}");
    for line in ["ok   network filter: works", "warn images: present: agent, base, ", "tcp: ", " tested host: "] {
        assert!(said.contains(line), "{line} is not in {said}");
    }
    eventually("nothing is left", async || of_doctor(process).is_empty()).await;
    let help = oncebox().args(["doctor", "--help"]).output().expect("oncebox");
    let help = String::from_utf8(help.stdout).expect("text");
    assert!(help.contains("The exit code is 0 when all is well or there are warnings only"), "{help}");
}

/// The containers and networks that a process has created to test the network filter.
fn of_doctor(process: u32) -> Vec<String> {
    let listed = ["ps -a --format {{.Names}}", "network ls --format {{.Name}}"]
        .map(|command| docker(&command.split(' ').collect::<Vec<_>>()));
    let names = listed.iter().flat_map(|names| names.lines());
    // A network is named like its owner, and a container has one more word.
    let own = format!(".{process}");
    let is_own = |name: &&str| name.starts_with("oncebox-doctor.") && name.split('-').any(|part| part.ends_with(&own));
    names.filter(is_own).map(str::to_owned).collect()
}

/// Starts `oncebox doctor` on an engine on which the start of a container meets this fate; returns once that start is
/// requested. By then a network exists.
async fn begun(fate: Fate, timeout_ms: &str) -> (EngineProxy, Child) {
    let asked = Arc::<AtomicBool>::default();
    let begins = Arc::clone(&asked);
    let proxy = EngineProxy::start(
        move |method, path| match Calls::Start.include(method, path) {
            true => {
                begins.store(true, Ordering::Relaxed);
                fate.clone()
            }
            false => Fate::Pass,
        },
        |_| {},
    );
    let mut command = oncebox();
    command.arg("doctor").env("DOCKER_HOST", proxy.address()).env("ONCEBOX_ENGINE_TIMEOUT_MS", timeout_ms);
    let child = command.stdout(Stdio::piped()).spawn().expect("oncebox");
    eventually("it has begun to try", async || asked.load(Ordering::Relaxed)).await;
    (proxy, child)
}

async fn it_leaves_nothing_on_an_engine_that_is_slow_and_says_so_once() {
    let (_proxy, child) = begun(Fate::After(Duration::from_secs(10)), "5000").await;
    let process = child.id();
    let output = child.wait_with_output().expect("its end");
    let said = String::from_utf8(output.stdout).expect("text");
    let finding = "FAIL network filter: not tried: the engine did not start a network namespace within `engine_timeout_ms`\n     \
                   -> find out why the engine is slow, or raise `engine_timeout_ms`\n";
    assert!(said.contains(finding), "{said}");
    assert_eq!((output.status.code(), of_doctor(process)), (Some(1), vec![]), "{said}");
}

async fn it_leaves_nothing_when_it_is_ended() {
    let (_proxy, mut child) = begun(Fate::Never, "60000").await;
    assert_ne!(of_doctor(child.id()), Vec::<String>::new());
    let ended = Command::new("kill").arg(child.id().to_string()).status();
    assert!(ended.expect("kill").success());
    assert_eq!(child.wait().expect("its end").code(), Some(1));
    assert_eq!(of_doctor(child.id()), Vec::<String>::new());
}

async fn it_removes_what_one_that_was_killed_has_left() {
    // One owner from the second in which this test began, whose process may still run, and one from another year.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
    let process = std::process::id();
    let [new, old] = [now, 1_700_000_000].map(|second| format!("doctor.{second}.{process}"));
    for owner in [&new, &old] {
        let (label, name) = (format!("oncebox.owner={owner}"), format!("oncebox-{owner}"));
        docker(&["network", "create", "--label", &label, &name]);
        docker(&[
            "create",
            "--label",
            &label,
            "--network",
            &name,
            "--name",
            &format!("{name}-left"),
            "oncebox/agent",
            "hold",
        ]);
    }
    assert_eq!(of_doctor(process).len(), 4);
    let output = oncebox().arg("doctor").output().expect("oncebox doctor");
    let mut left = of_doctor(process);
    docker(&["rm", "--force", &format!("oncebox-{new}-left")]);
    docker(&["network", "rm", &format!("oncebox-{new}")]);
    left.sort();
    assert_eq!(left, [format!("oncebox-{new}"), format!("oncebox-{new}-left")], "{output:?}");
}

async fn it_says_how_another_hosts_engine_is_reached() {
    let (said, code) = doctor_at("ssh://user@host");
    assert_eq!(code, Some(1));
    assert!(said.starts_with("FAIL engine: no Docker at ssh://user@host: "), "{said}");
    assert!(said.contains("`ssh -L /path/docker.sock:/var/run/docker.sock HOST`"), "{said}");
}

async fn an_empty_address_is_none() {
    let (said, _) = doctor_at("");
    assert!(said.contains(" at unix:///var/run/docker.sock"), "{said}");
    assert!(!said.contains("DOCKER_HOST"), "{said}");
}

async fn an_engine_without_root_is_told_from_one_that_is_root() {
    says(&with_options(&[]), &["ok   rootless: no: the daemon is root"]);
    says(
        &with_options(&["name=rootless"]),
        &[
            "ok   rootless: yes: code that escapes from a container is an ordinary user on the host",
            "ok   user namespaces: root in a container is an unprivileged user on the host",
        ],
    );
}

async fn user_namespaces_are_told() {
    says(
        &with_options(&[]),
        &[
            "ok   user namespaces: not used: user code has a uid of `user_ids` in its container and on the host, and no capabilities",
        ],
    );
    says(
        &with_options(&["name=userns"]),
        &[
            "ok   rootless: no: the daemon is root",
            "ok   user namespaces: root in a container is an unprivileged user on the host",
        ],
    );
}

async fn the_version_of_cgroups_is_told_and_what_they_cannot_limit() {
    let mut info = json!({"CgroupVersion": "2", "CgroupDriver": "systemd", "MemoryLimit": true, "SwapLimit": true,
        "CpuCfsQuota": true, "PidsLimit": true});
    says(&info, &["ok   cgroups: version 2, driver systemd", "ok   limits: memory, swap, cpu, processes"]);
    info["SwapLimit"] = json!(false);
    says(&info, &["ok   cgroups: version 2, driver systemd", "warn limits: this daemon cannot limit: swap"]);
    // As reported by a rootless daemon without delegation.
    info["CgroupVersion"] = json!("1");
    info["CgroupDriver"] = json!("none");
    info["MemoryLimit"] = json!(false);
    info["SecurityOptions"] = with_options(&["name=rootless"])["SecurityOptions"].take();
    says(
        &info,
        &[
            "ok   cgroups: version 1, driver none",
            "FAIL limits: this daemon cannot limit: memory, swap",
            "     -> rootless Docker limits only with cgroups 2 and delegation: see `Limiting resources` in Docker's rootless guide",
        ],
    );
}

async fn a_socket_that_is_everybodys_gives_the_host_away() {
    let engine = engine(&with_options(&[]));
    let path = engine.address().trim_start_matches("unix://").to_owned();
    for (mode, finding, code) in [
        (0o600, format!("ok   socket: {path} (mode 600, uid "), 0),
        (0o666, format!("FAIL socket: everyone on this host can write to {path}, and so become root\n"), 1),
    ] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("a mode");
        let (said, ended) = doctor_at(&engine.address());
        assert!(said.starts_with(&finding), "{said}");
        assert_eq!(ended, Some(code), "{said}");
    }
}

async fn an_engine_that_is_spoken_to_without_tls_gives_the_host_away() {
    let engine = engine(&with_options(&[]));
    let path = engine.address().trim_start_matches("unix://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("tcp://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut engine = UnixStream::connect(&path).await.expect("the engine");
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut engine).await });
        }
    });
    let (said, code) = doctor_at(&address);
    let finding = format!(
        "FAIL socket: {address} is TCP without TLS: everyone who can reach the port is root on that host\n     -> use "
    );
    assert!(said.starts_with(&finding), "{said}");
    // The engine is still checked.
    assert!(said.contains(&format!(" at {address} (DOCKER_HOST)\n")), "{said}");
    assert_eq!(code, Some(1));
}

async fn an_engine_that_says_it_listens_without_tls_gives_the_host_away() {
    let mut info = with_options(&[]);
    info["Warnings"] = json!(["WARNING: No swap limit support"]);
    says(&info, &["ok   tcp: no daemon answers without TLS at 127.0.0.1:2375"]);
    let warning =
        "WARNING: API is accessible on http://0.0.0.0:4243 without encryption.\n         Access to it is root's.";
    info["Warnings"] = json!([warning]);
    says(&info, &["FAIL tcp: API is accessible on http://0.0.0.0:4243 without encryption."]);
}

async fn an_engine_that_listens_without_tls_and_says_nothing_is_found() {
    // In a network namespace of its own, where the port is free. Needs root.
    const BESIDE: &str = r#"
import http.server, subprocess, sys, threading

class Engine(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Engine)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.exit(subprocess.run([sys.argv[1], "doctor"]).returncode)
"#;
    let engine = engine(&with_options(&[]));
    let beside = |port: &str| {
        let program = oncebox();
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "ip link set lo up && exec python3 -c \"$0\" \"$@\"", BESIDE]);
        command.arg(program.get_program()).arg(port).env("DOCKER_HOST", engine.address());
        doctor(command)
    };
    let (said, code) = beside("2376");
    assert!(said.contains("ok   tcp: no daemon answers without TLS at 127.0.0.1:2375\n"), "{said}");
    assert_eq!(code, Some(0), "{said}");
    let (said, code) = beside("2375");
    let finding = "FAIL tcp: a daemon answers without TLS at 127.0.0.1:2375: every user of this host is root on the daemon's host\n";
    assert!(said.contains(finding), "{said}");
    assert_eq!(code, Some(1), "{said}");
}
