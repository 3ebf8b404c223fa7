//! The ends of a run: the outcome names every kind, with the limit and its value, and earlier output is kept.

use serde_json::{Value, json};

use crate::support::{Server, docker, server, stderr, stdout};

trials![
    code_that_goes_on_is_stopped_at_its_time,
    code_that_needs_too_much_memory_says_so,
    files_count_as_memory,
    code_that_starts_too_many_processes_says_so,
    code_that_fills_the_disk_says_so,
    code_that_fills_the_disk_with_empty_files_says_so,
    output_is_kept_up_to_its_limit,
    a_line_of_100_megabytes_ends_at_the_limit,
    a_value_beyond_the_output_limit_is_not_sent,
    an_interpreter_that_is_killed_names_the_signal,
    an_exit_names_its_status,
    code_that_copes_with_a_limit_is_ok,
    code_may_close_its_output_and_go_on,
    processes_that_outlive_the_code_are_not_waited_for,
    code_that_speaks_for_its_runner_harms_only_its_own_run,
    what_is_made_of_many_small_values_is_held_as_it_was_written,
    a_run_whose_server_stops_is_cancelled,
    a_container_removed_during_a_run_is_infrastructure,
];

/// Runs Python with its own limits, in a new container.
async fn limited(code: &str, limits: Value) -> Value {
    server().run_with(json!({"language": "python", "code": code, "limits": limits})).await
}

fn assert_limit(answer: &Value, kind: &str, name: &str, value: u64) {
    let outcome = &answer["outcome"];
    assert_eq!(outcome["kind"], kind, "{answer}");
    assert_eq!(outcome["limit"], json!({"name": name, "value": value}), "{answer}");
    let message = outcome["message"].as_str().expect("a message");
    assert!(message.contains(&format!("{name} = {value}")) && !message.contains('\n'), "{message}");
    assert!(answer["error"].as_str().expect("an error").starts_with(message), "{answer}");
}

async fn code_that_goes_on_is_stopped_at_its_time() {
    let codes = [
        "while True: pass",
        "import time\ntime.sleep(600)",
        "import signal, time\nfor number in (2, 3, 13, 15): signal.signal(number, signal.SIG_IGN)\ntime.sleep(600)",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\ntime.sleep(600)",
        "import subprocess\nsubprocess.run(['sleep', '600'])",
    ];
    for code in codes {
        let code = format!("print('before', flush=True)\n{code}");
        let answer = server().run_with(json!({"language": "python", "code": code, "timeout_ms": 5000})).await;
        assert_limit(&answer, "timeout", "timeout_ms", 5000);
        assert_eq!(answer["error"], answer["outcome"]["message"]);
        assert_eq!(stdout(&answer), "before\n", "{code}");
        assert!(answer.get("exception").is_none(), "{answer}");
        let wall_ms = answer["usage"]["wall_ms"].as_u64().expect("a number");
        assert!((5000..20_000).contains(&wall_ms), "{code}: {wall_ms} ms");
    }
}

async fn code_that_needs_too_much_memory_says_so() {
    let codes = [
        // One allocation that is used, and one that the language itself refuses.
        "block = bytearray(400 << 20)",
        "block = bytearray(1 << 62)",
        "blocks = []\nwhile True: blocks.append('x' * 1000 + str(len(blocks)))",
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'bytearray(400 << 20)'], check=True)",
    ];
    for code in codes {
        let code = format!("print('before', flush=True)\n{code}");
        let answer = limited(&code, json!({"memory_bytes": 268_435_456})).await;
        assert_limit(&answer, "out_of_memory", "memory_bytes", 268_435_456);
        assert_eq!(stdout(&answer), "before\n", "{code}");
    }
}

async fn files_count_as_memory() {
    for directory in ["/home/user", "/tmp", "/dev/shm"] {
        let code = format!(
            "print('before', flush=True)\nwith open('{directory}/big', 'wb') as file:\n    \
             while True: file.write(bytes(1 << 20))"
        );
        let answer = limited(&code, json!({"memory_bytes": 268_435_456})).await;
        assert_limit(&answer, "out_of_memory", "memory_bytes", 268_435_456);
        assert_eq!(stdout(&answer), "before\n", "{directory}");
    }
}

