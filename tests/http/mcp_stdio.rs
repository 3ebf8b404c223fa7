//! `oncebox mcp`: the Model Context Protocol on standard input and output.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::{Server, oncebox};

trials![
    tools_run_code_with_an_engine_of_their_own_and_in_front_of_a_server,
    tools_are_listed_without_an_engine_and_calls_have_its_error,
    a_cancelled_call_ends_its_run_and_has_no_answer,
    the_end_of_standard_input_ends_runs_and_the_program,
    a_signal_ends_the_program_although_its_input_is_open,
    images_are_left_out_on_request,
    what_the_server_refuses_is_an_error_of_the_request,
    a_server_is_reached_over_tls_by_the_certificate_of_its_ca,
    lines_that_are_no_messages_do_not_end_the_bridge,
];

/// Longer than anything takes that ends by itself.
const PATIENCE: Duration = Duration::from_secs(60);

struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::from(oncebox());
        for file in ["PYTHON", "NODE", "TS", "R", "JSHELL", "FULL", "BASE"] {
            command.env(format!("ONCEBOX_TEMPLATES__{file}__WARM"), "0");
        }
        command.arg("mcp").args(arguments).envs(variables.iter().copied()).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("oncebox mcp");
        let output = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { input: child.stdin.take(), child, output }
    }

    fn before(server: &Server) -> Self {
        Self::start(&[], &[("ONCEBOX_URL", &server.url)])
    }

    async fn send_line(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input is open");
        input.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
    }

    /// Sends a request of the newest revision.
    async fn send(&mut self, id: u64, method: &str, mut params: Value) {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        self.send_line(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()).await;
    }

    async fn run(&mut self, id: u64, code: &str) {
        let arguments = json!({"language": "python", "code": code, "timeout_ms": 60_000});
        self.send(id, "tools/call", json!({"name": "run_code", "arguments": arguments})).await;
    }

    /// The next message.
    async fn next(&mut self) -> Value {
        let line = timeout(PATIENCE, self.output.next_line()).await.expect("in time").expect("text").expect("a line");
        serde_json::from_str(&line).unwrap_or_else(|err| panic!("{err}: {line}"))
    }

    /// The result with this id, which is the next message.
    async fn result(&mut self, id: u64) -> Value {
        let mut answer = self.next().await;
        assert_eq!(answer["id"], id, "{answer}");
        answer["result"].take()
    }

    /// Waits until the program has ended well.
    async fn end(mut self) {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends").expect("a status");
        assert!(status.success(), "{status}");
        assert_eq!(self.output.next_line().await.expect("text"), None, "nothing but answers is printed");
    }
}

