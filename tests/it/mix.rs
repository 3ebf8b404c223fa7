//! A mix of runs in all languages with all kinds of ends, each of which tells what its answer must be. More are asked for at once
//! than there may be sandboxes, and every answer is compared.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::support::{Server, stdout};

/// What a client does, and how it must end.
enum Deed {
    /// It asks for a run: the outcome's kind, the limit that it names, what is printed.
    Run { request: Value, kind: &'static str, limit: Option<&'static str>, prints: Option<String> },
    /// It hangs up after so long.
    HangUp { request: Value, after: Duration },
    /// It has a sandbox kept, and kills it.
    Keep,
}

/// The kinds, and how many of a thousand are of each. Runs with container limits of their own are launched for themselves, and
/// so few: the others are to be served warm.
const KINDS: [(&str, u32); 13] = [
    ("ok", 480),
    ("exception", 160),
    ("exit", 70),
    ("signal", 60),
    ("timeout", 50),
    ("output_limit", 50),
    ("files in", 60),
    ("hang-up", 30),
    ("kept", 12),
    ("out_of_memory", 9),
    ("process_limit", 7),
    ("disk_full", 7),
    ("ok, own limits", 5),
];

const MIB: u64 = 1 << 20;

/// What was done, and what was not as it must be.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How many of each kind were done.
    pub(crate) done: BTreeMap<&'static str, usize>,
    /// What was wrong: the deed's number, its kind, and the answer.
    pub(crate) wrong: Vec<String>,
}

impl Tally {
    /// How many were done.
    pub(crate) fn total(&self) -> usize {
        self.done.values().sum()
    }
}

/// Does `runs` deeds, `clients` at a time, until `deadline` at the latest; `progress` hears of each that is done.
pub(crate) async fn load(
    server: &Server,
    seed: u64,
    runs: usize,
    clients: usize,
    deadline: Instant,
    mut progress: impl FnMut(&Tally),
) -> Tally {
    let numbers = stream::iter(0..runs).take_while(|_| std::future::ready(Instant::now() < deadline));
    let mut done = numbers
        .map(|number| async move {
            let (kind, deed) = choose(seed, number);
            (number, kind, do_it(server, deed).await)
        })
        .buffer_unordered(clients);
    let mut tally = Tally::default();
    while let Some((number, kind, done)) = done.next().await {
        *tally.done.entry(kind).or_default() += 1;
        if let Err(wrong) = done {
            eprintln!("number {number} of seed {seed}, {kind}: {wrong:.2000}");
            tally.wrong.push(format!("number {number}, {kind}: {wrong:.500}"));
        }
        progress(&tally);
    }
    tally
}

async fn do_it(server: &Server, deed: Deed) -> Result<(), String> {
    match deed {
        Deed::Run { request, kind, limit, prints } => {
            let (status, answer) = send(server, &request).await?;
            let outcome = &answer["outcome"];
            let is_so = status == 200
                && outcome["kind"] == kind
                && outcome["limit"].get("name").and_then(Value::as_str) == limit
                && answer.get("error").is_none() == (kind == "ok")
                && prints.is_none_or(|prints| stdout(&answer) == prints);
            if is_so { Ok(()) } else { Err(format!("{status} {answer} for {request}")) }
        }
        Deed::HangUp { request, after } => {
            let _ = tokio::time::timeout(after, send(server, &request)).await;
            Ok(())
        }
        Deed::Keep => {
            let post = server.http.post(format!("{}/sandboxes", server.url)).header("x-api-key", KEY);
            let created = post.json(&json!({"templateID": "base", "timeout": 60})).send().await.map_err(said)?;
            let status = created.status().as_u16();
            let created: Value = created.json().await.map_err(said)?;
            let Some(id) = created["sandboxID"].as_str().filter(|_| status == 201) else {
                return Err(format!("{status} {created}"));
            };
            let delete = server.http.delete(format!("{}/sandboxes/{id}", server.url)).header("x-api-key", KEY);
            let killed = delete.send().await.map_err(said)?.status().as_u16();
            if killed == 204 { Ok(()) } else { Err(format!("{killed} when it was killed")) }
        }
    }
}

/// Any does while the server has none.
const KEY: &str = "e2b_1111111111111111111111111111111111111111";

async fn send(server: &Server, request: &Value) -> Result<(u16, Value), String> {
    let response = server.http.post(format!("{}/v1/run", server.url)).json(request).send().await.map_err(said)?;
    Ok((response.status().as_u16(), response.json().await.map_err(said)?))
}

fn said(err: reqwest::Error) -> String {
    format!("{err:?}")
}

/// What the client of this number does.
fn choose(seed: u64, number: usize) -> (&'static str, Deed) {
    let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
    let all: u32 = KINDS.iter().map(|(_, weight)| weight).sum();
    let mut at = random.random_range(0..all);
    let kind = KINDS.iter().find_map(|(kind, weight)| match at.checked_sub(*weight) {
        Some(rest) => {
            at = rest;
            None
        }
        None => Some(*kind),
    });
    let kind = kind.expect("it is below the sum");
    (kind, deed(kind, number, &mut random))
}