async fn code_that_starts_too_many_processes_says_so() {
    let codes = [
        "import os\nwhile True: os.fork()",
        "import subprocess\nchildren = [subprocess.Popen(['sleep', '60']) for _ in range(100)]",
        "import threading, time\nfor _ in range(100): threading.Thread(target=time.sleep, args=(60,)).start()",
    ];
    for code in codes {
        let code = format!("print('before', flush=True)\n{code}");
        let answer = limited(&code, json!({"processes": 64})).await;
        assert_limit(&answer, "process_limit", "processes", 64);
        assert!(stdout(&answer).starts_with("before\n"), "{code}: {answer}");
    }
    // A fork bomb, and code that ends with a status.
    let answer =
        limited("import os\nos.system('bomb() { bomb | bomb; }; bomb')\nos._exit(1)", json!({"processes": 64})).await;
    assert_limit(&answer, "process_limit", "processes", 64);
}

async fn code_that_fills_the_disk_says_so() {
    for directory in ["/home/user", "/tmp", "/var/tmp", "/dev/shm"] {
        let code = format!(
            "print('before', flush=True)\nwith open('{directory}/big', 'wb') as file:\n    \
             while True: file.write(bytes(1 << 20))"
        );
        let answer = limited(&code, json!({"disk_bytes": 16_777_216})).await;
        assert_limit(&answer, "disk_full", "disk_bytes", 16_777_216);
        assert_eq!(stdout(&answer), "before\n", "{directory}");
        assert_eq!(answer["exception"]["name"], "OSError");
    }
    // The code ends with a status. Only the full disk shows the cause.
    let code = "import os\nos.system('cat /dev/zero > /tmp/big 2> /dev/null')\nos._exit(1)";
    let answer = limited(code, json!({"disk_bytes": 16_777_216})).await;
    assert_limit(&answer, "disk_full", "disk_bytes", 16_777_216);
}

async fn code_that_fills_the_disk_with_empty_files_says_so() {
    let code = "for number in range(100_000): open(f'/tmp/{number}', 'w').close()";
    let answer = limited(code, json!({"disk_bytes": 16_777_216})).await;
    assert_limit(&answer, "disk_full", "disk_bytes", 16_777_216);
}

async fn output_is_kept_up_to_its_limit() {
    for stream in ["stdout", "stderr"] {
        let code = format!("import sys\nwhile True: sys.{stream}.write('0123456789')");
        let answer = limited(&code, json!({"output_bytes": 10_005})).await;
        assert_limit(&answer, "output_limit", "output_bytes", 10_005);
        let expected = "0123456789".repeat(1000) + "01234";
        let (kept, other) = match stream {
            "stdout" => (stdout(&answer), stderr(&answer)),
            _ => (stderr(&answer), stdout(&answer)),
        };
        assert!(kept == expected && other.is_empty(), "{stream}: {} and {} bytes", kept.len(), other.len());
    }
    let answer = limited("print('x' * 1023)", json!({"output_bytes": 1024})).await;
    assert_eq!((&answer["outcome"]["kind"], stdout(&answer).len()), (&json!("ok"), 1024));
}

async fn a_line_of_100_megabytes_ends_at_the_limit() {
    let answer = server()
        .run("python", "import os\nline = b'x' * 100_000_000\nwhile line: line = line[os.write(1, line):]")
        .await;
    assert_limit(&answer, "output_limit", "output_bytes", 33_554_432);
    let kept = stdout(&answer);
    assert!(kept.len() == 33_554_432 && kept.bytes().all(|byte| byte == b'x'), "{} bytes", kept.len());
}

async fn a_value_beyond_the_output_limit_is_not_sent() {
    // Larger than allowed, and larger than the longest line.
    for length in [40_000_000, 80_000_000] {
        let answer = server().run("python", &format!("print('before')\n'x' * {length}")).await;
        assert_limit(&answer, "output_limit", "output_bytes", 33_554_432);
        assert_eq!((stdout(&answer).as_str(), &answer["results"]), ("before\n", &json!([])));
    }
}

