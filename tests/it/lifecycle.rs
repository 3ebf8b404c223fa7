//! Sandboxes are ready before they are requested, used once, and removed afterwards, whatever happens to the server.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Server, docker, eventually, stdout};

trials![
    a_warm_sandbox_is_ready_taken_once_and_replaced,
    everything_we_create_has_our_labels_and_no_other,
    a_container_removed_while_it_waits_is_replaced,
    a_stopping_server_lets_runs_end_and_leaves_nothing,
    a_killed_server_leaves_nothing_that_runs_and_its_successor_nothing_at_all,
    the_containers_of_another_owner_are_left_alone,
    a_network_that_somebody_elses_container_is_on_is_kept_and_used_again,
    a_missing_image_is_a_clear_error_and_the_server_goes_on,
    an_address_that_is_taken_stops_the_start,
];

const ONE_WARM: (&str, &str) = ("ONCEBOX_TEMPLATES__NODE__WARM", "1");

fn signal(server: &Server, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &server.pid().to_string()]).status();
    assert!(status.expect("kill").success());
}

fn networks(owner: &str) -> String {
    docker(&["network", "ls", "-q", "--filter", &format!("label=oncebox.owner={owner}")])
}

async fn idle(server: &Server) -> u64 {
    let (_, status) = server.get("/v1/status").await;
    let pool = status["pool"].as_array().expect("a list");
    pool.iter().map(|shelf| shelf["idle"].as_u64().expect("a number")).sum()
}

async fn a_warm_sandbox_is_ready_taken_once_and_replaced() {
    let server = Server::start_cold(&[ONE_WARM]);
    let mut seen = BTreeSet::new();
    for round in 0..3 {
        eventually("one is warm", async || idle(&server).await == 1 && server.sandboxes().len() == 1).await;
        let name = server.sandboxes().remove(0);
        assert!(seen.insert(name.clone()), "{name} was there before");
        let code = "const fs = require('fs'); const was = fs.existsSync('/tmp/mark'); fs.writeFileSync('/tmp/mark', ''); \
                    globalThis.mark = (globalThis.mark ?? 0) + 1; [was, mark]";
        let answer = server.run("js", code).await;
        assert_eq!(answer["results"], json!(["[ false, 1 ]"]), "round {round}");
        assert_eq!(answer["sandbox"]["warm"], true);
        let wait_ms = answer["sandbox"]["wait_ms"].as_u64().expect("a number");
        assert!(wait_ms < 2000, "a warm sandbox was waited for {wait_ms} ms");
        eventually("the used one goes", async || !server.containers().contains(&name)).await;
    }
}

async fn everything_we_create_has_our_labels_and_no_other() {
    let server = Server::start_cold(&[ONE_WARM]);
    let containers = server.containers();
    assert_eq!(containers.len(), 2, "a sandbox and what holds its network: {containers:?}");
    // A volume would not have our labels, and can outlive its container.
    for name in &containers {
        let mounts = docker(&["inspect", "-f", "{{json .Mounts}}", name]);
        let mounts: Value = serde_json::from_str(&mounts).expect("JSON");
        assert!(mounts.as_array().expect("a list").iter().all(|mount| mount["Type"] != "volume"), "{mounts}");
    }
    let network = format!("oncebox-{}", server.owner);
    let mut labels: Vec<_> =
        containers.iter().map(|name| docker(&["inspect", "-f", "{{json .Config.Labels}}", name])).collect();
    labels.push(docker(&["network", "inspect", "-f", "{{json .Labels}}", &network]));
    for labels in labels {
        let labels: Value = serde_json::from_str(&labels).expect("JSON");
        let labels = labels.as_object().expect("labels");
        assert_eq!(labels["oncebox.owner"], server.owner.as_str());
        assert!(labels.keys().all(|key| key.starts_with("oncebox.")), "{labels:?}");
    }
    assert!(server.stop());
    assert_eq!((server.containers().len(), networks(&server.owner).as_str()), (0, ""));
}

async fn a_container_removed_while_it_waits_is_replaced() {
    let server = Server::start_cold(&[ONE_WARM]);
    let name = server.sandboxes().remove(0);
    docker(&["rm", "-f", &name]);
    eventually("another one waits", async || {
        let sandboxes = server.sandboxes();
        sandboxes.len() == 1 && sandboxes[0] != name && idle(&server).await == 1
    })
    .await;
    let answer = server.run("js", "1 + 1").await;
    assert_eq!((&answer["results"], &answer["sandbox"]["warm"]), (&json!(["2"]), &json!(true)));

    // All containers are gone, also the one that holds the network, and a request comes before the server has noticed.
    for name in server.containers() {
        let _ = Command::new("docker").args(["rm", "-f", &name]).output();
    }
    assert_eq!(server.run("js", "2 + 2").await["results"], json!(["4"]));
}

