//! Clients that hang up while their code prints: none of its output reaches the next execution of the context, which
//! finds the variables.
//!
//! `INTERRUPTS=1000` runs each case that often. `SEED` repeats a failed run.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};

use crate::e2b::{INTERPRETER, Sandbox, answer, in_time};
use crate::e2b_execute::context;
use crate::load::seed;

trials![
    nothing_of_interrupted_python_reaches_the_next_execution,
    nothing_of_interrupted_javascript_reaches_the_next_execution,
    nothing_of_interrupted_typescript_reaches_the_next_execution,
    nothing_of_interrupted_r_reaches_the_next_execution,
    nothing_of_interrupted_java_reaches_the_next_execution,
    nothing_of_interrupted_bash_reaches_the_next_execution,
];

/// Endless printing code in one language, with code to run before and after it.
struct Language {
    name: &'static str,
    /// Sets a variable to 42.
    keep: &'static str,
    /// Variants that print `old` for ever: in small writes, in writes larger than a pipe, to both streams, from another
    /// thread or process, and between waits.
    endless: &'static [&'static str],
    /// Prints `ok` and the variable.
    next: &'static str,
}

const PYTHON: Language = Language {
    name: "python",
    keep: "kept = 42",
    endless: &[
        "while True: print('old')",
        "while True: print('old' * 50_000)",
        "import sys\nwhile True:\n    for n in range(0, 30_000, 7): print('old' * n); print('old', n, file=sys.stderr)",
        "import os\nprint('old')\nos.system('while :; do echo old; done')",
        "import asyncio\nwhile True:\n    print('old' * 30_000)\n    await asyncio.sleep(0)",
        "print('old')\nwhile True: display('old')",
    ],
    next: "import asyncio\nawait asyncio.sleep(0)\nprint('ok', kept)",
};

const SCRIPT: &[&str] = &[
    "for (;;) console.log('old')",
    "for (;;) process.stdout.write('old'.repeat(50_000))",
    "for (let n = 0; ; n = (n + 7) % 30_000) { console.log('old'.repeat(n)); console.error('old', n) }",
    "console.log('old'); require('child_process').execSync('while :; do echo old; done', { stdio: 'inherit' })",
    "for (;;) { console.log('old'.repeat(30_000)); console.error('old'); await new Promise((next) => setTimeout(next)) }",
    "for (;;) { process.stdout.write('old'.repeat(30_000)); await new Promise((next) => setImmediate(next)) }",
    "setInterval(() => console.log('old'), 1); await new Promise(() => {})",
    "setInterval(() => { console.log('old'); throw new Error('old') }, 1); for (;;) console.log('old')",
    "console.log('old'); for (;;) display('old')",
];

const JAVASCRIPT: Language = Language {
    name: "js",
    keep: "var kept = 42",
    endless: SCRIPT,
    // Takes long enough for leftover callbacks of the interrupted code to print.
    next: "await new Promise((next) => setTimeout(next, 5)); console.log('ok', kept)",
};

const TYPESCRIPT: Language = Language {
    name: "ts",
    keep: "var kept: number = 42",
    endless: SCRIPT,
    next: "await new Promise<void>((next) => setTimeout(next, 5)); console.log('ok', kept)",
};

const R: Language = Language {
    name: "r",
    keep: "kept <- 42",
    endless: &[
        "repeat cat('old\\n')",
        "repeat cat(strrep('old', 50000))",
        "n <- 0; repeat { n <- (n + 7) %% 30000; cat(strrep('old', n)); message('old') }",
        "cat('old\\n'); system('while :; do echo old; done')",
        "cat('old\\n'); repeat plot(1:2, main = 'old')",
        "repeat { cat('old\\n'); warning('old') }",
    ],
    next: "cat('ok', paste0(kept, '\\n'))",
};

const JAVA: Language = Language {
    name: "java",
    keep: "int kept = 42;",
    endless: &[
        "for (;;) System.out.println(\"old\");",
        "for (;;) System.out.println(\"old\".repeat(50_000));",
        "for (int n = 0; ; n = (n + 7) % 30_000) { System.out.println(\"old\".repeat(n)); System.err.println(\"old\" + n); }",
        "System.out.println(\"old\"); var thread = new Thread(() -> { for (;;) System.out.println(\"old\"); });\n\
         thread.start(); thread.join();",
        "System.out.println(\"old\");\n\
         new ProcessBuilder(\"sh\", \"-c\", \"while :; do echo old; done\").inheritIO().start().waitFor();",
        "for (;;) new Exception(\"old\").printStackTrace();",
    ],
    next: "System.out.println(\"ok \" + kept);",
};