async fn an_interpreter_that_is_killed_names_the_signal() {
    let cases = [
        ("import ctypes\nctypes.string_at(0)", "the interpreter was killed by signal 11 (SIGSEGV)"),
        ("import os\nos.kill(os.getpid(), 9)", "the interpreter was killed by signal 9 (SIGKILL)"),
        ("import os\nos.abort()", "the interpreter was killed by signal 6 (SIGABRT)"),
        // Kills all processes that the user may kill; the agent is not among them.
        ("import os\nos.system('kill -9 -1')", "the interpreter was killed by signal 9 (SIGKILL)"),
    ];
    for (code, message) in cases {
        let answer = server().run("python", &format!("print('before', flush=True)\n{code}")).await;
        assert_eq!(answer["outcome"], json!({"kind": "signal", "message": message}), "{code}");
        assert_eq!((&answer["error"], stdout(&answer).as_str()), (&json!(message), "before\n"), "{code}");
    }
}

async fn an_exit_names_its_status() {
    for (code, status) in [("import sys\nsys.exit(3)", 3), ("import os\nos._exit(4)", 4)] {
        let answer = server().run("python", &format!("print('before', flush=True)\n{code}")).await;
        let message = format!("the code exited with status {status}");
        assert_eq!(answer["outcome"], json!({"kind": "exit", "message": message}), "{code}");
        assert_eq!((&answer["error"], stdout(&answer).as_str()), (&json!(message), "before\n"), "{code}");
    }
    for code in ["import sys\nsys.exit(0)", "import os\nos._exit(0)"] {
        let answer = server().run("python", code).await;
        assert_eq!((&answer["outcome"]["kind"], answer.get("error")), (&json!("ok"), None), "{code}");
    }
}

async fn code_that_copes_with_a_limit_is_ok() {
    let code = r#"
import os, subprocess, sys, threading
try:
    bytearray(1 << 62)
except MemoryError:
    print("memory")
print(subprocess.run([sys.executable, "-c", "bytearray(400 << 20)"]).returncode)
try:
    with open("/tmp/big", "wb") as file:
        while True: file.write(bytes(1 << 20))
except OSError as err:
    print(err.strerror)
go = threading.Event()
try:
    for _ in range(100): threading.Thread(target=go.wait).start()
except RuntimeError:
    print("threads")
go.set()
"#;
    let limits = json!({"memory_bytes": 268_435_456, "disk_bytes": 16_777_216, "processes": 64});
    let answer = limited(code, limits).await;
    assert_eq!(stdout(&answer), "memory\n-9\nNo space left on device\nthreads\n", "{answer}");
    assert_eq!((&answer["outcome"]["kind"], answer.get("error")), (&json!("ok"), None));
}

async fn code_may_close_its_output_and_go_on() {
    let code = "import os, time\nprint('before', flush=True)\nos.close(1)\nos.close(2)\ntime.sleep(2)\n6 * 7";
    let answer = server().run("python", code).await;
    assert_eq!((stdout(&answer).as_str(), &answer["results"]), ("before\n", &json!(["42"])), "{answer}");
    assert_eq!(answer["outcome"]["kind"], "ok");
    let cpu_ms = answer["usage"]["cpu_ms"].as_u64().expect("a number");
    assert!(cpu_ms < 1000, "{cpu_ms} ms of processor time for waiting");
}

async fn processes_that_outlive_the_code_are_not_waited_for() {
    let code = r#"
import subprocess
subprocess.Popen(["sleep", "600"])
subprocess.Popen(["sh", "-c", "trap '' TERM HUP; sleep 600"], start_new_session=True)
print("done")
"#;
    let began = std::time::Instant::now();
    let answer = server().run("python", code).await;
    assert_eq!((stdout(&answer).as_str(), &answer["outcome"]["kind"]), ("done\n", &json!("ok")));
    assert!(began.elapsed().as_secs() < 25, "the answer waited for a child that sleeps");
}

async fn code_that_speaks_for_its_runner_harms_only_its_own_run() {
    let speak = |line: &str| {
        format!(
            "import glob, time\nout = open(glob.glob('/run/oncebox/*/out')[0], 'wb', buffering=0)\n\
             out.write({line})\ntime.sleep(600)"
        )
    };
    for line in ["b'garbage\\n'", "b'\\xff\\xfe\\n'", "b'{\"end\": {}}\\n'", "b'[' * 100_000 + b'\\n'"] {
        let request = json!({"language": "python", "code": speak(line), "timeout_ms": 20_000});
        let answer = server().run_with(request).await;
        assert_eq!(answer["outcome"]["kind"], "exception", "{line}: {answer}");
        assert_eq!(answer["exception"]["name"], "RunnerError", "{line}: {answer}");
    }
    // The agent waits for an unfinished line only as long as the code runs, and holds no more of it than the limit.
    let code = "import glob\nout = open(glob.glob('/run/oncebox/*/out')[0], 'wb', buffering=0)\n\
                while True: out.write(b'x' * 65536)";
    let answer = server().run_with(json!({"language": "python", "code": code, "timeout_ms": 20_000})).await;
    assert_eq!(answer["outcome"]["kind"], "output_limit", "{answer}");
    // A forged end does end this run.
    let answer = server().run("python", &speak("b'{\"done\": {}}\\n'")).await;
    assert_eq!(answer["outcome"]["kind"], "ok", "{answer}");
    assert_eq!(server().run("python", "1 + 1").await["results"], json!(["2"]));
}