async fn a_stopping_server_lets_runs_end_and_leaves_nothing() {
    for name in ["TERM", "INT"] {
        let server = Server::start_cold(&[ONE_WARM]);
        let code = "console.log('before'); await new Promise(done => setTimeout(done, 3000)); 'after'";
        let run = server.begin(json!({"language": "js", "code": code}));
        server.until_busy(1, 0).await;
        signal(&server, name);
        let (status, answer) = run.await.expect("an answer");
        assert_eq!((status, &answer["outcome"]["kind"]), (200, &json!("ok")), "{answer}");
        assert_eq!((stdout(&answer).as_str(), &answer["results"]), ("before\n", &json!(["'after'"])));
        assert!(server.stop(), "SIG{name} is a good end");
        assert_eq!((server.containers().len(), networks(&server.owner).as_str()), (0, ""), "SIG{name}");
    }
}

async fn a_killed_server_leaves_nothing_that_runs_and_its_successor_nothing_at_all() {
    let server = Server::start_cold(&[ONE_WARM]);
    let code = "void setTimeout(() => {}, 600_000)";
    let run = server.begin(json!({"language": "js", "code": code, "timeout_ms": 600_000}));
    server.until_busy(1, 0).await;
    eventually("one runs and one waits", async || idle(&server).await == 1).await;
    server.kill();
    let killed = Instant::now();
    run.abort();
    eventually("its containers go", async || server.containers().is_empty()).await;
    assert!(killed.elapsed() < Duration::from_secs(20), "they took {:?}", killed.elapsed());

    // Things without a pipe to the server remain for the successor: the network, and a container that never started.
    assert_ne!(networks(&server.owner), "");
    let label = format!("oncebox.owner={}", server.owner);
    docker(&[
        "create",
        "--label",
        &label,
        "--name",
        &format!("oncebox-{}-left", server.owner),
        "oncebox/agent",
        "hold",
    ]);
    let successor = Server::start_cold(&[("ONCEBOX_OWNER", &server.owner)]);
    assert_eq!((server.containers().len(), networks(&server.owner).as_str()), (0, ""));
    assert_eq!(successor.run("js", "1 + 1").await["results"], json!(["2"]));
}

async fn the_containers_of_another_owner_are_left_alone() {
    let first = Server::start_cold(&[ONE_WARM]);
    let before = first.containers();
    // A container of an owner whose name begins with the other owner's name.
    let owner = format!("{}x", first.owner);
    let second = Server::start_cold(&[ONE_WARM, ("ONCEBOX_OWNER", &owner)]);
    assert_eq!(second.run("js", "1").await["results"], json!(["1"]));
    assert!(second.stop());
    assert_eq!(networks(&owner), "");
    assert_eq!(first.containers(), before);
    assert_eq!(first.run("js", "1 + 1").await["results"], json!(["2"]));
}

async fn a_network_that_somebody_elses_container_is_on_is_kept_and_used_again() {
    let server = Server::start_cold(&[ONE_WARM]);
    eventually("one waits", async || idle(&server).await == 1).await;
    let network = networks(&server.owner);
    let guest = docker(&[
        "run",
        "--detach",
        "--rm",
        "--network",
        network.trim(),
        "--entrypoint",
        "sleep",
        "oncebox/node",
        "120",
    ]);
    server.kill();
    let successor = Server::start_cold(&[ONE_WARM, ("ONCEBOX_OWNER", &server.owner)]);
    assert_eq!(successor.run("js", "1 + 1").await["results"], json!(["2"]));
    assert_eq!(networks(&server.owner), network);
    assert!(successor.stop());
    eventually("the log names the network", async || {
        successor.logged("the engine does not remove a network").len() == 1
    })
    .await;
    assert_eq!((server.containers().len(), networks(&server.owner)), (0, network));
    docker(&["rm", "--force", guest.trim()]);
    let last = Server::start_cold(&[("ONCEBOX_OWNER", &server.owner)]);
    assert_eq!(networks(&server.owner), "");
    assert!(last.stop());
}

async fn a_missing_image_is_a_clear_error_and_the_server_goes_on() {
    let server = Server::start_cold(&[("ONCEBOX_TEMPLATES__NODE__IMAGE", "oncebox/missing")]);
    for _ in 0..2 {
        let (status, answer) = server.post("/v1/run", &json!({"language": "js", "code": "1"})).await;
        assert_eq!(status, 503);
        assert_eq!(answer, json!({"error": {"code": "no_sandbox", "message": "cannot start a sandbox"}}));
    }
    assert_eq!(server.run("ts", "1 + 1").await["results"], json!(["2"]));
    server.until_busy(0, 0).await;

    let warming = Server::start_unready(&[ONE_WARM, ("ONCEBOX_TEMPLATES__NODE__IMAGE", "oncebox/missing")]);
    let (status, answer) = warming.get("/readyz").await;
    assert_eq!((status, answer), (503, json!({"status": "not ready"})));
    assert_eq!(warming.get("/healthz").await.0, 200);
}

async fn an_address_that_is_taken_stops_the_start() {
    let server = Server::start_cold(&[ONE_WARM]);
    let before = server.containers();
    let address = server.url.trim_start_matches("http://");
    // With the same owner, the second server must not remove anything of the running one.
    let variables = [("ONCEBOX_LISTEN", address), ("ONCEBOX_OWNER", server.owner.as_str())];
    let said = crate::support::refuses_to_start(&variables, None);
    assert_eq!(said, format!("oncebox: cannot listen on {address}: Address already in use (os error 98)\n"));
    assert_eq!(server.containers(), before);
}
