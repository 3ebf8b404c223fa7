//! A Docker daemon of our own, in namespaces of its own, that is killed, hung, stopped and started again beneath a server, and
//! whose disk is full; and containers that somebody restarts.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Events, Server, docker, eventually};

trials![
    a_daemon_that_is_killed_restarted_or_hung_costs_its_runs_and_nothing_more,
    a_daemon_whose_disk_is_full_is_an_error_until_there_is_room,
    a_container_that_is_restarted_ends_its_run_and_is_removed,
];

/// How long the server may take to serve again when the daemon does. On two quiet cores it is a fifth of that.
const RECOVERY: Duration = Duration::from_secs(25);

/// What the daemon is to know.
const IMAGES: [&str; 2] = ["oncebox/node", "oncebox/agent"];

const ONE_WARM: (&str, &str) = ("ONCEBOX_TEMPLATES__NODE__WARM", "1");
const LIMIT: (&str, &str) = ("ONCEBOX_ENGINE_TIMEOUT_MS", "5000");

/// A daemon, with all that it starts, in namespaces that end with this.
struct Daemon {
    directory: TempDir,
    /// Its first process; all others end with it.
    namespaces: Child,
    daemon: Option<Child>,
    cgroup: String,
}

impl Daemon {
    fn start() -> Self {
        Self::start_after("true")
    }

    /// One whose disk has so much room.
    fn start_with_room(size: &str) -> Self {
        Self::start_after(&format!("mkdir \"$DATA\" && mount -t tmpfs -o size={size} none \"$DATA\""))
    }

