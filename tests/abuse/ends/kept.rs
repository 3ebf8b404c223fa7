//! How abuse ends in kept sandboxes, over the API of E2B's interpreters: the error has exactly the expected text, and
//! the next execution is answered.

use std::collections::BTreeSet;
use std::time::Duration;

use libtest_mimic::Trial;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::printing_first;
use crate::case;
use crate::e2b::{INTERPRETER, Sandbox, answer, in_time};

/// The language, the code, and the error's name and value, without the text about the limit.
type Failure = (&'static str, &'static str, &'static str, &'static str);

/// The case, the text about the limit that is hit, and the code that brings it about. Bash only reports statuses.
const FAILURES: [(&str, &str, &[Failure]); 12] = [
    (
        "one big allocation",
        MEMORY,
        &[
            ("python", "block = b'x' * (2 << 30)", "OutOfMemory", ""),
            ("js", "Buffer.alloc(600 << 20, 1)", "OutOfMemory", ""),
            ("ts", "const block: Buffer = Buffer.alloc(600 << 20, 1)", "OutOfMemory", ""),
            ("r", "block <- raw(600e6); block[] <- as.raw(1)", "OutOfMemory", ""),
            ("java", "byte[] block = new byte[1 << 30];", "OutOfMemoryError", "Java heap space"),
        ],
    ),
    (
        "many small allocations",
        MEMORY,
        &[
            ("js", "const all = []; while (true) all.push({ number: all.length })", "OutOfMemory", ""),
            ("ts", "const all: object[] = []; while (true) all.push({ number: all.length })", "OutOfMemory", ""),
        ],
    ),
    (
        "the memory of a child",
        MEMORY,
        &[
            (
                "python",
                "import subprocess\nsubprocess.run(['tail', '/dev/zero'], check=True)",
                "CalledProcessError",
                "Command '['tail', '/dev/zero']' died with <Signals.SIGKILL: 9>.",
            ),
            (
                "js",
                "require('child_process').execFileSync('tail', ['/dev/zero'])",
                "Error",
                "Command failed: tail /dev/zero",
            ),
            (
                "ts",
                "import { execFileSync } from 'child_process'\nexecFileSync('tail' as string, ['/dev/zero'])",
                "Error",
                "Command failed: tail /dev/zero",
            ),
            (
                "r",
                "stopifnot(system('tail /dev/zero') == 0)",
                "ERROR",
                "Error: system(\"tail /dev/zero\") == 0 is not TRUE",
            ),
            (
                "java",
                "if (new ProcessBuilder(\"tail\", \"/dev/zero\").start().waitFor() == 137) throw new IOException(\"killed\");",
                "IOException",
                "killed",
            ),
            ("bash", "tail /dev/zero", "", "137"),
        ],
    ),
    (
        "too many processes",
        PROCESSES,
        &[
            (
                "python",
                "import subprocess\nfor _ in range(100): subprocess.Popen(['sleep', '60'])",
                "BlockingIOError",
                "[Errno 11] Resource temporarily unavailable",
            ),
            (
                "js",
                "const { spawn } = require('child_process'); for (let n = 0; n < 100; n++) spawn('sleep', ['60'])",
                "Error",
                "spawn sleep EAGAIN",
            ),
            (
                "ts",
                "import { spawn } from 'child_process'\nfor (let n: number = 0; n < 100; n++) spawn('sleep', ['60'])",
                "Error",
                "spawn sleep EAGAIN",
            ),
            (
                "r",
                "for (n in 1:100) parallel::mcparallel(Sys.sleep(60))",
                "ERROR",
                "Error in mcfork(detached) : \n  unable to fork, possible reason: Resource temporarily unavailable",
            ),
            (
                "java",
                "for (int n = 0; n < 200; n++) Thread.ofPlatform().daemon().start(() -> { try { Thread.sleep(60_000); } catch (InterruptedException e) {} });",
                "OutOfMemoryError",
                "unable to create native thread: possibly out of memory or process/resource limits reached",
            ),
            (
                "bash",
                "python3 -c \"import os\nfor _ in range(100): os.spawnlp(os.P_NOWAIT, 'sleep', 'sleep', '60')\"",
                "",
                "1",
            ),
        ],
    ),
    // Bash tries again for 15 seconds, then waits for one of its processes before it continues.
    ("too many processes of its own", PROCESSES, &[("bash", "for n in $(seq 100); do sleep 30 & done", "", "254")]),
    (
        "one big file",
        DISK,
        &[
            (
                "python",
                "with open('/tmp/big', 'wb', 0) as file:\n    while True: file.write(bytes(1 << 20))",
                "OSError",
                "[Errno 28] No space left on device",
            ),
            (
                "js",
                "const fs = require('fs'), file = fs.openSync('/tmp/big', 'w'); while (true) fs.writeSync(file, Buffer.alloc(1 << 20))",
                "Error",
                "ENOSPC: no space left on device, write",
            ),
            (
                "ts",
                "import * as fs from 'fs'\nconst file: number = fs.openSync('/var/tmp/big', 'w')\nwhile (true) fs.writeSync(file, Buffer.alloc(1 << 20))",
                "Error",
                "ENOSPC: no space left on device, write",
            ),
            (
                "r",
                "file <- file('/tmp/big', 'wb'); for (n in 1:64) writeBin(raw(2^20), file); close(file); stopifnot(file.size('/tmp/big') == 2^26)",
                "ERROR",
                "Error: file.size(\"/tmp/big\") == 2^26 is not TRUE",
            ),
            (
                "java",
                "try (var file = new FileOutputStream(\"/tmp/big\")) { while (true) file.write(new byte[1 << 20]); }",
                "IOException",
                "No space left on device",
            ),
            ("bash", "cat /dev/zero > /home/user/big", "", "1"),
        ],
    ),
    (
        "endless output",
        OUTPUT,
        &[
            ("python", "while True: print('x' * 1000)", "OutputLimit", ""),
            ("js", "while (true) console.log('x'.repeat(1000))", "OutputLimit", ""),
            ("ts", "while (true as boolean) console.log('x'.repeat(1000))", "OutputLimit", ""),
            ("r", "repeat cat(strrep('x', 1000))", "OutputLimit", ""),
            ("java", "while (true) System.out.println(\"x\".repeat(1000));", "OutputLimit", ""),
            ("bash", "yes", "OutputLimit", ""),
        ],
    ),
    (
        "an exit",
        "",
        &[
            ("python", "import os; os._exit(3)", "SystemExit", "3"),
            ("js", "process.exit(3)", "SystemExit", "3"),
            ("ts", "process.exit(3 as number)", "SystemExit", "3"),
            ("r", "quit(status = 3)", "SystemExit", "3"),
            ("java", "System.exit(3);", "SystemExit", "3"),
        ],
    ),
    (
        "an interpreter that is killed",
        "",
        &[
            ("python", "import os; os.kill(os.getpid(), 9)", "ContextRestarting", KILLED),
            ("js", "process.kill(process.pid, 'SIGKILL')", "ContextRestarting", KILLED),
            ("ts", "process.kill(process.pid, 'SIGKILL' as const)", "ContextRestarting", KILLED),
            ("r", "tools::pskill(Sys.getpid(), 9L); Sys.sleep(10)", "ContextRestarting", KILLED),
            (
                "java",
                "new ProcessBuilder(\"kill\", \"-9\", \"\" + ProcessHandle.current().pid()).start().waitFor(); Thread.sleep(10_000);",
                "ContextRestarting",
                KILLED,
            ),
            // This kills the interpreter of the shell, not the shell itself, which the interpreter would restart.
            ("bash", "kill -9 $PPID; sleep 10", "ContextRestarting", KILLED),
        ],
    ),
    ("an exit of a child", "", &[("bash", "bash -c 'exit 3'", "", "3")]),
    // No limit was hit.
    ("a child that is killed", "", &[("bash", "bash -c 'kill -9 $$'", "", "137")]),
    (
        "an exception",
        "",
        &[
            ("python", "raise KeyError('own')", "KeyError", "'own'"),
            ("js", "throw new RangeError('own')", "RangeError", "own"),
            ("ts", "throw new RangeError('own' as string)", "RangeError", "own"),
            ("r", "stop('own')", "ERROR", "Error: own\n"),
            ("java", "throw new IllegalStateException(\"own\");", "IllegalStateException", "own"),
        ],
    ),
];

