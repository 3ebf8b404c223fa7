//! An engine that is slow, refuses, hangs or goes away: clients get their answer or a clear error within a time limit,
//! the server recovers when the engine does, and nothing is left.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::proxy::{Calls, EngineProxy, Fate, Fault};
use crate::support::{Server, docker, eventually, refuses_to_start, stdout};

trials![
    an_engine_that_takes_its_time_is_waited_for,
    a_launch_may_take_as_long_as_is_configured,
    an_engine_that_refuses_is_an_error_and_tried_again,
    an_engine_that_hangs_up_is_an_error_and_tried_again,
    an_engine_that_hangs_is_an_error_and_tried_again,
    what_a_slow_engine_makes_too_late_is_removed,
    an_engine_that_fails_at_the_start_stops_it_with_its_reason,
    a_server_that_starts_beside_a_broken_engine_becomes_ready_with_it,
    a_server_stops_beside_an_engine_that_hangs_and_its_successor_clears_up,
    a_removal_that_hangs_is_tried_again,
    a_container_that_ends_while_it_is_being_removed_is_removed,
    a_sandbox_with_too_many_files_to_look_at_is_ended,
    a_full_disk_of_the_engine_is_logged_once,
    a_holder_that_is_removed_takes_its_sandboxes_along,
    a_network_that_is_removed_is_made_again,
    a_network_that_a_killed_server_has_asked_for_is_removed_when_it_comes,
];

/// Short, so that hanging calls are soon noticed, but long enough for a machine that is busy with other tests.
const LIMIT: (&str, &str) = ("ONCEBOX_ENGINE_TIMEOUT_MS", "3000");
/// The server has no keys, so any key is accepted.
const KEY: &str = "e2b_1111111111111111111111111111111111111111";

const ONE_WARM: (&str, &str) = ("ONCEBOX_TEMPLATES__NODE__WARM", "1");

/// The time limits for an answer to a client, and for the server's recovery after the engine's. On two quiet cores a
/// fifth of that is enough.
const BOUND: Duration = Duration::from_secs(20);
const RECOVERY: Duration = Duration::from_secs(25);

async fn a_launch_may_take_as_long_as_is_configured() {
    let proxy = EngineProxy::start(
        |_, path| match Calls::Start.include(&hyper::Method::POST, path) {
            true => Fate::After(Duration::from_secs(2)),
            false => Fate::Pass,
        },
        |_| {},
    );
    for (limit, expected) in [("1500", 503), ("40000", 200)] {
        let server = Server::start_cold(&[("ONCEBOX_LAUNCH_TIMEOUT_MS", limit), ("DOCKER_HOST", &proxy.address())]);
        let (status, answer) = server.post("/v1/run", &cold()).await;
        assert_eq!(status, expected, "{limit}: {answer}");
        let logged = || server.logged("the container was not ready within `launch_timeout_ms` (1.5s)");
        match status {
            200 => assert!(logged().is_empty(), "{:?}", logged()),
            // The log is read beside the test, and may come after the answer.
            _ => eventually("the log names the limit", async || !logged().is_empty()).await,
        }
    }
}

/// A run that needs a new container because of its own limits.
fn cold() -> Value {
    json!({"language": "js", "code": "console.log('here')", "limits": {"memory_bytes": 268_435_456}})
}

/// Requests a run during a fault: the result is an answer or a clear error, within the time limit.
async fn run_in_trouble(server: &Server, request: &Value, what: &str) {
    let began = Instant::now();
    let (status, answer) = server.post("/v1/run", request).await;
    assert!(began.elapsed() < BOUND, "{what}: an answer after {:?}: {answer}", began.elapsed());
    match status {
        200 => {
            assert!(["ok", "infrastructure"].contains(&answer["outcome"]["kind"].as_str().unwrap()), "{what}: {answer}")
        }
        _ => {
            let expected = json!({"error": {"code": "no_sandbox", "message": "cannot start a sandbox"}});
            assert_eq!((status, &answer), (503, &expected), "{what}");
        }
    }
}

/// The engine works again: the server soon does too.
async fn recovers(server: &Server, what: &str) {
    let began = Instant::now();
    eventually(&format!("{what}: it is ready, and serves"), async || {
        server.is_ready() && {
            let (status, answer) = server.post("/v1/run", &cold()).await;
            status == 200 && stdout(&answer) == "here\n"
        }
    })
    .await;
    eprintln!("{what}: well again after {:?}", began.elapsed());
    assert!(began.elapsed() < RECOVERY, "{what}: well again after {:?}", began.elapsed());
}

