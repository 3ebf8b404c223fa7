//! The actions of the mix's clients, in every language, with the expected answers.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

/// An action of a client.
pub(crate) enum Action {
    /// Requests a run and compares the answer.
    Run(Run),
    /// Requests a run that would take longer, and hangs up after this time.
    HangUp { request: Value, after: Duration },
    /// Creates a kept sandbox and kills it.
    Keep,
}

/// A run with its expected answer.
pub(crate) struct Run {
    pub(crate) request: Value,
    pub(crate) end: End,
    /// The whole standard output, regardless of the end.
    pub(crate) stdout: String,
    /// The results.
    pub(crate) results: Value,
    /// Whether it may end before anything is printed.
    pub(crate) hasty: bool,
    /// Whether it uses the processor until it ends.
    pub(crate) spins: bool,
}

/// The expected end of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Ok,
    /// An exception whose name or value contains this.
    Exception(&'static str),
    Exit(u8),
    /// The signal, as messages name it.
    Signal(&'static str),
    /// An outcome kind, with the name and value of its limit.
    Limit(&'static str, &'static str, u64),
}

use End::{Exception, Exit, Limit, Signal};

/// The kinds, with their share in a thousand. Runs with their own container limits need a new container each, so there
/// are few of them: most runs are served by warm sandboxes.
const KINDS: [(&str, u32); 14] = [
    ("ok", 480),
    ("exception", 160),
    ("exit", 70),
    ("signal", 60),
    ("timeout", 30),
    ("timeout, short", 20),
    ("output_limit", 50),
    ("files in", 60),
    ("hang-up", 30),
    ("kept", 12),
    ("out_of_memory", 9),
    ("process_limit", 7),
    ("disk_full", 7),
    ("ok, own limits", 5),
];

/// The languages, with their share in a hundred runs of every kind, and code that prints a line first. Sandboxes of the
/// last three take longest to start.
const LANGUAGES: [(&str, u32, &str); 5] = [
    ("python", 47, "print('LINE', flush=True)\n"),
    ("js", 26, "console.log('LINE');\n"),
    ("ts", 9, "console.log('LINE');\n"),
    ("r", 9, "cat('LINE\\n')\n"),
    ("java", 9, "System.out.println(\"LINE\");\n"),
];

const MIB: u64 = 1 << 20;
const OUTPUT_BYTES: u64 = 20_000;
const DISK_BYTES: u64 = 16 * MIB;
const PROCESSES: u64 = 64;

/// The action with this number, and the name of its kind.
pub(crate) fn choose(random: &mut StdRng, number: usize) -> (&'static str, Action) {
    let (kind, _) = KINDS.choose_weighted(random, |(_, weight)| *weight).expect("there are some");
    (kind, action(kind, number, random))
}

fn action(kind: &str, number: usize, random: &mut StdRng) -> Action {
    let (language, _, print) = *LANGUAGES.choose_weighted(random, |(_, weight, _)| *weight).expect("there are some");
    let line = format!("run {number}");
    let coded = |code: &str, end: End| {
        let code = print.replace("LINE", &line) + &code.replace("NUMBER", &number.to_string());
        let request = json!({"language": language, "code": code});
        Run { request, end, stdout: format!("{line}\n"), results: json!([]), hasty: false, spins: false }
    };
    let one_of = |random: &mut StdRng, programs: &[Program]| {
        let (_, code, end) = in_language(language, random, programs);
        coded(code, end)
    };
    let next = match language {
        "r" => format!("[1] {}", number + 1),
        _ => (number + 1).to_string(),
    };
    Action::Run(match kind {
        "ok" => Run { results: json!([next]), ..one_of(random, &COUNTS) },
        "exception" => one_of(random, &RAISES),
        "exit" => one_of(random, &EXITS),
        "signal" => one_of(random, &DIES),
        "timeout" | "timeout, short" => {
            let hasty = kind == "timeout, short";
            let timeout_ms = random.random_range(if hasty { 100..500 } else { 6000..8000 });
            let (_, code, spins) = in_language(language, random, &STAYS);
            let run = coded(code, Limit("timeout", "timeout_ms", timeout_ms));
            Run { hasty, spins, ..run }.with("timeout_ms", json!(timeout_ms))
        }
        "output_limit" => {
            let run = one_of(random, &PRINTS_ON);
            let mut stdout = run.stdout.clone() + &"0123456789\n".repeat(OUTPUT_BYTES as usize / 11);
            stdout.truncate(OUTPUT_BYTES as usize);
            Run { stdout, ..run }.limited()
        }
        "files in" => {
            let content = format!("content of {number}");
            let run = one_of(random, &READS);
            let stdout = format!("{}{content}\n", run.stdout);
            Run { stdout, ..run }.with("files", json!([{"path": "in/file.txt", "content": content}]))
        }
        "hang-up" => {
            let (_, code, _) = in_language(language, random, &STAYS);
            let request = coded(code, End::Ok).with("timeout_ms", json!(5000)).request;
            return Action::HangUp { request, after: Duration::from_millis(random.random_range(0..300)) };
        }
        "kept" => return Action::Keep,
        "out_of_memory" => one_of(random, &FILLS_MEMORY).limited(),
        "process_limit" => one_of(random, &FORKS).limited(),
        "disk_full" => one_of(random, &FILLS_DISK).limited(),
        "ok, own limits" => {
            Run { results: json!([next]), ..one_of(random, &COUNTS) }.with("limits", json!({"memory_bytes": 384 * MIB}))
        }
        kind => unreachable!("{kind} is not in the table"),
    })
}

impl Run {
    fn with(mut self, member: &str, value: Value) -> Self {
        self.request[member] = value;
        self
    }

    /// Sets the limit that the run is expected to hit.
    fn limited(self) -> Self {
        let Limit(_, name, value) = self.end else { unreachable!("{:?} is no limit", self.end) };
        self.with("limits", json!({name: value}))
    }
}

/// The language, the code, and its end or another fact about it.
type Program<T = End> = (&'static str, &'static str, T);

fn in_language<T: Copy>(language: &str, random: &mut StdRng, programs: &[Program<T>]) -> Program<T> {
    let programs: Vec<_> = programs.iter().filter(|(of, ..)| *of == language).collect();
    **programs.choose(random).expect("every language takes part")
}

/// Code whose value is the number after its own number.
const COUNTS: [Program; 8] = [
    ("python", "NUMBER + 1", End::Ok),
    ("python", "import json\njson.loads('NUMBER') + 1", End::Ok),
    ("python", "import subprocess\nint(subprocess.run(['echo', 'NUMBER'], capture_output=True).stdout) + 1", End::Ok),
    ("js", "NUMBER + 1", End::Ok),
    ("js", "await new Promise(done => setTimeout(done, 5)); NUMBER + 1", End::Ok),
    ("ts", "const number: number = NUMBER; number + 1", End::Ok),
    ("r", "NUMBERL + 1L", End::Ok),
    ("java", "NUMBER + 1", End::Ok),
];

const RAISES: [Program; 6] = [
    ("python", "1 / 0", Exception("ZeroDivisionError")),
    ("python", "raise ValueError('on purpose')", Exception("on purpose")),
    ("js", "throw new Error('on purpose')", Exception("on purpose")),
    ("ts", "const broken: number = JSON.parse('{')", Exception("SyntaxError")),
    ("r", "stop('on purpose')", Exception("on purpose")),
    ("java", "throw new IllegalStateException(\"on purpose\")", Exception("on purpose")),
];

const EXITS: [Program; 6] = [
    ("python", "import sys\nsys.exit(3)", Exit(3)),
    ("python", "import os\nos._exit(4)", Exit(4)),
    ("js", "process.exit(5)", Exit(5)),
    ("ts", "process.exit(6)", Exit(6)),
    ("r", "quit(status = 7)", Exit(7)),
    ("java", "System.exit(8);", Exit(8)),
];

/// Code that ends by a signal. Code that is killed by another process waits for it.
const DIES: [Program; 6] = [
    ("python", "import os\nos.kill(os.getpid(), 9)", Signal("9 (SIGKILL)")),
    ("python", "import ctypes\nctypes.string_at(0)", Signal("11 (SIGSEGV)")),
    (
        "js",
        "process.kill(process.pid, 'SIGKILL'); await new Promise(() => setTimeout(() => {}, 600_000))",
        Signal("9 (SIGKILL)"),
    ),
    (
        "ts",
        "process.kill(process.pid, 'SIGSEGV'); await new Promise(() => setTimeout(() => {}, 600_000))",
        Signal("11 (SIGSEGV)"),
    ),
    ("r", "tools::pskill(Sys.getpid(), 9L); Sys.sleep(600)", Signal("9 (SIGKILL)")),
    (
        "java",
        "new ProcessBuilder(\"kill\", \"-9\", \"\" + ProcessHandle.current().pid()).start().waitFor(); Thread.sleep(600_000);",
        Signal("9 (SIGKILL)"),
    ),
];

/// Code that does not end, and whether it uses the processor.
const STAYS: [Program<bool>; 10] = [
    ("python", "while True: pass", true),
    ("python", "import time\ntime.sleep(600)", false),
    ("js", "while (true) {}", true),
    ("js", "await new Promise(done => setTimeout(done, 600_000))", false),
    ("ts", "while (true as boolean) {}", true),
    ("ts", "await new Promise<void>(done => { setTimeout(done, 600_000) })", false),
    ("r", "repeat {}", true),
    ("r", "Sys.sleep(600)", false),
    ("java", "while (true) {}", true),
    ("java", "Thread.sleep(600_000);", false),
];

const PRINTING_ON: End = Limit("output_limit", "output_bytes", OUTPUT_BYTES);

const PRINTS_ON: [Program; 5] = [
    ("python", "while True: print('0123456789')", PRINTING_ON),
    ("js", "while (true) console.log('0123456789')", PRINTING_ON),
    ("ts", "while (true as boolean) console.log('0123456789' as string)", PRINTING_ON),
    ("r", "repeat cat('0123456789\\n')", PRINTING_ON),
    ("java", "while (true) System.out.println(\"0123456789\");", PRINTING_ON),
];

const READS: [Program; 5] = [
    ("python", "print(open('in/file.txt').read())", End::Ok),
    ("js", "console.log(require('fs').readFileSync('in/file.txt', 'utf8'))", End::Ok),
    ("ts", "import * as fs from 'fs'\nconsole.log(fs.readFileSync('in/file.txt', 'utf8') as string)", End::Ok),
    ("r", "cat(readLines('in/file.txt', warn = FALSE), '\\n', sep = '')", End::Ok),
    ("java", "System.out.println(Files.readString(Path.of(\"in/file.txt\")));", End::Ok),
];

/// The interpreters start within these limits.
const FILLS_MEMORY: [Program; 5] = [
    ("python", "blocks = []\nwhile True: blocks.append(bytearray(8 << 20))", memory(128)),
    ("js", "const blocks = []; while (true) blocks.push(Buffer.alloc(8 << 20, 1))", memory(256)),
    ("ts", "const blocks: Buffer[] = []; while (true) blocks.push(Buffer.alloc(8 << 20, 1))", memory(256)),
    ("r", "blocks <- list(); repeat blocks[[length(blocks) + 1]] <- runif(1e6)", memory(256)),
    ("java", "var blocks = new ArrayList<byte[]>();\nwhile (true) blocks.add(new byte[1 << 20]);", memory(384)),
];

const fn memory(mib: u64) -> End {
    Limit("out_of_memory", "memory_bytes", mib * MIB)
}

const FORKING: End = Limit("process_limit", "processes", PROCESSES);

const FORKS: [Program; 5] = [
    ("python", "import subprocess\nchildren = [subprocess.Popen(['sleep', '60']) for _ in range(100)]", FORKING),
    (
        "js",
        "require('child_process').execFileSync('sh', ['-c', 'for each in $(seq 100); do sleep 60 & done'], { stdio: 'inherit' })",
        FORKING,
    ),
    (
        "ts",
        "import { execFileSync } from 'child_process'\n\
         execFileSync('sh', ['-c', 'for each in $(seq 100); do sleep 60 & done'], { stdio: 'inherit' })",
        FORKING,
    ),
    ("r", "stopifnot(system('for each in $(seq 100); do sleep 60 & done') == 0)", FORKING),
    (
        "java",
        "for (int each = 0; each < 200; each++) Thread.ofPlatform().daemon()\
         .start(() -> { try { Thread.sleep(60_000); } catch (InterruptedException e) {} });",
        FORKING,
    ),
];

const FILLING: End = Limit("disk_full", "disk_bytes", DISK_BYTES);

/// R writes as much of a file as fits, and warns about the rest.
const FILLS_DISK: [Program; 5] = [
    ("python", "with open('/tmp/big', 'wb') as file:\n    while True: file.write(bytes(1 << 20))", FILLING),
    (
        "js",
        "const fs = require('fs'), file = fs.openSync('/var/tmp/big', 'w'); while (true) fs.writeSync(file, Buffer.alloc(1 << 20))",
        FILLING,
    ),
    (
        "ts",
        "import * as fs from 'fs'\nconst file: number = fs.openSync('/tmp/big', 'w')\nwhile (true) fs.writeSync(file, Buffer.alloc(1 << 20))",
        FILLING,
    ),
    (
        "r",
        "file <- file('big', 'wb'); for (each in 1:32) writeBin(raw(2^20), file); close(file); stopifnot(file.size('big') == 2^25)",
        FILLING,
    ),
    (
        "java",
        "try (var file = new FileOutputStream(\"/tmp/big\")) { while (true) file.write(new byte[1 << 20]); }",
        FILLING,
    ),
];