const MEMORY: &str = "the code needed more than memory_bytes = 402653184; files it wrote count too";
const PROCESSES: &str = "the code started more than processes = 64 processes and threads";
const DISK: &str = "the code filled the writable disk: disk_bytes = 16777216 in each writable directory";
const OUTPUT: &str = "the code wrote more than output_bytes = 1000000 and was stopped; print less";
const KILLED: &str = "Context was restarted: the interpreter was killed by signal 9 (SIGKILL)";

/// Code that does not end by itself.
const ENDLESS: [(&str, &str); 6] = [
    ("python", "while True: pass"),
    ("js", "while (true);"),
    ("ts", "while (true as boolean);"),
    ("r", "repeat {}"),
    ("java", "while (true) {}"),
    ("bash", "while true; do :; done"),
];

/// Endless code that prints, little or much at once.
const ENDLESS_PRINTING: [(&str, &str); 8] = [
    ("python", "while True: print('x')"),
    ("js", "while (true) console.log('x')"),
    ("ts", "while (true as boolean) console.log('x')"),
    ("r", "repeat cat('x\\n')"),
    ("java", "while (true) System.out.println(\"x\");"),
    ("bash", "while true; do echo x; done"),
    ("js", "while (true) process.stdout.write('x'.repeat(200_000) + '\\n')"),
    ("ts", "while (true as boolean) process.stdout.write('x'.repeat(200_000) + '\\n')"),
];

