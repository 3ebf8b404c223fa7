//! `POST /v1/run` in general, independent of the language, and requests for the server's state.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{eventually, server, stdout};

trials![
    code_that_runs_is_ok,
    code_that_raises_is_a_200_with_its_traceback,
    an_answer_has_these_members_and_no_other,
    a_language_is_found_by_any_of_its_names_in_any_case,
    files_are_there_before_the_code_and_belong_to_the_user,
    files_that_cannot_be_written_are_refused_by_path,
    stdin_is_read_to_its_end,
    variables_are_there_for_one_run_only,
    a_network_of_none_fails_at_once,
    a_smaller_sandbox_is_as_small_as_asked_for,
    processes_share_the_processor_time_of_their_sandbox,
    text_that_is_not_utf_8_is_replaced,
    the_languages_are_listed_with_versions_and_limits,
    health_and_status_have_their_shapes,
    a_request_id_comes_back,
];

fn members(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

async fn code_that_runs_is_ok() {
    let answer = server().run("js", "console.log('hello'); 1 + 1").await;
    assert_eq!(stdout(&answer), "hello\n");
    assert_eq!(answer["results"][0], "2");
    assert_eq!(answer["outcome"]["kind"], "ok");
    assert!(answer.get("error").is_none());
}

async fn code_that_raises_is_a_200_with_its_traceback() {
    let answer = server().run("js", "console.log('before'); null.x").await;
    assert_eq!(answer["outcome"]["kind"], "exception");
    assert_eq!(answer["exception"]["name"], "TypeError");
    assert_eq!(answer["error"], answer["exception"]["traceback"]);
    assert_eq!(members(&answer["exception"]), BTreeSet::from(["name", "value", "traceback"]));
    assert_eq!(stdout(&answer), "before\n");
}

async fn an_answer_has_these_members_and_no_other() {
    let mut answer = server().run("js", "console.log('out'); console.error('err'); 6 * 7").await;
    let usage = answer["usage"].take();
    let place = answer["sandbox"].take();
    assert_eq!(
        answer,
        json!({
            "results": ["42"],
            "logs": {"stdout": ["out\n"], "stderr": ["err\n"]},
            "outputs": [{"text/plain": "42", "main": true}],
            "outcome": {"kind": "ok", "message": "the code ran to its end"},
            "usage": null,
            "sandbox": null,
        })
    );
    assert_eq!(members(&usage), BTreeSet::from(["wall_ms", "cpu_ms", "peak_memory_bytes"]));
    assert!(usage["wall_ms"].as_u64().expect("a number") < 20_000, "{usage}");
    assert!(usage["cpu_ms"].is_u64(), "{usage}");
    let peak = usage["peak_memory_bytes"].as_u64().expect("a number");
    assert!((4 << 20..1 << 30).contains(&peak), "{peak} bytes are not what an interpreter holds");
    assert_eq!(members(&place), BTreeSet::from(["template", "warm", "wait_ms"]));
    assert_eq!(place["template"], "js");
    assert!(place["warm"].is_boolean() && place["wait_ms"].is_u64(), "{place}");
}

async fn a_language_is_found_by_any_of_its_names_in_any_case() {
    for name in ["js", "javascript", "JavaScript", " node ", "nodejs"] {
        let answer = server().run(name, "process.title.length > 0").await;
        assert_eq!((&answer["sandbox"]["template"], &answer["results"][0]), (&json!("js"), &json!("true")), "{name}");
    }
}

async fn files_are_there_before_the_code_and_belong_to_the_user() {
    let code = r#"
import os
for path in ["data.bin", "deep/er/note.txt", "/tmp/elsewhere", "/home/user/absolute"]:
    status = os.stat(path)
    print(path, open(path, "rb").read(), status.st_uid == os.getuid(), status.st_gid == os.getgid())
open("deep/er/note.txt", "a").write("more")
os.rename("deep/er", "moved")
"#;
    let files = json!([
        {"path": "data.bin", "content": "AP8K", "encoding": "base64"},
        {"path": "deep/er/note.txt", "content": "h\u{e9}llo", "encoding": "utf-8"},
        {"path": "/tmp/elsewhere", "content": ""},
        {"path": "/home/user/absolute", "content": "first"},
        {"path": "absolute", "content": "second"},
    ]);
    let answer = server().run_with(json!({"language": "python", "code": code, "files": files})).await;
    assert_eq!(
        stdout(&answer),
        "data.bin b'\\x00\\xff\\n' True True\n\
         deep/er/note.txt b'h\\xc3\\xa9llo' True True\n\
         /tmp/elsewhere b'' True True\n\
         /home/user/absolute b'second' True True\n",
        "{answer}"
    );
    assert_eq!(answer["outcome"]["kind"], "ok");
}

async fn files_that_cannot_be_written_are_refused_by_path() {
    let paths = [
        "",
        "directory/",
        "/",
        ".",
        "..",
        "a\0b",
        "/home/user",
        "/etc/passwd",
        "../../etc/hosts",
        "../escaped",
        "/opt/oncebox/agent",
        "/run/oncebox/new",
        "/run/new",
        "/new",
        "/proc/1/fd/1",
        "/proc/self/oom_score_adj",
        "/sys/new",
        "/dev/new",
        "/dev/null",
        "/proc/self/environ",
    ];
    for path in paths {
        let files = json!([{"path": "fine", "content": ""}, {"path": path, "content": "x"}]);
        let request = json!({"code": "1", "language": "js", "files": files});
        let (status, answer) = server().post("/v1/run", &request).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("invalid_request")), "{path:?}: {answer}");
        let message = answer["error"]["message"].as_str().expect("a message");
        assert!(message.starts_with("files[1].path: "), "{path:?}: {message}");
    }
    let files = json!([{"path": "big", "content": "x".repeat(2 << 20)}]);
    let limits = json!({"disk_bytes": 1 << 20});
    let request = json!({"code": "1", "language": "js", "files": files, "limits": limits});
    let (status, answer) = server().post("/v1/run", &request).await;
    assert_eq!(status, 400, "{answer}");
    let message = answer["error"]["message"].as_str().expect("a message");
    assert!(message.starts_with("files[0].path: cannot write `big`: No space left on device"), "{message}");
    assert_eq!(server().run("js", "1").await["results"], json!(["1"]));
}

