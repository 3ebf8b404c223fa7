//! A server is killed under load at a random moment and started again: until then its clients had right answers, and
//! nothing of it is left.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::support::{self, Server, docker};

/// The time limit, from when the successor listens, for removing everything that a killed server has left, on a machine
/// that is busy with other tests. The promised time is a third of that; `make soak` checks it.
const LEFT: Duration = Duration::from_secs(15);

/// Does not log every lost run, but does log the address at which the server listens.
const QUIET: (&str, &str) = ("ONCEBOX_LOG", "off,oncebox::cli=info");

/// The time limit in which clients of a killed server notice its end.
const SILENCE: Duration = Duration::from_secs(10);

/// The result of one round.
#[derive(Debug)]
#[allow(dead_code, reason = "printed here, and counted by `make soak`")]
pub(crate) struct Round {
    /// The number of right answers that clients had before the kill, and the number of clear errors.
    pub(crate) answers: usize,
    pub(crate) errors: usize,
    /// The number of containers at the kill.
    pub(crate) containers: usize,
    /// Whether the only thing left was a network that the daemon itself cannot remove.
    pub(crate) miscounted: bool,
    /// The time from its start until the successor listened, and from then until nothing was left.
    pub(crate) started: Duration,
    pub(crate) clean: Duration,
}

