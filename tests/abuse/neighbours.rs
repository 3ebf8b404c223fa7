//! Whoever is beside an abuser: a client that runs `1+1` gets its answers all the same, and not much later.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::case;
use crate::support::{Server, eventually};

/// How often the client asks.
const RUNS: usize = 12;

/// How long an abuser may go on; it then comes again.
const ABUSE_MS: u64 = 6000;

/// What each of them does, in which language, and how it is ended if it really does that.
const ABUSERS: [(&str, &str, &str, &[&str]); 8] = [
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
        // The kernel may choose the interpreter.
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
];

static SERVER: OnceLock<Server> = OnceLock::new();
static ALONE: OnceCell<Latencies> = OnceCell::const_new();
/// One at a time, or they would be each other's neighbours.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// One of their own, where nobody else runs anything.
fn server() -> &'static Server {
    SERVER.get_or_init(|| {
        let warm = [("ONCEBOX_TEMPLATES__PYTHON__WARM", "2"), ("ONCEBOX_TEMPLATES__JSHELL__WARM", "1")];
        Server::start_cold(&warm)
    })
}

/// Stops it, if a test has started it. False if it did not end well.
pub(crate) fn stop() -> bool {
    SERVER.get().is_none_or(Server::stop)
}

/// One of each abuser.
pub(crate) fn trials() -> Vec<Trial> {
    let beside = |(name, language, code, kinds)| {
        let title = format!("a client waits long beside {name}");
        case("neighbours", &title, move || is_served(name, language, code, kinds))
    };
    ABUSERS.into_iter().map(beside).collect()
}

/// A line for each abuser.
pub(crate) fn told() -> Vec<String> {
    std::mem::take(&mut TOLD.lock().expect("the table"))
}

#[derive(Debug, Clone, Copy)]
struct Latencies {
    median: Duration,
    worst: Duration,
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

async fn is_served(name: &'static str, language: &'static str, code: &'static str, kinds: &'static [&'static str]) {
    let _turn = TURN.lock().await;
    let alone = *ALONE.get_or_init(Latencies::measure).await;
    let ended = Arc::<Mutex<Vec<Value>>>::default();
    let abuser = {
        let ended = Arc::clone(&ended);
        tokio::spawn(async move {
            // One that is ended comes again at once.
            loop {
                let request = json!({"language": language, "code": code, "timeout_ms": ABUSE_MS});
                let (_, mut answer) = server().post("/v1/run", &request).await;
                ended.lock().expect("the ends").push(answer["outcome"].take());
            }
        })
    };
    let nobody = || ended.lock().expect("the ends").is_empty();
    let runs = async || !nobody() || server().get("/v1/status").await.1["running"] != 0;
    eventually("the abuser runs", runs).await;
    let beside = Latencies::measure().await;
    eventually("the abuser is ended", async || !nobody()).await;
    // Its client hangs up, and so it is ended.
    abuser.abort();
    let _ = abuser.await;
    eventually("it is over", async || server().get("/v1/status").await.1["running"] == 0).await;
    for outcome in ended.lock().expect("the ends").iter() {
        let kind = outcome["kind"].as_str().unwrap_or_else(|| panic!("{name} was no abuser: {outcome}"));
        assert!(kinds.contains(&kind), "{name} was no abuser: {outcome}");
    }
    let times = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64().max(0.001);
    let (median, worst) = (times(beside.median, alone.median), times(beside.worst, alone.worst));
    let line = format!(
        "neighbours: beside {name}: median x{median:.1}, worst x{worst:.1} ({} and {} ms)",
        beside.median.as_millis(),
        beside.worst.as_millis()
    );
    TOLD.lock().expect("the table").push(line);
    // A machine that is busy with something else keeps everybody waiting, alone too.
    assert!(beside.worst < Duration::from_secs(10) + 2 * alone.worst, "beside {name}: {beside:?}, alone {alone:?}");
    assert!(beside.median < Duration::from_secs(1) + 10 * alone.median, "beside {name}: {beside:?}, alone {alone:?}");
}