    /// One in whose namespaces a command of the shell was run.
    fn start_after(command: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut namespaces = Command::new("unshare");
        namespaces.args(["--fork", "--pid", "--net", "--mount", "--mount-proc", "--kill-child", "sh", "-c"]);
        namespaces.arg(format!("ip link set lo up && {command} && echo ready && exec sleep infinity"));
        namespaces.env("DATA", directory.path().join("data"));
        let mut namespaces = namespaces.stdout(Stdio::piped()).spawn().expect("unshare");
        let mut ready = String::new();
        let mut said = std::io::BufReader::new(namespaces.stdout.take().expect("its output"));
        std::io::BufRead::read_line(&mut said, &mut ready).expect("its output");
        assert_eq!(ready, "ready\n", "these namespaces need root, and `ip`");
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let cgroup = format!("oncebox-test-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let mut daemon = Self { directory, namespaces, daemon: None, cgroup };
        daemon.start_again();
        let began = Instant::now();
        daemon.load(&IMAGES);
        eprintln!("images in after {:?}", began.elapsed());
        daemon
    }

    /// Starts it where there is none, and waits until it answers.
    fn start_again(&mut self) {
        // What a killed one leaves keeps the next from starting, where its number is another's by now, or nobody has looked at
        // its end: containerd ends with it.
        let _ = fs::remove_file(self.path("pid"));
        let _ = fs::remove_file(self.path("exec/containerd/containerd.pid"));
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).expect("a log");
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init(), "--pid", "--net", "--mount", "dockerd"]);
        command.args(["--data-root", &self.path("data"), "--exec-root", &self.path("exec")]);
        command.args(["--pidfile", &self.path("pid"), "--host", &self.address()]);
        command.args(["--cgroup-parent", &format!("/{}", self.cgroup)]);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.daemon = Some(command.spawn().expect("nsenter"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self
            .command(&["version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("docker")
            .success()
        {
            assert!(Instant::now() < deadline, "the daemon does not answer: {}", self.last_words());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn load(&self, images: &[&str]) {
        let save = Command::new("docker").arg("save").args(images).stdout(Stdio::piped()).spawn();
        let mut save = save.expect("docker save");
        let mut load = self.command(&["load", "--quiet"]);
        let load = load.stdin(save.stdout.take().expect("its output")).stdout(Stdio::null()).status();
        assert!(load.expect("docker load").success() && save.wait().expect("docker save").success());
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().rev().take(5).collect::<Vec<_>>().join("\n")
    }

    /// Sends it a signal. Its containers are not told.
    fn signal(&self, name: &str) {
        let daemon = self.daemon.as_ref().expect("it runs").id();
        let status = Command::new("kill").args([&format!("-{name}"), &child_of(daemon)]).status();
        assert!(status.expect("kill").success());
        if name == "CONT" {
            // What waits for it has stopped with it.
            let _ = Command::new("kill").args(["-CONT", &daemon.to_string()]).status();
        }
    }

    fn kill(&mut self) {
        self.signal("KILL");
        self.daemon.take().expect("it runs").wait().expect("its end");
    }

    /// As the system stops it. It ends its containers itself.
    fn stop(&mut self) {
        self.signal("TERM");
        self.daemon.take().expect("it runs").wait().expect("its end");
    }

    /// Runs a command in its namespaces; whether it went well.
    fn within(&self, command: &[&str]) -> bool {
        self.enter(command).stderr(Stdio::null()).status().expect("nsenter").success()
    }

    /// What a command prints there.
    fn told(&self, command: &[&str]) -> String {
        String::from_utf8(self.enter(command).output().expect("nsenter").stdout).expect("text")
    }

    fn enter(&self, command: &[&str]) -> Command {
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &self.init(), "--pid", "--net", "--mount"]).args(command);
        enter
    }

    fn address(&self) -> String {
        format!("unix://{}", self.path("docker.sock"))
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn init(&self) -> String {
        child_of(self.namespaces.id())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.address()]).args(arguments);
        command
    }

    /// What a docker command prints.
    fn docker(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the docker command");
        assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-KILL", &self.init()]).status();
        let _ = self.namespaces.wait();
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        // Theirs are in the host's tree.
        let below = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(below).into_iter().flatten().flatten().map(|entry| entry.path());
        hierarchies.chain([below.to_owned()]).for_each(|hierarchy| remove_groups(&hierarchy.join(&self.cgroup)));
    }
}

fn remove_groups(group: &Path) {
    let within = fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    within.filter(|path| path.is_dir()).for_each(|path| remove_groups(&path));
    let _ = fs::remove_dir(group);
}

/// The only child of a process that waits for it.
fn child_of(process: u32) -> String {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    children.expect("the process").trim().to_owned()
}

/// Begins a run that does not end by itself.
async fn endless(server: &Server) -> Events {
    let code = "console.log('before'); void setTimeout(() => {}, 600_000)";
    let request = json!({"language": "js", "code": code, "timeout_ms": 600_000});
    let mut stream = server.stream(request).await;
    assert_eq!(stream.next().await.expect("an event").name, "stdout");
    stream
}

/// The run has lost its sandbox, and says so.
async fn is_lost(mut stream: Events) {
    assert_eq!(stream.next().await.expect("an event").name, "error");
    assert_eq!(stream.next().await.expect("an event").data["outcome"]["kind"], "infrastructure");
}

async fn a_daemon_that_is_killed_restarted_or_hung_costs_its_runs_and_nothing_more() {
    let mut daemon = Daemon::start();
    let server = Server::start_cold(&[("DOCKER_HOST", &daemon.address()), ONE_WARM, LIMIT]);
    let label = format!("label=oncebox.owner={}", server.owner);
    let containers = |daemon: &Daemon| daemon.docker(&["ps", "-aq", "--filter", &label]).lines().count();
    let short = json!({"language": "js", "code": "console.log('here')"});

    let others = daemon.docker(&["create", "--label", "oncebox.owner=another", IMAGES[0]]);

    // Killed during a run, which then has no way to its sandbox; a kept one is lost too.
    let stream = endless(&server).await;
    let kept = kept(&server, "POST", "/v2/sandboxes").await;
    assert_eq!(kept["templateID"], "js", "{kept}");
    daemon.kill();
    let killed = Instant::now();
    is_lost(stream).await;
    let (status, answer) = server.post("/v1/run", &short).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("no_sandbox")), "{answer}");
    assert!(!server.is_ready() && killed.elapsed() < Duration::from_secs(20), "after {:?}", killed.elapsed());
    daemon.start_again();
    well_again(&server, "killed").await;
    assert_eq!(self::kept(&server, "GET", "/v2/sandboxes").await, json!([]));
    eventually("what was there before is gone", async || containers(&daemon) <= 4 && server.is_ready()).await;

    // Stopped in order, as when its package is updated.
    let stream = endless(&server).await;
    daemon.stop();
    is_lost(stream).await;
    daemon.start_again();
    well_again(&server, "restarted").await;
    eventually("what was there before is gone", async || containers(&daemon) <= 4 && server.is_ready()).await;

    // Hung during a run, and for less than it takes to give up: the run goes on.
    let waits =
        json!({"language": "js", "code": "console.log('before'); await new Promise(d => setTimeout(d, 500)); 'after'"});
    let mut stream = server.stream(waits).await;
    assert_eq!(stream.next().await.expect("an event").name, "stdout");
    daemon.signal("STOP");
    let asked = Instant::now();
    eventually("it is not ready", async || !server.is_ready()).await;
    assert!(asked.elapsed() < Duration::from_secs(10), "after {:?}", asked.elapsed());
    // A cold one: whatever is asked of the daemon is not answered.
    let cold = json!({"language": "js", "code": "1", "limits": {"memory_bytes": 268_435_456}});
    let (status, answer) = server.post("/v1/run", &cold).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("no_sandbox")), "{answer}");
    assert!(asked.elapsed() < Duration::from_secs(20), "after {:?}", asked.elapsed());
    daemon.signal("CONT");
    assert_eq!(stream.next().await.expect("an event").data["text/plain"], "'after'");
    assert_eq!(stream.next().await.expect("an event").data["outcome"]["kind"], "ok");
    well_again(&server, "hung").await;

    eventually("one is warm", async || containers(&daemon) >= 2 && server.is_ready()).await;
    assert!(server.stop());
    assert_eq!((containers(&daemon), daemon.docker(&["network", "ls", "-q", "--filter", &label]).as_str()), (0, ""));
    // Another owner's is untouched. Beside it there is no file system of a container, and no process but the daemon's own; what
    // looked after the containers of one that was killed is its own too, and is left by it with nothing to look after.
    assert_eq!(daemon.docker(&["ps", "-aq", "--no-trunc"]), others);
    let mounts = daemon.told(&["cat", "/proc/self/mounts"]);
    let own = mounts.lines().filter(|mount| mount.contains(&daemon.path("")) && !mount.contains("/netns/default "));
    let left: Vec<_> =
        own.filter(|mount| ["/merged", "/shm", "/netns/"].iter().any(|part| mount.contains(part))).collect();
    assert!(left.is_empty(), "{left:?}");
    let processes = daemon.told(&["ps", "-e", "-o", "comm="]);
    let own = ["sleep", "dockerd", "containerd", "containerd-shim", "ps"];
    assert!(processes.lines().all(|name| own.contains(&name.trim())), "{processes}");
}