async fn stdin_is_read_to_its_end() {
    let code = "import sys\nprint(repr(sys.stdin.readline()))\nprint(repr(sys.stdin.read()))";
    let answer = server().run_with(json!({"language": "python", "code": code, "stdin": "one\ntwo\u{e9}"})).await;
    assert_eq!(stdout(&answer), "'one\\n'\n'two\u{e9}'\n");
    let answer = server().run("python", code).await;
    assert_eq!(stdout(&answer), "''\n''\n");
    // More than a pipe holds, and not read by the code.
    let long = "x".repeat(1 << 20);
    let answer = server().run_with(json!({"language": "python", "code": "'unread'", "stdin": long})).await;
    assert_eq!(answer["results"], json!(["'unread'"]));
    let code = "import sys\nlen(sys.stdin.read())";
    let answer = server().run_with(json!({"language": "python", "code": code, "stdin": long})).await;
    assert_eq!(answer["results"], json!(["1048576"]));
}

async fn variables_are_there_for_one_run_only() {
    let code = "import os\nprint(os.environ.get('GREETING'), os.environ.get('EMPTY'))";
    let env = json!({"GREETING": "h\u{e9} = 1", "EMPTY": ""});
    let answer = server().run_with(json!({"language": "python", "code": code, "env": env})).await;
    assert_eq!(stdout(&answer), "h\u{e9} = 1 \n");
    let answer = server().run("python", code).await;
    assert_eq!(stdout(&answer), "None None\n");
}

async fn a_network_of_none_fails_at_once() {
    let code = r#"
import errno, socket, time
began = time.monotonic()
try:
    socket.create_connection(("192.0.2.1", 80), timeout=20)
except OSError as err:
    print(errno.errorcode[err.errno])
try:
    socket.getaddrinfo("example.com", 80)
except OSError as err:
    print(type(err).__name__)
print(open("/proc/net/route").read().splitlines()[1:], [name for _, name in socket.if_nameindex()])
print(time.monotonic() - began < 10)
"#;
    let answer = server().run_with(json!({"language": "python", "code": code, "network": "none"})).await;
    assert_eq!(stdout(&answer), "ENETUNREACH\ngaierror\n[] ['lo']\nTrue\n", "{answer}");
    assert_eq!(answer["sandbox"]["warm"], false);
}