pub(super) fn trials() -> Vec<Trial> {
    let failures = FAILURES.into_iter().flat_map(|(what, limit, failures)| {
        failures.iter().map(move |&failure| {
            let title = format!("{}::{what}, by /execute", failure.0);
            case("ends", &title, move || reports_failure(failure, limit))
        })
    });
    let endless = ENDLESS.into_iter().flat_map(|(language, code)| {
        let title = |what: &str| format!("{language}::{what}, by /execute");
        [
            case("ends", &title("the sandbox's time"), move || is_broken_off(language, code)),
            case("ends", &title("a client that hangs up"), move || is_interrupted(LIMITED, language, code)),
        ]
    });
    let printing = ENDLESS_PRINTING.into_iter().map(|(language, code)| {
        let what = if code.contains("repeat(") { "prints much" } else { "prints" };
        let title = format!("{language}::a client that hangs up while it {what}, by /execute");
        // In this template the output limit is far away.
        case("ends", &title, move || is_interrupted("code-interpreter-v1", language, code))
    });
    failures
        .chain(endless)
        .chain(printing)
        .chain([case("ends", "bash::an exit, by /execute", shell_is_restarted)])
        .collect()
}

/// The template with all languages and the limits above.
const LIMITED: &str = "python";

async fn sandbox(template: &str) -> Sandbox {
    Sandbox::create(json!({"templateID": template, "timeout": 600})).await
}

fn body(language: &str, code: &str) -> Value {
    let code = match language {
        "bash" => format!("echo before\n{code}"),
        _ => printing_first(language, code),
    };
    json!({"language": language, "code": code})
}

fn printed(lines: &[Value]) -> String {
    lines.iter().filter(|line| line["type"] == "stdout").filter_map(|line| line["text"].as_str()).collect()
}