/// Asks for or about kept sandboxes.
async fn kept(server: &Server, method: &str, path: &str) -> Value {
    let method = method.parse().expect("a method");
    let request = server.http.request(method, format!("{}{path}", server.url)).header("x-api-key", "e2b_0");
    let response = request.json(&json!({"templateID": "js"})).send().await.expect("an answer");
    response.json().await.expect("JSON")
}

async fn a_daemon_whose_disk_is_full_is_an_error_until_there_is_room() {
    let daemon = Daemon::start_with_room("2g");
    let server = Server::start_cold(&[("DOCKER_HOST", &daemon.address()), ONE_WARM, LIMIT]);
    let label = format!("label=oncebox.owner={}", server.owner);
    let fill = daemon.path("data/fill");
    let filled = daemon.within(&["dd", "if=/dev/zero", &format!("of={fill}"), "bs=64k"]);
    assert!(!filled, "the disk does not end");
    // The warm one is there, and no other can be made.
    assert_eq!(server.run("js", "1 + 1").await["results"], json!(["2"]));
    eventually("it is not ready", async || !server.is_ready()).await;
    let (status, answer) = server.post("/v1/run", &json!({"language": "js", "code": "1"})).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("no_sandbox")), "{answer}");
    assert_ne!(server.logged("no space left on device"), Vec::<String>::new());
    assert!(daemon.within(&["rm", &fill]));
    well_again(&server, "a full disk").await;
    assert!(server.stop());
    assert_eq!(daemon.docker(&["ps", "-aq", "--filter", &label]), "");
    assert_eq!(daemon.docker(&["network", "ls", "-q", "--filter", &label]), "");
}

async fn a_container_that_is_restarted_ends_its_run_and_is_removed() {
    let server = Server::start_cold(&[]);
    for which in ["sandbox", "holder"] {
        let stream = endless(&server).await;
        let mut name = server.sandboxes().remove(0);
        if which == "holder" {
            let network = docker(&["inspect", "-f", "{{.HostConfig.NetworkMode}}", &name]);
            let id = network.trim().strip_prefix("container:").expect("a holder's");
            name = docker(&["inspect", "-f", "{{.Name}}", id]).trim().trim_start_matches('/').to_owned();
        }
        // The server may be quicker to remove it.
        let _ = Command::new("docker").args(["restart", "--time", "1", &name]).output();
        is_lost(stream).await;
        server.until_busy(0, 0).await;
        eventually("nothing is left of them", async || {
            server.sandboxes().is_empty() && !server.containers().contains(&name)
        })
        .await;
        assert_eq!(server.run("js", "1 + 1").await["results"], json!(["2"]), "{which}");
    }
}

/// The daemon is well: so is the server, soon.
async fn well_again(server: &Server, what: &str) {
    let began = Instant::now();
    let request = json!({"language": "js", "code": "console.log('here')"});
    eventually("it is ready, and serves", async || {
        server.is_ready() && {
            let (status, answer) = server.post("/v1/run", &request).await;
            status == 200 && answer["outcome"]["kind"] == "ok"
        }
    })
    .await;
    eprintln!("{what}: well again after {:?}", began.elapsed());
    assert!(began.elapsed() < RECOVERY, "{what}: well again after {:?}", began.elapsed());
}
