//! Resources that the kernel counts for a user or for the whole host. Code in one sandbox takes as much as it can and
//! keeps it; another sandbox and the host must still have some. The test fails if the code could not take any.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use libtest_mimic::Trial;
use serde_json::json;

use crate::attacker::create;
use crate::case_alone;
use crate::e2b::Sandbox;
use crate::support::{Server, eventually};

/// Python code that all programs share.
const COMMON: &str = include_str!("shares/common.py");

/// Each shared resource, with a program that takes all of it or one unit, and the expected result for root.
const SHARES: [Share; 9] = [
    Share { name: "inotify instances", program: include_str!("shares/instances.py"), root: Root::Refused },
    Share { name: "inotify watches", program: include_str!("shares/watches.py"), root: Root::Refused },
    Share { name: "waiting signals", program: include_str!("shares/signals.py"), root: Root::Takes },
    Share { name: "timers", program: include_str!("shares/timers.py"), root: Root::Takes },
    Share { name: "message queues", program: include_str!("shares/queues.py"), root: Root::Takes },
    Share { name: "pages of pipes", program: include_str!("shares/pipes.py"), root: Root::Takes },
    Share { name: "descriptors in flight", program: include_str!("shares/flight.py"), root: Root::Takes },
    Share { name: "locked shared memory", program: include_str!("shares/locked.py"), root: Root::Nobody },
    Share { name: "requests of io_setup", program: include_str!("shares/aio.py"), root: Root::Nobody },
];

struct Share {
    name: &'static str,
    program: &'static str,
    root: Root,
}

/// The share that root in a sandbox gets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Root {
    /// Root gets nothing. User code gets some.
    Refused,
    /// Root gets some, which the host's root does not miss.
    Takes,
    /// Neither root nor user code gets any. The host's users do, which shows that the attempt can succeed.
    Nobody,
}

static SERVER: OnceLock<Server> = OnceLock::new();

/// Stops the server, if a case has started it. False if it did not end well.
pub(crate) fn stop() -> bool {
    SERVER.get().is_none_or(Server::stop)
}

/// One case for each resource, taken by user code and by root.
pub(crate) fn trials() -> Vec<Trial> {
    let one = |share: &'static Share, by_root: bool| {
        let who = if by_root { "root" } else { "user code" };
        // Alone, because the resource may be used up on the whole machine.
        case_alone("shares", &format!("{who} takes all {}", share.name), move || takes_no_others(share, by_root))
    };
    SHARES.iter().flat_map(|share| [one(share, false), one(share, true)]).collect()
}

async fn takes_no_others(share: &'static Share, by_root: bool) {
    let server = SERVER.get_or_init(|| Server::start_cold(&[]));
    let [taker, other] = [create(server, "code-interpreter-v1").await, create(server, "code-interpreter-v1").await];
    let program_as = |uid: &str, mode: &str| format!("UID = {uid}\nMODE = '{mode}'\n{COMMON}\n{}", share.program);
    let program = |mode: &str| program_as("None", mode);

    let taken = take_all(server, &taker, &program("all"), by_root).await;
    match (share.root, by_root) {
        (Root::Takes | Root::Refused, false) => assert!(taken > 0, "{}: the attempt is none", share.name),
        // The amount depends on all other processes of root.
        (Root::Takes, true) => {}
        (Root::Refused, true) | (Root::Nobody, _) => assert_eq!(taken, 0, "{}", share.name),
    }

    if share.root != Root::Nobody {
        assert_eq!(inside(server, &other, &program("one")).await, "1\n", "{}: another sandbox", share.name);
    }
    for uid in ["None", "1000", "65534"] {
        let output = Command::new("python3").args(["-c", &program_as(uid, "one")]).stdin(Stdio::null()).output();
        let output = output.expect("python3");
        let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(told, "1\n", "{}: the host's user {uid}", share.name);
    }
    for sandbox in [taker, other] {
        let delete = server.http.delete(format!("{}/sandboxes/{}", server.url, sandbox.id));
        let gone = delete.header("x-api-key", crate::e2b::KEY).send().await.expect("an answer");
        assert_eq!(gone.status(), 204);
    }
}

/// Takes all of a resource and keeps it; returns the amount.
async fn take_all(server: &Server, sandbox: &Sandbox, program: &str, by_root: bool) -> u64 {
    let sudo = if by_root { "sudo -n " } else { "" };
    let begin = format!("setsid {sudo}python3 -c \"$PROGRAM\" > /tmp/taken 2>&1 < /dev/null & true");
    inside_shell(server, sandbox, &begin, program).await;
    let mut told = String::new();
    eventually("all is taken", async || {
        told = inside_shell(server, sandbox, "cat /tmp/taken", "").await;
        told.ends_with('\n')
    })
    .await;
    told.trim().parse().unwrap_or_else(|_| panic!("{told}"))
}

async fn inside(server: &Server, sandbox: &Sandbox, program: &str) -> String {
    inside_shell(server, sandbox, "python3 -c \"$PROGRAM\" 2>&1", program).await
}

async fn inside_shell(server: &Server, sandbox: &Sandbox, command: &str, program: &str) -> String {
    let code = "import os, subprocess\nprint(subprocess.run(os.environ['COMMAND'], shell=True, executable='/bin/bash', \
                stdout=subprocess.PIPE, text=True).stdout, end='')";
    let body = json!({"code": code, "env_vars": {"COMMAND": command, "PROGRAM": program}});
    let request = server.http.post(format!("{}/execute", server.url)).header("e2b-sandbox-id", &sandbox.id);
    let request = request.header("e2b-sandbox-port", crate::e2b::INTERPRETER).json(&body);
    let lines = request.send().await.expect("an answer").text().await.expect("all of it");
    let told = crate::e2b::execution_lines(&lines);
    let printed = told.iter().find(|line| line["type"] == "stdout");
    printed.and_then(|line| line["text"].as_str()).unwrap_or_default().to_owned()
}
