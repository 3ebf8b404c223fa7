//! Another OCI runtime: gVisor, which puts its own kernel between the code and the host's. These tests are listed as
//! ignored if the engine does not have gVisor.

use libtest_mimic::Trial;
use reqwest::Method;
use serde_json::{Value, json};

use crate::lan::{Lan, METADATA, gateway};
use crate::network;
use crate::support::{Server, docker, stdout, trial};

/// The name under which `scripts/gvisor` registers it.
const RUNSC: &str = "oncebox-test-runsc";
const GVISOR: (&str, &str) = ("ONCEBOX_TEMPLATES__PYTHON__OCI_RUNTIME", RUNSC);

pub(crate) fn trials() -> Vec<Trial> {
    let there_is_none = !docker(&["info", "--format", "{{json .Runtimes}}"]).contains(&format!("\"{RUNSC}\""));
    let in_gvisor = [
        trial(
            module_path!(),
            "code_runs_on_a_kernel_that_is_not_the_hosts",
            code_runs_on_a_kernel_that_is_not_the_hosts,
        ),
        trial(module_path!(), "a_network_is_held_in_gvisor_as_elsewhere", a_network_is_held_in_gvisor_as_elsewhere),
        trial(module_path!(), "runs_end_in_gvisor_as_elsewhere", runs_end_in_gvisor_as_elsewhere),
        trial(
            module_path!(),
            "a_kept_sandbox_has_commands_files_and_ports",
            a_kept_sandbox_has_commands_files_and_ports,
        ),
    ];
    let unknown = trial(module_path!(), "an_unknown_runtime_is_a_clear_error", an_unknown_runtime_is_a_clear_error);
    in_gvisor.into_iter().map(|trial| trial.with_ignored_flag(there_is_none)).chain([unknown]).collect()
}

async fn code_runs_on_a_kernel_that_is_not_the_hosts() {
    let server = Server::start_cold(&[
        GVISOR,
        ("ONCEBOX_TEMPLATES__NODE__OCI_RUNTIME", RUNSC),
        ("ONCEBOX_TEMPLATES__R__OCI_RUNTIME", RUNSC),
    ]);
    let host = std::fs::read_to_string("/proc/version").expect("the host's kernel");
    for (language, code) in [
        ("python", "open('/proc/version').read()"),
        ("js", "process.getBuiltinModule('fs').readFileSync('/proc/version', 'utf8')"),
        ("r", "cat(readLines('/proc/version'), '\\n')"),
    ] {
        let answer = server.run(language, code).await;
        assert_eq!(answer["outcome"]["kind"], "ok", "{answer}");
        let told = format!("{}{}", answer["results"], stdout(&answer));
        assert!(
            told.contains("Linux version") && !told.contains(host.split(" (").next().expect("a version")),
            "{told}"
        );
    }
}

/// The hosts exist, and a container with gVisor and without a policy reaches them.
async fn a_network_is_held_in_gvisor_as_elsewhere() {
    let lan = Lan::new();
    let (server, network) = network::start(&[GVISOR]).await;
    let targets = lan.everything(&network);
    let without = network::reached_without_policy(RUNSC, &network, &targets);
    for plain in targets.iter().map(|target| format!("{target} plain")) {
        assert!(without.contains(&plain), "{plain} is not there at all: {without:?}");
    }
    let allowed = network::both_ways(&[lan.public(2), lan.public(3)]);
    assert_eq!(network::reached(&server, &targets).await, allowed);
    // Forbidden addresses fail at once, so the policy is the cause. This gVisor accepts the option that leads past the
    // routes, but ignores it, because it does not know its interface.
    let code = r#"
import errno, os, socket
with socket.socket() as stream:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    try:
        print(stream.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16))
    except OSError as err:
        print(err)
for target in os.environ["TARGETS"].split():
    host, port = target.rsplit(":", 1)
    with socket.socket() as stream:
        stream.settimeout(20)
        print(errno.errorcode[stream.connect_ex((host, int(port)))])