async fn goes_on(sandbox: &Sandbox, language: &str) {
    let lines = in_time(sandbox.execute(&body(language, ""))).await;
    let mut kinds: BTreeSet<_> = lines.iter().map(|line| line["type"].as_str().expect("a type")).collect();
    kinds.remove("keepalive");
    assert_eq!(Vec::from_iter(kinds), ["end_of_execution", "number_of_executions", "stdout"], "{lines:?}");
    assert_eq!(printed(&lines), "before\n");
}

async fn reports_failure((language, code, name, own): Failure, limit: &str) {
    let sandbox = sandbox(LIMITED).await;
    let lines = in_time(sandbox.execute(&body(language, code))).await;
    let told = format!("{:.2000}", json!(lines).to_string());
    assert!(printed(&lines).starts_with("before\n"), "what was printed before is lost: {told}");
    let errors: Vec<_> = lines.iter().filter(|line| line["type"] == "error").collect();
    assert_eq!(errors.len(), 1, "{told}");
    let value = if own.is_empty() || limit.is_empty() { format!("{own}{limit}") } else { format!("{own}; {limit}") };
    assert_eq!((&errors[0]["name"], &errors[0]["value"]), (&json!(name), &json!(value)), "{told}");
    assert_eq!(lines.last(), Some(&json!({"type": "end_of_execution"})), "{told}");
    goes_on(&sandbox, language).await;
    sandbox.kill().await;
}

/// Starts code that prints first, and reads its output up to that.
async fn begin(sandbox: &Sandbox, language: &str, code: &str) -> Response {
    let request = sandbox.at(INTERPRETER, Method::POST, "/execute").json(&body(language, code));
    let mut response = request.send().await.expect("an answer");
    let mut told = String::new();
    while !told.contains("before") {
        let piece = in_time(response.chunk()).await.expect("it goes on").expect("it has not ended");
        told.push_str(std::str::from_utf8(&piece).expect("text"));
    }
    response
}

/// An execution has no timeout here. It ends with its sandbox, and must not look like a success then.
async fn is_broken_off(language: &str, code: &str) {
    let sandbox = sandbox(LIMITED).await;
    let response = begin(&sandbox, language, code).await;
    let shortened = sandbox.api(Method::POST, "/timeout", Some(json!({"timeout": 2}))).await;
    assert_eq!(shortened.status, 204, "{}", shortened.text());
    let told = tokio::time::timeout(Duration::from_secs(60), response.text()).await.expect("it goes on for ever");
    assert!(told.is_err(), "an orderly end: {told:?}");
    let next = answer(sandbox.at(INTERPRETER, Method::POST, "/execute").json(&body(language, ""))).await;
    let gone = json!({"sandboxId": sandbox.id, "message": "The sandbox was not found", "code": 502});
    assert_eq!((next.status, next.json()), (502, gone));
}

/// Hangs up, as the SDKs do when their timeout for an execution is over.
async fn is_interrupted(template: &str, language: &str, code: &str) {
    let sandbox = sandbox(template).await;
    for _ in 0..5 {
        drop(begin(&sandbox, language, code).await);
        goes_on(&sandbox, language).await;
    }
    sandbox.kill().await;
}

/// A shell that ends prints the same text as in E2B's service, and is restarted.
async fn shell_is_restarted() {
    let sandbox = sandbox(LIMITED).await;
    for (code, said) in [("exit 3", "before\nexit\nRestarting Bash\n"), ("kill -9 $$", "before\nRestarting Bash\n")] {
        let lines = sandbox.execute(&body("bash", code)).await;
        assert_eq!(printed(&lines), said, "{lines:?}");
        assert!(lines.iter().all(|line| line["type"] != "error"), "{lines:?}");
        goes_on(&sandbox, "bash").await;
    }
    sandbox.kill().await;
}