async fn tools_run_code_with_an_engine_of_their_own_and_in_front_of_a_server() {
    let server = Server::start_cold(&[("ONCEBOX_API_KEYS", "first-key-1")]);
    let variables = [("ONCEBOX_URL", server.url.as_str()), ("ONCEBOX_API_KEY", "first-key-1")];
    for variables in [&[][..], &variables] {
        let mut newest = Program::start(&[], variables);
        newest.send(1, "server/discover", json!({})).await;
        let discovered = newest.result(1).await;
        assert!(
            discovered["supportedVersions"].as_array().expect("a list").contains(&json!("2026-07-28")),
            "{discovered}"
        );
        newest.run(2, "print('out'); 6 * 7").await;
        let result = newest.result(2).await;
        assert_eq!((&result["structuredContent"]["results"], &result["isError"]), (&json!(["42"]), &json!(false)));
        newest.input = None;
        newest.end().await;

        let mut older = Program::start(&[], variables);
        let client = json!({"name": "test", "version": "1"});
        let open = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
        let open = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": open});
        older.send_line(&open.to_string()).await;
        assert_eq!(older.result(1).await["protocolVersion"], "2025-06-18");
        older.send_line(r#"{"jsonrpc": "2.0", "method": "notifications/initialized"}"#).await;
        older.send_line(r#"{"jsonrpc": "2.0", "id": 2, "method": "tools/list"}"#).await;
        assert_eq!(older.result(2).await["tools"][0]["name"], "run_code");
        older.input = None;
        older.end().await;
    }
}

async fn tools_are_listed_without_an_engine_and_calls_have_its_error() {
    let engine = [("ONCEBOX_ENGINE", "docker"), ("DOCKER_HOST", "unix:///nonexistent/docker.sock")];
    let mut program = Program::start(&[], &engine);
    program.send(1, "tools/list", json!({})).await;
    assert_eq!(program.result(1).await["tools"][1]["name"], "list_languages");
    program.run(2, "1").await;
    let result = program.result(2).await;
    assert_eq!(result["isError"], true, "{result}");
    assert!(result["content"][0]["text"].as_str().expect("text").contains("/nonexistent/docker.sock"), "{result}");
    program.input = None;
    program.end().await;
}

const ENDLESS: &str = "import time\nwhile True: time.sleep(1)";

async fn a_cancelled_call_ends_its_run_and_has_no_answer() {
    let server = Server::start_cold(&[]);
    for is_bridge in [true, false] {
        // One place, so that the second call only runs once the first one has ended.
        let one = [("ONCEBOX_MAX_SANDBOXES", "1")];
        let mut program = if is_bridge { Program::before(&server) } else { Program::start(&[], &one) };
        program.run(1, ENDLESS).await;
        if is_bridge {
            server.until_busy(1, 0).await;
        }
        let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
        program.send_line(&cancel.to_string()).await;
        if is_bridge {
            server.until_busy(0, 0).await;
        }
        program.run(2, "6 * 7").await;
        assert_eq!(program.result(2).await["structuredContent"]["results"], json!(["42"]));
        program.input = None;
        program.end().await;
    }
}

async fn the_end_of_standard_input_ends_runs_and_the_program() {
    let server = Server::start_cold(&[]);
    for is_bridge in [true, false] {
        let mut program = if is_bridge { Program::before(&server) } else { Program::start(&[], &[]) };
        program.run(1, ENDLESS).await;
        if is_bridge {
            server.until_busy(1, 0).await;
        }
        program.input = None;
        let status = timeout(PATIENCE, program.child.wait()).await.expect("it ends").expect("a status");
        assert!(status.success(), "{status}");
        server.until_busy(0, 0).await;
    }
    // An answer that is ready soon still comes.
    let mut program = Program::before(&server);
    program.run(1, "6 * 7").await;
    program.input = None;
    assert_eq!(program.result(1).await["structuredContent"]["results"], json!(["42"]));
    program.end().await;
}

async fn a_signal_ends_the_program_although_its_input_is_open() {
    let server = Server::start_cold(&[]);
    for is_bridge in [true, false] {
        let mut program = if is_bridge { Program::before(&server) } else { Program::start(&[], &[]) };
        program.send(1, "tools/list", json!({})).await;
        program.result(1).await;
        let pid = program.child.id().expect("it runs").to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        program.end().await;
    }
}

async fn images_are_left_out_on_request() {
    let server = Server::start_cold(&[]);
    // The beginning of a PNG.
    let code = "class Figure:\n    formats = {'image/png': 'iVBORw0KGgo='}\nFigure()";
    for variables in [&[][..], &[("ONCEBOX_URL", server.url.as_str())]] {
        for (arguments, has_image) in [(&[][..], true), (&["--no-images"], false)] {
            let mut program = Program::start(arguments, variables);
            program.run(1, code).await;
            let result = program.result(1).await;
            let content = result["content"].as_array().expect("a list");
            assert_eq!(content.iter().any(|block| block["type"] == "image"), has_image, "{result}");
            assert_eq!(result.to_string().contains("images: 1"), !has_image, "{result}");
            program.input = None;
            program.end().await;
        }
    }
}

async fn what_the_server_refuses_is_an_error_of_the_request() {
    let server = Server::start_cold(&[("ONCEBOX_API_KEYS", "first-key-1")]);
    for (url, key, reason) in
        [(server.url.as_str(), "wrong-key-1", "a valid API key is needed"), ("http://127.0.0.1:1", "", "ONCEBOX_URL")]
    {
        let mut program = Program::start(&[], &[("ONCEBOX_URL", url), ("ONCEBOX_API_KEY", key)]);
        program.send(1, "tools/list", json!({})).await;
        let answer = program.next().await;
        assert_eq!(answer["id"], 1);
        assert!(answer["error"]["code"].is_i64(), "{answer}");
        assert!(answer["error"]["message"].as_str().expect("a message").contains(reason), "{answer}");
        program.input = None;
        program.end().await;
    }
    let mut program = Program::start(&[], &[("ONCEBOX_URL", &server.url), ("ONCEBOX_API_KEY", "first-key-1")]);
    program.send(1, "tools/run", json!({})).await;
    assert_eq!(program.next().await["error"]["code"], -32601);
    program.send(2, "tools/call", json!({"name": "ü"})).await;
    assert_eq!(program.next().await["error"]["code"], -32602);
    program.input = None;
    program.end().await;
}

async fn a_server_is_reached_over_tls_by_the_certificate_of_its_ca() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path.to_str().expect("text").to_owned()
    };
    let names = ["127.0.0.1", "api.sandbox.test", "*.sandbox.test"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let (certificate, key) = (file("ca.pem", made.cert.pem()), file("key.pem", made.signing_key.serialize_pem()));
    let server = Server::start_cold(&[
        ("ONCEBOX_DOMAIN", "sandbox.test"),
        ("ONCEBOX_TLS_LISTEN", "127.0.0.1:0"),
        ("ONCEBOX_TLS_CERTIFICATE", &certificate),
        ("ONCEBOX_TLS_KEY", &key),
    ]);
    let url = ("ONCEBOX_URL", server.tls_url.as_deref().expect("it listens for TLS"));
    for (variables, is_trusted) in [(&[url, ("SSL_CERT_FILE", &certificate)][..], true), (&[url], false)] {
        let mut program = Program::start(&[], variables);
        program.send(1, "tools/list", json!({})).await;
        let answer = program.next().await;
        assert_eq!(answer["result"]["tools"].is_array(), is_trusted, "{answer}");
        program.input = None;
        program.end().await;
    }
}

async fn lines_that_are_no_messages_do_not_end_the_bridge() {
    let server = Server::start_cold(&[]);
    let mut program = Program::before(&server);
    program.send_line("{").await;
    assert_eq!(program.next().await["error"]["code"], -32700);
    for ignored in ["", "[]", "{}", "1", r#"{"jsonrpc": "2.0", "id": 9, "result": {}}"#] {
        program.send_line(ignored).await;
    }
    program.send(1, "tools/list", json!({})).await;
    assert!(program.result(1).await["tools"].is_array());
    program.input = None;
    program.end().await;
}