/// Each kind of call in turn meets `fate` while warm and cold runs are requested.
async fn suffers(fate: Fate, each: &[Calls]) {
    let fault = Fault::default();
    let proxy = EngineProxy::with_faults(&fault);
    let server = Server::start_cold(&[ONE_WARM, LIMIT, ("DOCKER_HOST", &proxy.address())]);
    for &calls in each {
        let what = format!("{calls:?} meets {fate:?}");
        fault.set(calls, fate.clone());
        let (warm, cold) = (json!({"language": "js", "code": "1 + 1"}), cold());
        tokio::join!(run_in_trouble(&server, &warm, &what), run_in_trouble(&server, &cold, &what));
        if calls == Calls::All {
            let asked = Instant::now();
            assert!(!server.is_ready() && asked.elapsed() < Duration::from_secs(10), "{what}");
            assert_eq!(server.get("/healthz").await.0, 200);
        }
        fault.clear();
        recovers(&server, &what).await;
    }
    only_what_is_wanted_stays(&server).await;
    assert!(server.stop());
    assert_eq!((server.containers(), networks(&server)), (vec![], String::new()));
}

/// One warm sandbox with its network container is left. There may be other free network containers, which have been
/// used.
async fn only_what_is_wanted_stays(server: &Server) {
    eventually("what is left over goes", async || {
        let (sandboxes, containers) = (server.sandboxes(), server.containers());
        // Network containers run; a container that was created and never started does not.
        let running = docker(&["ps", "--filter", &format!("label=oncebox.owner={}", server.owner), "-q"]);
        sandboxes.len() == 1 && containers.len() <= 8 && running.lines().count() == containers.len()
    })
    .await;
}

fn networks(server: &Server) -> String {
    docker(&["network", "ls", "-q", "--filter", &format!("label=oncebox.owner={}", server.owner)])
}

async fn an_engine_that_takes_its_time_is_waited_for() {
    let proxy = EngineProxy::start(|_, _| Fate::After(Duration::from_millis(300)), |_| {});
    let server = Server::start_cold(&[("DOCKER_HOST", &proxy.address())]);
    let answer = server.run_with(json!({"language": "python", "code": "print('slow')"})).await;
    assert_eq!(stdout(&answer), "slow\n");
}

async fn an_engine_that_refuses_is_an_error_and_tried_again() {
    let each = [Calls::Create, Calls::Attach, Calls::Start, Calls::Remove, Calls::All];
    suffers(Fate::Refuse(StatusCode::INTERNAL_SERVER_ERROR), &each).await;
    suffers(Fate::Refuse(StatusCode::CONFLICT), &[Calls::Create, Calls::Remove]).await;
}

async fn an_engine_that_hangs_up_is_an_error_and_tried_again() {
    suffers(Fate::Cut, &[Calls::Attach, Calls::Remove, Calls::All]).await;
}

async fn an_engine_that_hangs_is_an_error_and_tried_again() {
    suffers(Fate::Never, &[Calls::Create, Calls::Attach, Calls::Start, Calls::Remove, Calls::All]).await;
}

async fn what_a_slow_engine_makes_too_late_is_removed() {
    let fault = Fault::default();
    let proxy = EngineProxy::with_faults(&fault);
    let server = Server::start_cold(&[LIMIT, ("DOCKER_HOST", &proxy.address())]);
    recovers(&server, "nothing yet").await;
    eventually("its sandbox goes", async || server.sandboxes().is_empty()).await;
    let holders = server.containers();
    // The container is created when nobody waits for it any more and the engine works again.
    fault.set(Calls::Create, Fate::After(Duration::from_secs(5)));
    let (status, _) = server.post("/v1/run", &cold()).await;
    assert_eq!(status, 503);
    fault.clear();
    let late = || {
        let removed = server.logged("which was not in use");
        removed.into_iter().filter(|line| !holders.iter().any(|holder| line.contains(holder))).count()
    };
    eventually("it comes late, and goes", async || late() == 1).await;
    assert!(server.sandboxes().is_empty());
    recovers(&server, "a container that came late").await;
}

async fn an_engine_that_fails_at_the_start_stops_it_with_its_reason() {
    for (fate, reason) in [
        (Fate::Never, "oncebox: the engine did not list containers within `engine_timeout_ms`"),
        (Fate::Cut, "oncebox: the engine cannot be reached"),
        (Fate::Refuse(StatusCode::INTERNAL_SERVER_ERROR), "oncebox: the engine refused to list containers"),
    ] {
        let fault = Fault::default();
        let proxy = EngineProxy::with_faults(&fault);
        fault.set(Calls::List, fate);
        let address = proxy.address();
        let said = tokio::task::spawn_blocking(move || refuses_to_start(&[LIMIT, ("DOCKER_HOST", &address)], None));
        let said = said.await.expect("it ends");
        assert!(said.starts_with(reason) && said.lines().count() == 1, "{said}");
    }
}