async fn what_is_made_of_many_small_values_is_held_as_it_was_written() {
    let server = Server::start_cold(&[]);
    let code = r#"
import glob, sys
sys.stdout.flush()
with open(glob.glob('/run/oncebox/*/out')[0], 'wb', buffering=0) as out:
    line = b'{"result": {"data": {"application/json": [' + b'0,' * 5_000_000 + b'0]}, "main": false}}\n'
    while line: line = line[out.write(line):]
"#;
    let before = server.peak_memory_bytes();
    let answer = server.run("python", code).await;
    assert_eq!(answer["outcome"]["kind"], "ok", "{answer:.500}");
    assert_eq!(answer["outputs"][0]["application/json"].as_array().expect("a list").len(), 5_000_001);
    // Ten megabytes of text are read, kept and written, but never as five million values.
    let more = server.peak_memory_bytes() - before;
    assert!(more < 100 << 20, "{more} bytes");
    // A form that is sent repeatedly counts once.
    let again = code.replace("[' + b'0,' * 5_000_000 + b'0]", "0,' + b'\"\":0,' * 5_000_000 + b'\"x\":0");
    assert_eq!(server.run("python", &again).await["outcome"]["kind"], "ok");
    // The memory that holds each form counts too.
    let forms = code.replace(
        "\"application/json\": [' + b'0,' * 5_000_000 + b'0]",
        "' + b','.join(b'\"%d\":0' % n for n in range(500_000)) + b'",
    );
    let answer = server.run("python", &forms).await;
    assert_eq!(answer["outcome"]["limit"]["name"], "output_bytes", "{answer:.500}");
    let more = server.peak_memory_bytes() - before;
    assert!(more < 100 << 20, "{more} bytes");
    assert!(server.stop());
}

async fn a_run_whose_server_stops_is_cancelled() {
    let server = Server::start_cold(&[("ONCEBOX_DRAIN_TIMEOUT_MS", "500")]);
    let code = "console.log('before'); void setTimeout(() => {}, 600_000)";
    let mut stream = server.stream(json!({"language": "js", "code": code})).await;
    assert_eq!(stream.next().await.expect("an event").data, json!({"text": "before\n"}));
    assert!(server.stop());
    let error = stream.next().await.expect("an event");
    assert_eq!((error.name.as_str(), &error.data["error"]), ("error", &json!("the server is shutting down")));
    let end = stream.next().await.expect("an event");
    assert_eq!(end.data["outcome"], json!({"kind": "cancelled", "message": "the server is shutting down"}));
    assert!(stream.next().await.is_none());
    assert!(server.containers().is_empty());
}

async fn a_container_removed_during_a_run_is_infrastructure() {
    let server = Server::start_cold(&[]);
    let mut stream = server
        .stream(json!({"language": "js", "code": "console.log('before'); void setTimeout(() => {}, 600_000)"}))
        .await;
    assert_eq!(stream.next().await.expect("an event").name, "stdout");
    let sandboxes = server.sandboxes();
    assert_eq!(sandboxes.len(), 1, "{sandboxes:?}");
    docker(&["rm", "-f", &sandboxes[0]]);
    let message = "the sandbox was lost during the run: its container ended with exit code 137";
    let error = stream.next().await.expect("an event");
    assert_eq!((error.name.as_str(), &error.data["error"]), ("error", &json!(message)));
    let end = stream.next().await.expect("an event");
    assert_eq!(end.name, "end");
    assert_eq!(end.data["outcome"], json!({"kind": "infrastructure", "message": message}));
    server.until_busy(0, 0).await;
    assert_eq!(server.run("js", "1 + 1").await["results"], json!(["2"]));
}