"#;
    let private = [lan.private(), lan.machine(METADATA), lan.machine(&gateway(&network))];
    let env = json!({"TARGETS": private.join(" ")});
    let answer = server.run_with(json!({"language": "python", "code": code, "env": env})).await;
    let expected = format!("[Errno 92] Protocol not available\n{}", "EHOSTUNREACH\n".repeat(3));
    assert_eq!(stdout(&answer), expected, "{answer}");
    // So the routes are bypassed with this machine's kernel, beside a sandbox: gVisor's packets pass the same filter.
    let code = "import time\nprint('begun', flush=True)\ntime.sleep(60)";
    server.until_busy(0, 0).await;
    let mut running = server.stream(json!({"language": "python", "code": code})).await;
    assert_eq!(running.next().await.expect("an event").name, "stdout");
    let sandboxes = server.sandboxes();
    assert_eq!(sandboxes.len(), 1, "{sandboxes:?}");
    assert_eq!(network::reached_beside(&sandboxes[0], &targets), allowed);
    drop(running);
}

async fn runs_end_in_gvisor_as_elsewhere() {
    let server = Server::start_cold(&[GVISOR]);
    let run = async |code: &str, timeout_ms: u64| {
        let request = json!({"language": "python", "code": code, "timeout_ms": timeout_ms,
            "files": [{"path": "in.txt", "content": "given"}], "stdin": "typed"});
        server.run_with(request).await
    };
    let answer = run("print(open('in.txt').read(), input())\n6 * 7", 30_000).await;
    assert_eq!((&answer["results"], stdout(&answer).as_str()), (&json!(["42"]), "given typed\n"), "{answer}");
    for (code, kind) in [
        ("print('before')\n1 / 0", "exception"),
        ("print('before')\nimport sys; sys.exit(3)", "exit"),
        ("print('before', flush=True)\nwhile True: pass", "timeout"),
        ("print('before', flush=True)\nimport os; os.kill(os.getpid(), 9)", "signal"),
        ("print('before')\nwhile True: print('x' * 100000)", "output_limit"),
    ] {
        let answer = run(code, if kind == "timeout" { 6000 } else { 30_000 }).await;
        assert_eq!(answer["outcome"]["kind"], kind, "{code}: {}", answer["outcome"]);
        assert!(stdout(&answer).starts_with("before\n"), "{code}");
    }
}

async fn a_kept_sandbox_has_commands_files_and_ports() {
    let server = Server::start_cold(&[("ONCEBOX_TEMPLATES__BASE__OCI_RUNTIME", RUNSC)]);
    let (status, created) = server.post("/sandboxes", &json!({"templateID": "base"})).await;
    assert_eq!(status, 201, "{created}");
    let at = |port: u16, method: Method, path: &str| {
        let request = server.http.request(method, format!("{}{path}", server.url));
        let id = created["sandboxID"].as_str().expect("an id");
        request.header("E2b-Sandbox-Id", id).header("E2b-Sandbox-Port", port)
    };
    let sent = at(49983, Method::POST, "/files?path=index.html").header("content-type", "application/octet-stream");
    assert_eq!(sent.body("hello").send().await.expect("an answer").status(), 200);
    let serve = json!({"process": {"cmd": "/bin/bash", "args": ["-c", "python3 -m http.server 8000"]}});
    let start = at(49983, Method::POST, "/process.Process/Start").header("content-type", "application/connect+json");
    let running = start.body(crate::e2b::envelope(0, serve.to_string().as_bytes())).send().await.expect("an answer");
    crate::support::eventually("the port answers", async || {
        let answer = at(8000, Method::GET, "/index.html").send().await.expect("an answer");
        answer.status() == 200 && answer.text().await.expect("text") == "hello"
    })
    .await;
    drop(running);
    let id = created["sandboxID"].as_str().expect("an id");
    let killed = server.http.delete(format!("{}/sandboxes/{id}", server.url)).send().await.expect("an answer");
    assert_eq!(killed.status(), 204);
}

async fn an_unknown_runtime_is_a_clear_error() {
    let server = Server::start_cold(&[("ONCEBOX_TEMPLATES__PYTHON__OCI_RUNTIME", "no-such-runtime")]);
    let (status, answer): (u16, Value) = server.post("/v1/run", &json!({"language": "python", "code": "1"})).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("no_sandbox")), "{answer}");
    assert_eq!(server.run("js", "1 + 1").await["results"], json!(["2"]));
}