const BASH: Language = Language {
    name: "bash",
    keep: "kept=42",
    endless: &[
        "while :; do echo old; done",
        "while :; do printf 'old%.0s' {1..30000}; done",
        "yes old",
        "while :; do echo old; echo old >&2; done",
    ],
    next: "echo ok $kept",
};

async fn nothing_of_interrupted_python_reaches_the_next_execution() {
    interrupt(&PYTHON).await;
}

async fn nothing_of_interrupted_javascript_reaches_the_next_execution() {
    interrupt(&JAVASCRIPT).await;
}

async fn nothing_of_interrupted_typescript_reaches_the_next_execution() {
    interrupt(&TYPESCRIPT).await;
}

async fn nothing_of_interrupted_r_reaches_the_next_execution() {
    interrupt(&R).await;
}

async fn nothing_of_interrupted_java_reaches_the_next_execution() {
    interrupt(&JAVA).await;
}

async fn nothing_of_interrupted_bash_reaches_the_next_execution() {
    interrupt(&BASH).await;
}

async fn interrupt(language: &Language) {
    let tries = std::env::var("INTERRUPTS").ok().and_then(|tries| tries.parse().ok()).unwrap_or(2);
    let mut random = StdRng::seed_from_u64(seed());
    let sandbox = Sandbox::create(json!({"templateID": "code-interpreter-v1", "timeout": 3600})).await;
    for code in language.endless {
        let context = context(&sandbox, language.name).await;
        let run = async |code: &str| in_time(sandbox.execute(&json!({"code": code, "context_id": context}))).await;
        run(language.keep).await;
        for attempt in 0..tries {
            hang_up_within(&sandbox, &context, code, &mut random).await;
            let lines = run(language.next).await;
            let expected = [json!({"type": "stdout", "text": "ok 42\n"}), json!({"type": "end_of_execution"})];
            assert!(are_same_lines(&lines[1..], &expected), "attempt {attempt} after {code:?}: {}", json!(lines));
        }
        answer(sandbox.at(INTERPRETER, Method::DELETE, &format!("/contexts/{context}"))).await;
    }
    sandbox.kill().await;
}

/// Hangs up at a random point of the output: after its first word or up to a megabyte, at once or a moment later.
async fn hang_up_within(sandbox: &Sandbox, context: &str, code: &str, random: &mut StdRng) {
    let more = async |response: &mut reqwest::Response, read: &mut Vec<u8>| {
        let chunk = response.chunk().await.expect("it goes on");
        let end = String::from_utf8_lossy(&read[read.len().saturating_sub(1000)..]).into_owned();
        read.extend(chunk.unwrap_or_else(|| panic!("{code:?} ended: {end}")));
    };
    let request = sandbox.at(INTERPRETER, Method::POST, "/execute").json(&json!({"code": code, "context_id": context}));
    let mut response = request.send().await.expect("an answer");
    let wanted = [1, 1, 200, 65_536, 1_000_000][random.random_range(0..5)];
    let mut read = Vec::new();
    // Code that prints little would take too long to print a megabyte.
    let _ = tokio::time::timeout(Duration::from_secs(1), async {
        while read.len() < wanted || !is_begun(&read) {
            more(&mut response, &mut read).await;
        }
    })
    .await;
    while !is_begun(&read) {
        in_time(more(&mut response, &mut read)).await;
    }
    tokio::time::sleep(Duration::from_micros([0, 500, 5_000, 50_000][random.random_range(0..4)])).await;
    drop(response);
}

fn is_begun(read: &[u8]) -> bool {
    read.windows(3).any(|word| word == b"old")
}

/// Whether the lines are the expected ones, apart from their times.
fn are_same_lines(lines: &[Value], expected: &[Value]) -> bool {
    let known = |line: &Value| json!({"type": line["type"], "text": line["text"]});
    lines.iter().map(known).eq(expected.iter().map(known))
}