/// Starts a server, gives it work, kills it at a moment chosen by the seed, and starts its successor. Panics if
/// something is left, if a client waits too long, if the successor does not work, or if `bystander` is disturbed.
pub(crate) async fn round(seed: u64, bystander: &Server) -> Round {
    let mut random = StdRng::seed_from_u64(seed);
    let alive = Duration::from_millis(random.random_range(0..2000));
    eprintln!("seed {seed}: a kill after {alive:?}");
    let others = bystander.containers();
    let temporary = tempfile::tempdir().expect("a directory");
    let tmpdir = temporary.path().display().to_string();
    let victim = Server::start_unready(&[("TMPDIR", &tmpdir), ("ONCEBOX_TEMPLATES__JSHELL__WARM", "0"), QUIET]);
    // Half of the servers are killed after they are warm.
    let is_warm = random.random_bool(0.5);
    while is_warm && !victim.is_ready() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let working = join_all((0..8).map(|client| work(&victim, client)));
    let killing = async {
        tokio::time::sleep(alive).await;
        let mut traces = traces(&victim).await;
        if is_warm {
            // Checks that the search below finds these things while they exist.
            let found = left(&victim, &traces, temporary.path());
            for kind in ["container ", "network ", "mount of ", "process "] {
                assert!(found.iter().any(|found| found.starts_with(kind)), "seed {seed}: no {kind}in {found:?}");
            }
        }
        let before = Instant::now();
        victim.kill();
        let killed = Instant::now();
        traces.extend(self::traces(&victim).await);
        (before, killed, traces)
    };
    let all = async { tokio::join!(working, killing) };
    let all = tokio::time::timeout(Duration::from_secs(60), all).await;
    let (ends, (before, killed, traces)) = all.expect("clients of a killed server are told");
    for Heard { ended, wrong, failed, .. } in &ends {
        assert!(wrong.is_none(), "seed {seed}: {wrong:?}");
        assert!(failed.is_none_or(|at| at >= before), "seed {seed}: a request failed before the kill");
        assert!(*ended >= before, "seed {seed}: a connection broke {:?} before the kill", before - *ended);
        let silent = ended.saturating_duration_since(killed);
        assert!(silent < SILENCE, "seed {seed}: a client heard nothing for {silent:?}");
    }

    let began = Instant::now();
    let successor = tokio::task::block_in_place(|| {
        Server::start_cold(&[("ONCEBOX_OWNER", &victim.owner), ("TMPDIR", &tmpdir), QUIET])
    });
    let started = began.elapsed();
    let listening = Instant::now();
    let mut miscounted = loop {
        let left = left(&victim, &traces, temporary.path());
        if left.is_empty() {
            break false;
        }
        if listening.elapsed() > LEFT {
            assert!(is_miscounted(&left), "seed {seed}: left of a killed server: {left:?}");
            break true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let clean = listening.elapsed();
    assert_eq!(successor.run("js", "1 + 1").await["results"], json!(["2"]), "seed {seed}");
    assert!(tokio::task::block_in_place(|| successor.stop()), "seed {seed}: the successor ends well");
    let after = left(&victim, &traces, temporary.path());
    assert!(is_miscounted(&after), "seed {seed}: left of the successor: {after:?}");
    miscounted |= !after.is_empty();
    assert_eq!(bystander.containers(), others, "seed {seed}: somebody else's containers");
    let (answers, errors) = (ends.iter().map(|heard| heard.answers).sum(), ends.iter().map(|heard| heard.errors).sum());
    Round { answers, errors, containers: traces.len(), miscounted, started, clean }
}

/// The answers that a client got until the server was gone, and the time of that.
struct Heard {
    answers: usize,
    errors: usize,
    /// An answer that was neither right nor a clear error.
    wrong: Option<String>,
    /// The time of the first error about a failure, other than a lack of places.
    failed: Option<Instant>,
    ended: Instant,
}

/// Sends one request after the other until the server is gone.
async fn work(server: &Server, client: usize) -> Heard {
    let kept = json!({"templateID": "base", "timeout": 300});
    let run = |language: &str, code: &str| json!({"language": language, "code": code});
    // The third value is the result of a run that ends.
    let (path, request, result) = match client {
        0 => ("/sandboxes", kept, None),
        1 => ("/v1/run", run("js", "await new Promise(done => setTimeout(done, 600_000))"), None),
        2 => ("/v1/run", run("r", "1 + 1"), Some("[1] 2")),
        3 => ("/v1/run", run("ts", "1 + 1"), Some("2")),
        4 => ("/v1/run", run("python", "while True: pass"), None),
        5 => ("/v1/run", run("js", "1 + 1"), Some("2")),
        _ => ("/v1/run", run("python", "1 + 1"), Some("2")),
    };
    let mut heard = Heard { answers: 0, errors: 0, wrong: None, failed: None, ended: Instant::now() };
    while let Some((status, body)) = ask(server, path, &request).await {
        let answer = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        if is_right(status, &answer, path, result) {
            heard.answers += 1;
        } else if is_clear_error(status, &answer) {
            heard.errors += 1;
            if ![429, 503].contains(&status) {
                heard.failed.get_or_insert_with(Instant::now);
            }
            // Waits before the next request, as a client would.
            tokio::time::sleep(Duration::from_millis(100)).await;
        } else {
            let body = String::from_utf8_lossy(&body);
            heard.wrong.get_or_insert_with(|| format!("{path} {request}: {status} {body:.1000}"));
        }
        if path == "/sandboxes" && heard.answers > 1 {
            // Two sandboxes are enough; they live on.
            while server.http.get(format!("{}/healthz", server.url)).send().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            break;
        }
    }
    Heard { ended: Instant::now(), ..heard }
}

/// The status and the complete body; `None` if the connection broke.
async fn ask(server: &Server, path: &str, request: &Value) -> Option<(u16, Vec<u8>)> {
    let post = server.http.post(format!("{}{path}", server.url));
    let post = post.header("x-api-key", "e2b_1111111111111111111111111111111111111111");
    let response = post.json(request).send().await.ok()?;
    let status = response.status().as_u16();
    Some((status, response.bytes().await.ok()?.to_vec()))
}

/// Whether the answer is the expected one: a sandbox, or a run with this result. The other runs cannot end before the
/// kill.
fn is_right(status: u16, answer: &Value, path: &str, result: Option<&str>) -> bool {
    match (path, result) {
        ("/sandboxes", _) => status == 201 && answer["sandboxID"].as_str().is_some_and(|id| !id.is_empty()),
        (_, Some(result)) => {
            status == 200
                && answer["outcome"]["kind"] == "ok"
                && answer["results"] == json!([result])
                && answer.get("error").is_none()
        }
        (_, None) => false,
    }
}

/// Whether the answer is a documented error that does not blame the request.
fn is_clear_error(status: u16, answer: &Value) -> bool {
    let says = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    match status {
        200 => {
            let outcome = &answer["outcome"];
            (outcome["kind"] == "cancelled" || outcome["kind"] == "infrastructure")
                && says(&outcome["message"])
                && answer["error"] == outcome["message"]
        }
        // oncebox's own format, and E2B's.
        429 | 500 | 503 => {
            let own = &answer["error"];
            says(&own["code"]) && says(&own["message"]) || answer["code"] == status && says(&answer["message"])
        }
        _ => false,
    }
}

/// The containers of a server. The engine uses their ids in the names of everything that it makes for them, except file
/// systems and volumes.
async fn traces(server: &Server) -> BTreeSet<Trace> {
    let label = format!("label=oncebox.owner={}", server.owner);
    tokio::task::spawn_blocking(move || look_for(&label)).await.expect("it looks")
}

/// Volumes that an image declares have no label, and remain unless they are removed with their container.
const FORMAT: &str = "{{.Id}} {{with .GraphDriver}}{{with .Data}}{{.MergedDir}}{{end}}{{end}}{{range .Mounts}}{{if eq .Type \"volume\"}} {{.Name}}{{end}}{{end}}";

fn look_for(label: &str) -> BTreeSet<Trace> {
    let ids = docker(&["ps", "-aq", "--no-trunc", "--filter", label]);
    let mut inspect = vec!["inspect", "--format", FORMAT];
    inspect.extend(ids.lines());
    if inspect.len() == 3 {
        return BTreeSet::new();
    }
    // Some containers may be gone already. Then the command fails, but it still prints the others.
    let output = std::process::Command::new("docker").args(&inspect).output().expect("the docker command");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let trace = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let (id, mount) = (words.next()?, words.next()?);
        // If the engine does not report the path, it contains the id.
        let mount = if mount.is_empty() { id.clone() } else { mount };
        Some(Trace { id, mount, volumes: words.collect() })
    };
    text.lines().filter_map(trace).collect()
}

/// The names by which leftovers of a container can be found.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Trace {
    id: String,
    mount: String,
    volumes: Vec<String>,
}