async fn a_smaller_sandbox_is_as_small_as_asked_for() {
    let code = r#"
import os
def read(*paths):
    for path in paths:
        if os.path.exists("/sys/fs/cgroup/" + path):
            return open("/sys/fs/cgroup/" + path).read().split()
memory = read("memory.max", "memory/memory.limit_in_bytes")
swap = read("memory.swap.max", "memory/memory.memsw.limit_in_bytes")
cpu = read("cpu.max") or read("cpu/cpu.cfs_quota_us") + read("cpu/cpu.cfs_period_us")
print(memory[0], swap[0] in ("0", memory[0]), 1000 * int(cpu[0]) // int(cpu[1]), read("pids.max", "pids/pids.max")[0])
for path in ["/home/user", "/tmp", "/var/tmp", "/dev/shm"]:
    room = os.statvfs(path)
    print(path, room.f_blocks * room.f_frsize)
"#;
    let limits = json!({
        "memory_bytes": 268_435_456, "cpu_millis": 500, "processes": 64, "disk_bytes": 16_777_216, "output_bytes": 4096,
    });
    let answer = server().run_with(json!({"language": "python", "code": code, "limits": limits})).await;
    assert_eq!(
        stdout(&answer),
        "268435456 True 500 64\n\
         /home/user 16777216\n/tmp 16777216\n/var/tmp 16777216\n/dev/shm 16777216\n",
        "{answer}"
    );
    assert_eq!(answer["sandbox"]["warm"], false);
}

async fn processes_share_the_processor_time_of_their_sandbox() {
    let code = "import subprocess, sys\nspin = [sys.executable, '-c', 'while True: pass']\n\
                children = [subprocess.Popen(spin) for _ in range(2)]\n[child.wait() for child in children]";
    let limits = json!({"cpu_millis": 500});
    let request = json!({"language": "python", "code": code, "limits": limits, "timeout_ms": 6000});
    let answer = server().run_with(request).await;
    assert_eq!(answer["outcome"]["kind"], "timeout", "{answer}");
    let used = |name: &str| answer["usage"][name].as_u64().expect("a number");
    let (cpu_ms, wall_ms) = (used("cpu_ms"), used("wall_ms"));
    // The kernel allots processor time in slices of a tenth of a second; on a busy machine the code gets less.
    assert!((500..=wall_ms / 2 + 300).contains(&cpu_ms), "{cpu_ms} ms of processor time in {wall_ms} ms");
}

async fn text_that_is_not_utf_8_is_replaced() {
    let code = "import os\nos.write(1, b'a\\xffb\\xe2\\x82')\nos.write(2, b'\\xf0\\x9f\\x98\\x80\\xc3')";
    let answer = server().run("python", code).await;
    assert_eq!(stdout(&answer), "a\u{fffd}b\u{fffd}");
    assert_eq!(crate::support::stderr(&answer), "\u{1f600}\u{fffd}");
}

async fn the_languages_are_listed_with_versions_and_limits() {
    let (status, answer) = server().get("/v1/languages").await;
    assert_eq!(status, 200);
    let languages = answer["languages"].as_array().expect("a list");
    let names: BTreeSet<_> = languages.iter().map(|language| language["name"].as_str().expect("a name")).collect();
    assert_eq!(names, BTreeSet::from(["java", "js", "python", "r", "ts"]));
    for language in languages {
        let version = language["version"].as_str().expect("a version");
        assert!(version.contains(|letter: char| letter.is_ascii_digit()), "{language}");
        assert!(language["packages"].is_object(), "{language}");
    }
    let js = languages.iter().find(|language| language["name"] == "js").expect("js");
    assert_eq!(
        members(js),
        BTreeSet::from(["name", "aliases", "extensions", "version", "packages", "network", "limits"])
    );
    assert_eq!(js["aliases"], json!(["node", "javascript", "nodejs"]));
    assert_eq!(js["network"], "full");
    assert_eq!(
        js["limits"],
        json!({
            "timeout_ms": 30_000, "max_timeout_ms": 600_000, "memory_bytes": 1_073_741_824, "cpu_millis": 1000,
            "processes": 256, "disk_bytes": 536_870_912, "output_bytes": 33_554_432,
        })
    );
}

async fn health_and_status_have_their_shapes() {
    assert_eq!(server().get("/healthz").await, (200, json!({"status": "ok"})));
    eventually("it is ready", async || server().get("/readyz").await == (200, json!({"status": "ready"}))).await;
    let (code, status) = server().get("/v1/status").await;
    assert_eq!(code, 200);
    assert_eq!(members(&status), BTreeSet::from(["version", "running", "queued", "limits", "pool"]));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["limits"], json!({"max_sandboxes": 16, "max_queued": 256}));
    let pool = status["pool"].as_array().expect("a list");
    let warm: Vec<_> = pool.iter().map(|shelf| (shelf["template"].as_str(), shelf["warm"].as_u64())).collect();
    let expected =
        [("base", 0), ("code-interpreter-v1", 0), ("java", 1), ("js", 1), ("python", 2), ("r", 1), ("ts", 1)];
    assert_eq!(warm, expected.map(|(name, warm)| (Some(name), Some(warm))));
    for shelf in pool {
        let names = BTreeSet::from(["template", "warm", "idle", "launching", "waiting", "failing"]);
        assert_eq!(members(shelf), names);
        assert_eq!(shelf["failing"], false);
    }
}

async fn a_request_id_comes_back() {
    let url = format!("{}/healthz", server().url);
    let response = server().http.get(&url).header("x-request-id", "mine-1").send().await.expect("an answer");
    assert_eq!(response.headers()["x-request-id"], "mine-1");
    let response = server().http.get(&url).send().await.expect("an answer");
    assert_eq!(response.headers()["x-request-id"].len(), 36);
}