fn deed(kind: &str, number: usize, random: &mut StdRng) -> Deed {
    match kind {
        "ok" => {
            let (language, code) = one_of(random, &PRINTS);
            run(json!({"language": language, "code": code.replace('N', &number.to_string())}), "ok", None)
                .printing(format!("{number}\n"))
        }
        "exception" => coded(random, "exception", &RAISES),
        "exit" => coded(random, "exit", &EXITS),
        "signal" => coded(random, "signal", &DIES),
        "timeout" => {
            let (language, code) = one_of(random, &STAYS);
            let timeout_ms = random.random_range(100..500);
            run(json!({"language": language, "code": code, "timeout_ms": timeout_ms}), "timeout", Some("timeout_ms"))
        }
        "output_limit" => {
            let (language, code) = one_of(random, &PRINTS_ON);
            let request = json!({"language": language, "code": code, "limits": {"output_bytes": 20_000}});
            run(request, "output_limit", Some("output_bytes"))
        }
        "files in" => {
            let content = format!("content of {number}");
            let request = json!({
                "language": "python",
                "code": "print(open('in/file.txt').read())",
                "files": [{"path": "in/file.txt", "content": content}],
            });
            run(request, "ok", None).printing(format!("{content}\n"))
        }
        "hang-up" => {
            let (language, code) = one_of(random, &STAYS);
            let request = json!({"language": language, "code": code, "timeout_ms": 5000});
            Deed::HangUp { request, after: Duration::from_millis(random.random_range(0..300)) }
        }
        "kept" => Deed::Keep,
        "out_of_memory" => limited(
            "blocks = []\nwhile True: blocks.append(bytearray(8 << 20))",
            "out_of_memory",
            ("memory_bytes", 128 * MIB),
        ),
        "process_limit" => limited(
            "import subprocess\nchildren = [subprocess.Popen(['sleep', '60']) for _ in range(64)]",
            "process_limit",
            ("processes", 32),
        ),
        "disk_full" => limited(
            "with open('/tmp/big', 'wb') as file:\n    while True: file.write(bytes(1 << 20))",
            "disk_full",
            ("disk_bytes", 16 * MIB),
        ),
        "ok, own limits" => {
            let request = json!({"language": "js", "code": "console.log(1)", "limits": {"memory_bytes": 256 * MIB}});
            run(request, "ok", None).printing("1\n".to_owned())
        }
        kind => unreachable!("{kind} is not in the table"),
    }
}

/// Each prints its number.
const PRINTS: [(&str, &str); 8] = [
    ("python", "print(N)"),
    ("python", "import json\nprint(json.loads('N'))"),
    ("python", "import subprocess\nsubprocess.run(['echo', 'N'])"),
    ("js", "console.log(N)"),
    ("js", "await new Promise(done => setTimeout(done, 5)); console.log(N)"),
    ("ts", "const number: number = N; console.log(number)"),
    ("r", "cat(\"N\\n\")"),
    ("java", "System.out.println(N)"),
];

const RAISES: [(&str, &str); 6] = [
    ("python", "1 / 0"),
    ("python", "raise ValueError('on purpose')"),
    ("js", "throw new Error('on purpose')"),
    ("ts", "const broken: number = JSON.parse('{')"),
    ("r", "stop('on purpose')"),
    ("java", "throw new IllegalStateException(\"on purpose\")"),
];

const EXITS: [(&str, &str); 3] =
    [("python", "import sys\nsys.exit(3)"), ("python", "import os\nos._exit(4)"), ("js", "process.exit(5)")];

const DIES: [(&str, &str); 3] = [
    ("python", "import os\nos.kill(os.getpid(), 9)"),
    ("python", "import ctypes\nctypes.string_at(0)"),
    ("js", "process.kill(process.pid, 'SIGKILL'); await new Promise(() => setTimeout(() => {}, 600_000))"),
];

const STAYS: [(&str, &str); 4] = [
    ("python", "while True: pass"),
    ("python", "import time\ntime.sleep(600)"),
    ("js", "while (true) {}"),
    ("js", "await new Promise(done => setTimeout(done, 600_000))"),
];

const PRINTS_ON: [(&str, &str); 2] =
    [("python", "while True: print('0123456789')"), ("js", "while (true) console.log('0123456789')")];

fn one_of(random: &mut StdRng, codes: &[(&'static str, &'static str)]) -> (&'static str, &'static str) {
    codes[random.random_range(0..codes.len())]
}

fn coded(random: &mut StdRng, kind: &'static str, codes: &[(&'static str, &'static str)]) -> Deed {
    let (language, code) = one_of(random, codes);
    run(json!({"language": language, "code": code}), kind, None)
}

fn limited(code: &str, kind: &'static str, limit: (&'static str, u64)) -> Deed {
    run(json!({"language": "python", "code": code, "limits": {limit.0: limit.1}}), kind, Some(limit.0))
}

fn run(request: Value, kind: &'static str, limit: Option<&'static str>) -> Deed {
    Deed::Run { request, kind, limit, prints: None }
}

impl Deed {
    fn printing(self, text: String) -> Self {
        match self {
            Self::Run { request, kind, limit, .. } => Self::Run { request, kind, limit, prints: Some(text) },
            other => other,
        }
    }
}
