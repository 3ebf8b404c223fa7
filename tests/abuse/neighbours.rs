//! Neighbours of an abuser: a client that runs `1+1` still gets its answers, and not much later.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::case_alone;
use crate::e2b::{INTERPRETER, KEY};
use crate::support::{Server, eventually};

/// The number of the client's requests.
const RUNS: usize = 12;

/// The time limit of one run of an abuser, which then starts again.
const ABUSE: Duration = Duration::from_secs(6);

/// Each abuser: its description, language, code, and the outcomes that show that it really abused something.
const ABUSERS: [(&str, &str, &str, &[&str]); 11] = [
    (
        "a spinner with many threads",
        "java",
        "for (int n = 0; n < 50; n++) new Thread(() -> { while (true) {} }).start();",
        &["timeout"],
    ),
    (
        "a memory hog",
        "python",
        "import subprocess, sys\nprint('begun', flush=True)\n\
         while True: subprocess.run([sys.executable, '-c', 'all = [bytearray(1 << 20) for _ in range(5000)]'])",
        // The kernel may kill the interpreter instead of its child.
        &["timeout", "out_of_memory"],
    ),
    ("a fork bomb", "python", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", &["timeout"]),
    (
        "a disk filler",
        "python",
        "import os\nwhile True:\n    with open('/tmp/big', 'wb') as file:\n        try:\n            while True: file.write(bytes(1 << 20))\n        \
         except OSError: pass",
        &["timeout"],
    ),
    ("endless output", "python", "import os\nwhile True: os.write(1, b'0123456789\\n' * 100)", &["output_limit"]),
    (
        "a line of 100 megabytes",
        "python",
        "import os\nline = b'x' * 100_000_000\nwhile line: line = line[os.write(1, line):]",
        &["output_limit"],
    ),
    (
        "many connections",
        "python",
        "import socket\nlistener = socket.create_server(('127.0.0.1', 8000), backlog=1000)\nwhile True:\n    \
         streams = [socket.create_connection(('127.0.0.1', 8000)) for _ in range(400)]\n    \
         for stream in streams: stream.close()\n    for _ in streams: listener.accept()[0].close()",
        &["timeout"],
    ),
    (
        "many tiny files",
        "python",
        "import os\nwhile True:\n    for n in range(50_000): open(f'/tmp/{n}', 'w').close()\n    \
         for n in range(50_000): os.unlink(f'/tmp/{n}')",
        &["timeout"],
    ),
    (
        "many packets to where none may go",
        "python",
        "import socket\none = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nwhile True:\n    \
         try: one.sendto(b'x' * 1400, ('192.168.255.254', 9))\n    except OSError: pass",
        &["timeout"],
    ),
    (
        "a kept sandbox with many processes",
        KEPT,
        "import subprocess\nsubprocess.run('for n in $(seq 40); do (while :; do :; done) & done; wait', shell=True)",
        &[DEADLINE],
    ),
    (
        "a kept sandbox that writes to the disk",
        KEPT,
        "import subprocess\nsubprocess.run('while :; do dd if=/dev/zero of=big bs=1M count=200 conv=fsync; rm big; done', shell=True)",
        &[DEADLINE],
    ),
];

/// Stands for Python in a kept sandbox that lives as long as one run of abuse.
const KEPT: &str = "kept";
/// How such a sandbox ends.
const DEADLINE: &str = "the sandbox's deadline";

static SERVER: OnceLock<Server> = OnceLock::new();
static ALONE: OnceCell<Latencies> = OnceCell::const_new();
static BESIDE: Mutex<Vec<(&str, Latencies)>> = Mutex::new(Vec::new());

/// The server of these tests, on which nothing else runs.
fn server() -> &'static Server {
    SERVER.get_or_init(|| {
        let warm = [("ONCEBOX_TEMPLATES__PYTHON__WARM", "2"), ("ONCEBOX_TEMPLATES__JSHELL__WARM", "1")];
        Server::start_cold(&warm)
    })
}

/// Stops the server, if a test has started it. False if it did not end well.
pub(crate) fn stop() -> bool {
    SERVER.get().is_none_or(Server::stop)
}

/// The abusers of `make test`. The others only run in `make test-all`, because nothing else can run beside a case.
const USUAL: [&str; 3] = ["a spinner with many threads", "a fork bomb", "a kept sandbox that writes to the disk"];

/// One case for each abuser.
pub(crate) fn trials() -> Vec<Trial> {
    let beside = |(name, language, code, kinds)| {
        let title = format!("a client waits long beside {name}");
        // Alone, because other cases would be abusers too.
        let case = case_alone("neighbours", &title, move || is_served(name, language, code, kinds));
        case.with_ignored_flag(!USUAL.contains(&name))
    };
    ABUSERS.into_iter().map(beside).collect()
}