/// Whether everything that is left, if anything, is networks that the daemon itself cannot remove.
fn is_miscounted(left: &[String]) -> bool {
    left.iter().all(|left| left.strip_prefix("network ").is_some_and(support::is_miscounted))
}

/// Everything that exists of a server that is gone.
fn left(server: &Server, traces: &BTreeSet<Trace>, temporary: &Path) -> Vec<String> {
    let label = format!("label=oncebox.owner={}", server.owner);
    let mut left = Vec::new();
    let listed = [
        docker(&["ps", "-a", "--filter", &label, "--format", "container {{.Names}} {{.Status}}"]),
        docker(&["network", "ls", "--filter", &label, "--format", "network {{.Name}}"]),
    ];
    left.extend(listed.iter().flat_map(|listed| listed.lines()).map(str::to_owned));
    let volumes = docker(&["volume", "ls", "-q"]);
    let is_ours = |name: &&str| traces.iter().any(|trace| trace.volumes.iter().any(|volume| volume == name));
    left.extend(volumes.lines().filter(is_ours).map(|name| format!("volume {name}")));
    let mounts = std::fs::read_to_string("/proc/mounts").expect("the mounts");
    let is_there = |trace: &&Trace| mounts.contains(&trace.id) || mounts.contains(&trace.mount);
    left.extend(traces.iter().filter(is_there).map(|trace| format!("mount of {}", trace.id)));
    for process in std::fs::read_dir("/proc").expect("the processes").flatten() {
        let path = process.path();
        // A shim has its container's id in its command line, and processes inside have it in their cgroups.
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
