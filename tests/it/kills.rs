//! A server is killed under load, at any moment, and started again: nothing of the first is left.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::support::{Server, docker};

/// When its successor listens, nothing of a killed server is left for longer, on a machine that is busy with other tests. What is
/// promised is a third of that, and counted by `make soak`.
const LEFT: Duration = Duration::from_secs(15);

/// What runs lose is not told line by line; where it listens is.
const QUIET: (&str, &str) = ("ONCEBOX_LOG", "off,oncebox::cli=info");

/// Clients of a killed server know it within this time.
const SILENCE: Duration = Duration::from_secs(10);

/// How one round went.
#[derive(Debug)]
#[allow(dead_code, reason = "told here, and counted where there are many")]
pub(crate) struct Round {
    /// Answers that clients had before the kill.
    pub(crate) answers: usize,
    /// Containers that there were at the kill.
    pub(crate) containers: usize,
    /// How long after its start the successor listened, and after that, how long something was left.
    pub(crate) started: Duration,
    pub(crate) clean: Duration,
}

/// Starts a server, gives it work, kills it at a moment that the seed tells, and starts its successor. Panics when something is
/// left, when a client waits in silence, when the successor does not work, or when `bystander` is disturbed.
pub(crate) async fn round(seed: u64, bystander: &Server) -> Round {
    let mut random = StdRng::seed_from_u64(seed);
    let alive = Duration::from_millis(random.random_range(0..2000));
    eprintln!("seed {seed}: a kill after {alive:?}");
    let others = bystander.containers();
    let temporary = tempfile::tempdir().expect("a directory");
    let tmpdir = temporary.path().display().to_string();
    let victim = Server::start_unready(&[("TMPDIR", &tmpdir), ("ONCEBOX_TEMPLATES__JSHELL__WARM", "0"), QUIET]);
    // Half of them are killed when they are warm.
    let is_warm = random.random_bool(0.5);
    while is_warm && !victim.is_ready() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let working = join_all((0..8).map(|client| work(&victim, client)));
    let killing = async {
        tokio::time::sleep(alive).await;
        let mut traces = traces(&victim).await;
        victim.kill();
        let killed = Instant::now();
        traces.extend(self::traces(&victim).await);
        (killed, traces)
    };
    let all = async { tokio::join!(working, killing) };
    let all = tokio::time::timeout(Duration::from_secs(60), all).await;
    let (ends, (killed, traces)) = all.expect("clients of a killed server are told");
    for (_, ended) in &ends {
        let silent = ended.saturating_duration_since(killed);
        assert!(silent < SILENCE, "seed {seed}: a client heard nothing for {silent:?}");
    }

    let began = Instant::now();
    let successor = tokio::task::block_in_place(|| {
        Server::start_cold(&[("ONCEBOX_OWNER", &victim.owner), ("TMPDIR", &tmpdir), QUIET])
    });
    let started = began.elapsed();
    let listening = Instant::now();
    loop {
        let left = left(&victim, &traces, temporary.path());
        if left.is_empty() {
            break;
        }
        assert!(listening.elapsed() < LEFT, "seed {seed}: left of a killed server: {left:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let clean = listening.elapsed();
    assert_eq!(successor.run("js", "1 + 1").await["results"], json!(["2"]), "seed {seed}");
    assert!(tokio::task::block_in_place(|| successor.stop()), "seed {seed}: the successor ends well");
    let after = left(&victim, &traces, temporary.path());
    assert!(after.is_empty(), "seed {seed}: left of the successor: {after:?}");
    assert_eq!(bystander.containers(), others, "seed {seed}: somebody else's containers");
    let answers = ends.iter().map(|(answers, _)| answers).sum();
    Round { answers, containers: traces.len(), started, clean }
}

/// Asks for one thing after the other until the server is gone: how many answers there were, and when it was.
async fn work(server: &Server, client: usize) -> (usize, Instant) {
    let kept = json!({"templateID": "base", "timeout": 300});
    let run = |language: &str, code: &str| json!({"language": language, "code": code});
    let (path, request) = match client {
        0 => ("/sandboxes", kept),
        1 => ("/v1/run", run("js", "await new Promise(done => setTimeout(done, 600_000))")),
        2 => ("/v1/run", run("r", "1 + 1")),
        3 => ("/v1/run", run("ts", "1 + 1")),
        4 => ("/v1/run", run("python", "while True: pass")),
        5 => ("/v1/run", run("js", "1 + 1")),
        _ => ("/v1/run", run("python", "1 + 1")),
    };
    let mut answers = 0;
    loop {
        let post = server.http.post(format!("{}{path}", server.url));
        let post = post.header("x-api-key", "e2b_1111111111111111111111111111111111111111");
        let Ok(response) = post.json(&request).send().await else { return (answers, Instant::now()) };
        let Ok(_) = response.json::<Value>().await else { return (answers, Instant::now()) };
        answers += 1;
        if path == "/sandboxes" && answers > 1 {
            // Two are enough; they live on.
            while server.http.get(format!("{}/healthz", server.url)).send().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            return (answers, Instant::now());
        }
    }
}

/// The containers of a server: their ids are in the names of all that the engine makes for them, but their file systems.
async fn traces(server: &Server) -> BTreeSet<Trace> {
    let label = format!("label=oncebox.owner={}", server.owner);
    tokio::task::spawn_blocking(move || look_for(&label)).await.expect("it looks")
}

fn look_for(label: &str) -> BTreeSet<Trace> {
    let ids = docker(&["ps", "-aq", "--no-trunc", "--filter", label]);
    let mut inspect = vec!["inspect", "--format", "{{.Id}} {{.GraphDriver.Data.MergedDir}}"];
    inspect.extend(ids.lines());
    if inspect.len() == 3 {
        return BTreeSet::new();
    }
    // Some may be gone already, which makes it an error and not less of an answer.
    let output = std::process::Command::new("docker").args(&inspect).output().expect("the docker command");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let trace =
        |line: &str| line.split_once(' ').map(|(id, mount)| Trace { id: id.to_owned(), mount: mount.to_owned() });
    text.lines().filter_map(trace).collect()
}

/// What tells that there is something of a container.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Trace {
    id: String,
    mount: String,
}

/// All that there is of a server that is gone.
fn left(server: &Server, traces: &BTreeSet<Trace>, temporary: &Path) -> Vec<String> {
    let label = format!("label=oncebox.owner={}", server.owner);
    let mut left = Vec::new();
    let listed = [
        docker(&["ps", "-a", "--filter", &label, "--format", "container {{.Names}} {{.Status}}"]),
        docker(&["network", "ls", "--filter", &label, "--format", "network {{.Name}}"]),
        docker(&["volume", "ls", "--filter", &label, "--format", "volume {{.Name}}"]),
    ];
    left.extend(listed.iter().flat_map(|listed| listed.lines()).map(str::to_owned));
    let mounts = std::fs::read_to_string("/proc/mounts").expect("the mounts");
    let is_there = |trace: &&Trace| mounts.contains(&trace.id) || mounts.contains(&trace.mount);
    left.extend(traces.iter().filter(is_there).map(|trace| format!("mount of {}", trace.id)));
    for process in std::fs::read_dir("/proc").expect("the processes").flatten() {
        let path = process.path();
        // A shim names its container in its command, and what runs inside in its cgroups.
        let about = ["cmdline", "cgroup"].map(|file| std::fs::read_to_string(path.join(file)).unwrap_or_default());
        if traces.iter().any(|trace| about.iter().any(|about| about.contains(&trace.id))) {
            left.push(format!("process {}: {}", path.display(), about[0].replace('\0', " ")));
        }
    }
    for hierarchy in ["memory/docker", "pids/docker", "system.slice"] {
        let path = Path::new("/sys/fs/cgroup").join(hierarchy);
        let names = std::fs::read_dir(path).into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        left.extend(names.filter(|name| traces.iter().any(|trace| name.contains(&trace.id))));
    }
    let files = std::fs::read_dir(temporary).expect("its directory").flatten();
    left.extend(files.map(|file| format!("file {}", file.path().display())));
    left
}