/// The measurements: the number of requests, the latencies alone, and those beside each abuser that was tested.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) runs: usize,
    pub(crate) alone: Latencies,
    pub(crate) beside: Vec<(&'static str, Latencies)>,
}

/// The measurements, if there are any.
pub(crate) fn measured() -> Option<Measured> {
    let beside = std::mem::take(&mut *BESIDE.lock().expect("the table"));
    Some(Measured { runs: RUNS, alone: *ALONE.get()?, beside })
}

/// The times from request to answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latencies {
    pub(crate) median: Duration,
    pub(crate) worst: Duration,
}

impl Latencies {
    async fn measure() -> Self {
        let mut all = Vec::new();
        for _ in 0..RUNS {
            let began = Instant::now();
            let answer = server().run("python", "1+1").await;
            assert_eq!((&answer["outcome"]["kind"], &answer["results"]), (&json!("ok"), &json!(["2"])), "{answer}");
            all.push(began.elapsed());
        }
        all.sort();
        Self { median: all[RUNS / 2], worst: all[RUNS - 1] }
    }
}

/// Measures latencies without an abuser, after waiting for the clean-up of earlier cases.
async fn alone() -> Latencies {
    tokio::time::sleep(Duration::from_secs(10)).await;
    Latencies::measure().await;
    Latencies::measure().await
}

/// Runs abusive code once; returns the kind of the outcome, or the whole answer if it has none.
async fn abuse(language: &str, code: &str) -> String {
    let request = json!({
        "language": language, "code": code, "timeout_ms": ABUSE.as_millis() as u64,
        // Endless output soon reaches this limit, and the abuser starts again.
        "limits": {"output_bytes": 8 << 20},
    });
    let (_, answer) = server().post("/v1/run", &request).await;
    answer["outcome"]["kind"].as_str().map_or_else(|| answer.to_string(), str::to_owned)
}

/// Runs abusive code in a kept sandbox; returns how the sandbox ended.
async fn abuse_kept(code: &str) -> String {
    let post = |path: &str| server().http.post(format!("{}{path}", server().url)).header("x-api-key", KEY);
    let asked = post("/v2/sandboxes").json(&json!({"templateID": "code-interpreter-v1", "timeout": ABUSE.as_secs()}));
    let created: Value = asked.send().await.expect("an answer").json().await.expect("JSON");
    let Some(id) = created["sandboxID"].as_str() else { return created.to_string() };
    let execute = post("/execute").header("e2b-sandbox-id", id).header("e2b-sandbox-port", INTERPRETER);
    let told = execute.json(&json!({"code": code})).send().await.expect("an answer");
    // The answer breaks off with the sandbox, or shows how the code ended.
    let lines = told.text().await.unwrap_or_default();
    let is_over = server().http.get(format!("{}/sandboxes/{id}", server().url)).header("x-api-key", KEY);
    match is_over.send().await.expect("an answer").status().as_u16() {
        404 => DEADLINE.to_owned(),
        status => format!("{status} {lines}"),
    }
}

async fn is_served(name: &'static str, language: &'static str, code: &'static str, kinds: &'static [&'static str]) {
    let alone = *ALONE.get_or_init(alone).await;
    let ended = Arc::<Mutex<Vec<String>>>::default();
    let abuser = {
        let ended = Arc::clone(&ended);
        tokio::spawn(async move {
            // An abuser that was stopped starts again at once.
            loop {
                let end = if language == KEPT { abuse_kept(code).await } else { abuse(language, code).await };
                ended.lock().expect("the ends").push(end);
            }
        })
    };
    let nobody = || ended.lock().expect("the ends").is_empty();
    let runs = async || !nobody() || server().get("/v1/status").await.1["running"] != 0;
    eventually("the abuser runs", runs).await;
    let is_well = |beside: &Latencies| {
        beside.worst < Duration::from_secs(2) + 3 * alone.worst
            && beside.median < Duration::from_millis(100) + 3 * alone.median
    };
    let mut beside = Latencies::measure().await;
    // Measures again, up to three times: a machine that halts for a moment is not the abuser's fault, and the abuser
    // goes on.
    for _ in 0..2 {
        if is_well(&beside) {
            break;
        }
        eprintln!("beside {name}: {beside:?}, alone {alone:?}: once more");
        beside = Latencies::measure().await;
    }
    eventually("the abuser is ended", async || !nobody()).await;
    // Its client hangs up, which ends the abuser's run.
    abuser.abort();
    let _ = abuser.await;
    eventually("it is over", async || server().get("/v1/status").await.1["running"] == 0).await;
    for end in ended.lock().expect("the ends").iter() {
        assert!(kinds.contains(&end.as_str()), "{name} was no abuser: {end}");
    }
    BESIDE.lock().expect("the table").push((name, beside));
    assert!(is_well(&beside), "beside {name}: {beside:?}, alone {alone:?}");
}