async fn a_server_that_starts_beside_a_broken_engine_becomes_ready_with_it() {
    let fault = Fault::default();
    let proxy = EngineProxy::with_faults(&fault);
    fault.set(Calls::Start, Fate::Never);
    let cold = ["TS", "R", "JSHELL"].map(|name| format!("ONCEBOX_TEMPLATES__{name}__WARM"));
    let address = proxy.address();
    let mut variables = vec![LIMIT, ("DOCKER_HOST", &address)];
    variables.extend(cold.iter().map(|name| (name.as_str(), "0")));
    let server = Server::start_unready(&variables);
    let request = json!({"language": "python", "code": "1"});
    run_in_trouble(&server, &request, "warming up").await;
    assert_eq!(server.get("/readyz").await, (503, json!({"status": "not ready"})));
    fault.clear();
    eventually("it is ready", async || server.is_ready()).await;
    eventually("it serves", async || server.post("/v1/run", &request).await.1["results"] == json!(["1"])).await;
}

async fn a_server_stops_beside_an_engine_that_hangs_and_its_successor_clears_up() {
    let fault = Fault::default();
    let proxy = EngineProxy::with_faults(&fault);
    let server = Server::start_cold(&[ONE_WARM, LIMIT, ("DOCKER_HOST", &proxy.address())]);
    let run =
        server.begin(json!({"language": "js", "code": "await new Promise(done => setTimeout(done, 1000)); 'done'"}));
    server.until_busy(1, 0).await;
    fault.set(Calls::All, Fate::Never);
    let began = Instant::now();
    assert!(server.stop(), "it ends well, and says what it could not do");
    assert!(began.elapsed() < Duration::from_secs(40), "it took {:?}", began.elapsed());
    let (status, answer) = run.await.expect("an answer");
    assert_eq!((status, &answer["results"]), (200, &json!(["'done'"])), "{answer}");
    eventually("it has said so", async || server.logged("containers or networks may be left").len() == 1).await;
    let successor = Server::start_cold(&[("ONCEBOX_OWNER", &server.owner)]);
    assert_eq!((server.containers(), networks(&server)), (vec![], String::new()));
    assert_eq!(successor.run("js", "1 + 1").await["results"], json!(["2"]));
}

async fn a_removal_that_hangs_is_tried_again() {
    let fault = Fault::default();
    let proxy = EngineProxy::with_faults(&fault);
    let limit = ("ONCEBOX_ENGINE_TIMEOUT_MS", "8000");
    let server = Server::start_cold(&[limit, ("DOCKER_HOST", &proxy.address()), ("ONCEBOX_MAX_SANDBOXES", "2")]);
    fault.set(Calls::Remove, Fate::Never);
    for _ in 0..2 {
        assert_eq!(server.run("js", "1 + 1").await["results"], json!(["2"]));
    }
    // Their places are taken until the containers are known to be gone.
    eventually("it is said once each", async || server.logged("cannot remove oncebox-").len() == 2).await;
    server.until_busy(2, 0).await;
    fault.clear();
    server.until_busy(0, 0).await;
    assert!(server.sandboxes().is_empty());
}

async fn a_container_that_ends_while_it_is_being_removed_is_removed() {
    let fault = Fault::default();
    let proxy = EngineProxy::with_faults(&fault);
    let limit = ("ONCEBOX_ENGINE_TIMEOUT_MS", "15000");
    let server = Server::start_cold(&[limit, ("DOCKER_HOST", &proxy.address())]);
    // Seen with Docker 20.10, where the container may remain.
    let ended = "Could not kill running container 12ab, cannot remove - Container 12ab is not running";
    fault.set(Calls::Remove, Fate::RefuseWith(StatusCode::INTERNAL_SERVER_ERROR, ended));
    assert_eq!(server.run("js", "1 + 1").await["results"], json!(["2"]));
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Its place is taken until the container is known to be gone.
    server.until_busy(1, 0).await;
    fault.clear();
    server.until_busy(0, 0).await;
    assert!(server.sandboxes().is_empty());
    assert_eq!(server.logged("cannot remove oncebox-"), Vec::<String>::new(), "that is no error");
}

