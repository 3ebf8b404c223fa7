//! A Docker daemon of the test's own, in its own namespaces, that is killed, hung, stopped and started again while a
//! server uses it, and whose disk is full; and containers that somebody restarts.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::{Daemon, IMAGES};
use crate::support::{Events, Server, docker, eventually};

trials![
    a_daemon_that_is_killed_restarted_or_hung_costs_its_runs_and_nothing_more,
    a_daemon_whose_disk_is_full_is_an_error_until_there_is_room,
    a_container_that_is_restarted_ends_its_run_and_is_removed,
];

/// The time limit for the server to serve again after the daemon does. On two quiet cores a fifth of that is enough.
const RECOVERY: Duration = Duration::from_secs(25);

const ONE_WARM: (&str, &str) = ("ONCEBOX_TEMPLATES__NODE__WARM", "1");
const LIMIT: (&str, &str) = ("ONCEBOX_ENGINE_TIMEOUT_MS", "5000");

/// Starts a run that does not end by itself.
async fn endless(server: &Server) -> Events {
    let code = "console.log('before'); void setTimeout(() => {}, 600_000)";
    let request = json!({"language": "js", "code": code, "timeout_ms": 600_000});
    let mut stream = server.stream(request).await;
    assert_eq!(stream.next().await.expect("an event").name, "stdout");
    stream
}

/// Checks that the run has lost its sandbox, and reports that.
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

    // Killed during a run, which then has no connection to its sandbox; a kept sandbox is lost too.
    let stream = endless(&server).await;
    let kept = kept(&server, "POST", "/v2/sandboxes").await;
    assert_eq!(kept["templateID"], "js", "{kept}");
    // If containerd is killed while it starts a container, nobody ends that container: a matter of containerd and its
    // shim. So the test waits until no container is starting.
    let is_settled = |daemon: &Daemon| {
        let running = daemon.docker(&["ps", "-q", "--filter", &label]).lines().count();
        running >= 6 && running == containers(daemon)
    };
    eventually("one is warm beside the two that are used", async || is_settled(&daemon)).await;
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

    // Stopped in an orderly way, as for an update of its package.
    let stream = endless(&server).await;
    daemon.stop();
    is_lost(stream).await;
    daemon.start_again();
    well_again(&server, "restarted").await;
    eventually("what was there before is gone", async || containers(&daemon) <= 4 && server.is_ready()).await;

    // Hung during a run, for less than the time limit: the run goes on.
    let waits =
        json!({"language": "js", "code": "console.log('before'); await new Promise(d => setTimeout(d, 500)); 'after'"});
    let mut stream = server.stream(waits).await;
    assert_eq!(stream.next().await.expect("an event").name, "stdout");
    daemon.signal("STOP");
    let asked = Instant::now();
    eventually("it is not ready", async || !server.is_ready()).await;
    assert!(asked.elapsed() < Duration::from_secs(10), "after {:?}", asked.elapsed());
    // A run that needs a new container: the daemon does not answer its calls.
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
    // Another owner's container is untouched. Apart from it, no file system of a container is left, and no process but
    // the daemon's own. A shim of a killed daemon counts as its own; it stays behind without a container.
    assert_eq!(daemon.docker(&["ps", "-aq", "--no-trunc"]), others);
    let mounts = daemon.output_of(&["cat", "/proc/self/mounts"]);
    let own = mounts.lines().filter(|mount| mount.contains(&daemon.path("")) && !mount.contains("/netns/default "));
    let left: Vec<_> =
        own.filter(|mount| ["/merged", "/shm", "/netns/"].iter().any(|part| mount.contains(part))).collect();
    assert!(left.is_empty(), "{left:?}");
    let processes = daemon.output_of(&["ps", "-e", "-o", "comm="]);
    let own = ["sleep", "dockerd", "containerd", "containerd-shim", "ps"];
    assert!(processes.lines().all(|name| own.contains(&name.trim())), "{processes}");
}

/// Sends a request about kept sandboxes.
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
    // Fills the disk up to the last page: with more space left, a container would fail later, with another error.
    let fills = [("64k", daemon.path("data/fill")), ("4k", daemon.path("data/rest"))];
    for (piece, fill) in &fills {
        let filled = daemon.within(&["dd", "if=/dev/zero", &format!("of={fill}"), &format!("bs={piece}")]);
        assert!(!filled, "the disk does not end");
    }
    // The warm sandbox exists, and no other can be created.
    assert_eq!(server.run("js", "1 + 1").await["results"], json!(["2"]));
    eventually("it is not ready", async || !server.is_ready()).await;
    let (status, answer) = server.post("/v1/run", &json!({"language": "js", "code": "1"})).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("no_sandbox")), "{answer}");
    eventually("the log names the cause", async || !server.logged("no space left on device").is_empty()).await;
    assert!(fills.iter().all(|(_, fill)| daemon.within(&["rm", fill])));
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
        // The server may remove the container first.
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

/// The daemon works again: the server soon does too.
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