async fn a_sandbox_with_too_many_files_to_look_at_is_ended() {
    let fault = Fault::default();
    let proxy = EngineProxy::with_faults(&fault);
    let server = Server::start_cold(&[LIMIT, ("DOCKER_HOST", &proxy.address())]);
    let create = async || {
        eventually("it is created", async || {
            let post = server.http.post(format!("{}/sandboxes", server.url)).header("x-api-key", KEY);
            post.json(&json!({"templateID": "base"})).send().await.expect("an answer").status() == 201
        })
        .await;
    };
    let ended = || server.logged("so many files that the engine cannot measure").len();
    create().await;
    fault.set(Calls::Inspect, Fate::Never);
    eventually("it is ended", async || ended() == 1 && server.sandboxes().is_empty()).await;
    // A sandbox that cannot be measured because the engine has a fault is not ended.
    fault.clear();
    create().await;
    fault.set(Calls::All, Fate::Never);
    tokio::time::sleep(Duration::from_secs(8)).await;
    fault.clear();
    assert_eq!((ended(), server.sandboxes().len()), (1, 1));
}

async fn a_full_disk_of_the_engine_is_logged_once() {
    let fault = Fault::default();
    let proxy = EngineProxy::with_faults(&fault);
    let server = Server::start_cold(&[ONE_WARM, LIMIT, ("DOCKER_HOST", &proxy.address())]);
    let full = "mkdir /var/lib/docker/overlay2/2f0a-init: no space left on device";
    fault.set(Calls::Create, Fate::RefuseWith(StatusCode::INTERNAL_SERVER_ERROR, full));
    // The warm sandbox still serves.
    assert_eq!(server.run("js", "1 + 1").await["results"], json!(["2"]));
    eventually("it is not ready", async || !server.is_ready()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(server.logged("no space left on device").len(), 1, "once, however often it is tried");
    let (status, answer) = server.post("/v1/run", &cold()).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("no_sandbox")));
    assert!(!answer.to_string().contains("overlay2"), "the cause is the operator's: {answer}");
    eventually("and once for a request that failed of it", async || {
        server.logged("no space left on device").len() == 2
    })
    .await;
    fault.clear();
    recovers(&server, "a full disk").await;
}

async fn a_holder_that_is_removed_takes_its_sandboxes_along() {
    let server = Server::start_cold(&[ONE_WARM]);
    let bystander = Server::start_cold(&[ONE_WARM]);
    let before = bystander.containers();
    let holders = || {
        let sandboxes = server.sandboxes();
        server.containers().into_iter().filter(|name| !sandboxes.contains(name)).collect::<Vec<_>>()
    };
    // Removes the network container of a warm sandbox, which then has no network.
    let warm = server.sandboxes();
    docker(&["rm", "-f", &holders()[0]]);
    eventually("another one waits", async || {
        let now = server.sandboxes();
        now.len() == 1 && now != warm && server.is_ready()
    })
    .await;
    // Removes the network containers while code runs.
    let code = "console.log('before'); void setTimeout(() => {}, 600_000)";
    let mut stream = server.stream(json!({"language": "js", "code": code})).await;
    assert_eq!(stream.next().await.expect("an event").name, "stdout");
    for name in holders() {
        docker(&["rm", "-f", &name]);
    }
    assert_eq!(stream.next().await.expect("an event").name, "error");
    let end = stream.next().await.expect("an event");
    assert_eq!(end.data["outcome"]["kind"], "infrastructure");
    // The free network containers were removed too.
    eventually("one waits", async || server.is_ready() && server.sandboxes().len() == 1).await;
    assert_eq!(server.run_with(cold()).await["outcome"]["kind"], "ok");
    server.until_busy(0, 0).await;
    let network = "import socket; socket.create_connection(('127.0.0.1', 1), 1)";
    assert_eq!(server.run("python", network).await["exception"]["name"], "ConnectionRefusedError");
    assert_eq!(bystander.containers(), before);
}

async fn a_network_that_is_removed_is_made_again() {
    let server = Server::start_cold(&[ONE_WARM]);
    let network = networks(&server);
    for name in server.containers() {
        let _ = std::process::Command::new("docker").args(["rm", "-f", &name]).output();
    }
    // Containers that start meanwhile are on the network, so that it may remain.
    let _ = std::process::Command::new("docker").args(["network", "rm", network.trim()]).output();
    recovers(&server, "a network that is gone").await;
    eventually("one waits again", async || server.sandboxes().len() == 1).await;
}

async fn a_network_that_a_killed_server_has_asked_for_is_removed_when_it_comes() {
    let server = Server::start_cold(&[]);
    let label = format!("oncebox.owner={}", server.owner);
    let name = format!("oncebox-{}", server.owner);
    docker(&["network", "create", "--label", &label, &name]);
    eventually("it is removed", async || networks(&server).is_empty()).await;
    assert_eq!(server.run_with(cold()).await["outcome"]["kind"], "ok");
    assert_ne!(networks(&server), "", "its own stays");
}
