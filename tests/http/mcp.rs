//! The Model Context Protocol with rmcp's own client, which opens a connection as the newest revision has it or as those
//! before do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResult, ClientRequest, ProgressNotificationParam, ProtocolVersion,
};
use rmcp::service::{NotificationContext, PeerRequestOptions, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt, RoleClient};
use serde_json::{Value, json};

use crate::support::{Server, eventually, server};

trials![
    clients_of_each_revision_find_the_tools_and_run_code,
    the_languages_are_those_of_the_native_api,
    code_that_fails_is_an_error_that_the_model_reads,
    an_argument_that_cannot_be_used_is_named_and_nothing_runs,
    images_are_blocks_beside_the_structured_content,
    keys_of_letta_get_no_images,
    long_texts_keep_their_head_and_tail,
    a_full_queue_is_an_error_that_the_model_reads,
    progress_has_the_time_and_the_last_line_twice_a_second_at_most,
    a_call_that_is_cancelled_ends_its_run,
    a_client_that_goes_away_ends_its_run,
];

/// A client, with the progress that it was shown.
#[derive(Debug, Clone, Default)]
struct Client {
    progress: Arc<Mutex<Vec<(Instant, ProgressNotificationParam)>>>,
}

impl ClientHandler for Client {
    async fn on_progress(&self, progress: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.progress.lock().expect("the progress").push((Instant::now(), progress));
    }
}

type Connection = RunningService<RoleClient, Client>;

fn newest() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
}

async fn connect(server: &Server, lifecycle: ClientLifecycleMode) -> Connection {
    let transport = StreamableHttpClientTransport::from_uri(format!("{}/mcp", server.url));
    Client::default().serve_with_lifecycle(transport, lifecycle).await.expect("a connection")
}

fn request(tool: &str, arguments: &Value) -> CallToolRequestParams {
    CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments.as_object().expect("an object").clone())
}

/// Runs code; returns the result and its structured content.
async fn run_code(client: &Connection, arguments: &Value) -> (CallToolResult, Value) {
    let result = client.call_tool(request("run_code", arguments)).await.expect("a result");
    let structured = result.structured_content.clone().expect("structured content");
    let text = &result.content[0].as_text().expect("a text").text;
    assert_eq!(serde_json::from_str::<Value>(text).expect("JSON"), structured, "the text is the same JSON");
    assert_eq!(result.is_error, Some(structured["outcome"]["kind"] != "ok"), "{structured}");
    (result, structured)
}

/// The message of a call that is refused.
async fn refusal(client: &Connection, tool: &str, arguments: &Value) -> String {
    let result = client.call_tool(request(tool, arguments)).await.expect("a result");
    assert_eq!((result.is_error, &result.structured_content), (Some(true), &None), "{result:?}");
    let [message] = &result.content[..] else { panic!("{result:?}") };
    message.as_text().expect("a text").text.clone()
}

async fn clients_of_each_revision_find_the_tools_and_run_code() {
    for lifecycle in [ClientLifecycleMode::Initialize, newest()] {
        let client = connect(server(), lifecycle.clone()).await;
        let peer = client.peer_info().expect("the server's description");
        assert_eq!(peer.server_info.as_ref().expect("its name").name, "oncebox");
        let is_newest = peer.protocol_version == ProtocolVersion::V_2026_07_28;
        assert_eq!(is_newest, matches!(lifecycle, ClientLifecycleMode::Discover { .. }));
        let tools = client.list_all_tools().await.expect("the tools");
        let names: Vec<_> = tools.iter().map(|tool| tool.name.as_ref()).collect();
        assert_eq!(names, ["run_code", "list_languages"]);
        let (_, languages) = server().get("/v1/languages").await;
        let languages: Vec<_> =
            languages["languages"].as_array().expect("a list").iter().map(|one| &one["name"]).collect();
        let schema = Value::Object((*tools[0].input_schema).clone());
        assert_eq!(schema["properties"]["language"]["enum"], json!(languages));
        let hints = serde_json::to_value(&tools[0].annotations).expect("JSON");
        let expected =
            json!({"readOnlyHint": false, "destructiveHint": false, "idempotentHint": false, "openWorldHint": true});
        assert_eq!(hints, expected);
        let arguments = json!({
            "language": "python",
            "code": "import sys; print(input(), open('a.txt').read(), end=''); print('e', file=sys.stderr); 6 * 7",
            "stdin": "in\n",
            "files": [{"path": "a.txt", "content": "YQ==", "encoding": "base64"}],
            "timeout_ms": 20_000,
            "network": "none",
        });
        let (result, structured) = run_code(&client, &arguments).await;
        assert_eq!(result.content.len(), 1);
        assert_eq!(structured["outcome"], json!({"kind": "ok", "message": "the code ran to its end"}));
        assert_eq!(structured["results"], json!(["42"]));
        assert_eq!((&structured["stdout"], &structured["stderr"]), (&json!("in a"), &json!("e\n")));
        assert_eq!((&structured["truncated"], structured.get("exception")), (&json!(false), None));
        assert!(structured["usage"]["wall_ms"].is_u64());
        client.cancel().await.expect("its end");
    }
}

async fn the_languages_are_those_of_the_native_api() {
    let client = connect(server(), newest()).await;
    let result = client.call_tool(request("list_languages", &json!({}))).await.expect("a result");
    assert_eq!(result.is_error, Some(false));
    // Versions become known meanwhile.
    let names = |languages: &Value| {
        let languages = languages["languages"].as_array().expect("a list").iter();
        languages.map(|one| (one["name"].to_string(), one["limits"].clone())).collect::<BTreeMap<_, _>>()
    };
    let (_, native) = server().get("/v1/languages").await;
    assert_eq!(names(&result.structured_content.expect("structured content")), names(&native));
}

async fn code_that_fails_is_an_error_that_the_model_reads() {
    let client = connect(server(), newest()).await;
    let (_, raised) = run_code(&client, &json!({"language": "python", "code": "print(1)\n1/0"})).await;
    assert_eq!(
        (&raised["outcome"]["kind"], &raised["exception"]["name"]),
        (&json!("exception"), &json!("ZeroDivisionError"))
    );
    assert!(raised["exception"]["traceback"].as_str().expect("text").contains("division by zero"), "{raised}");
    assert_eq!(raised["stdout"], "1\n");
    let late = json!({"language": "python", "code": "import time; time.sleep(60)", "timeout_ms": 100});
    let (_, late) = run_code(&client, &late).await;
    assert_eq!(late["outcome"]["kind"], "timeout");
    assert_eq!(late["outcome"]["limit"], json!({"name": "timeout_ms", "value": 100}));
}

async fn an_argument_that_cannot_be_used_is_named_and_nothing_runs() {
    let server = Server::start_cold(&[]);
    let client = connect(&server, newest()).await;
    let call = |change: Value| {
        let mut arguments = json!({"language": "python", "code": "1"});
        let changes = change.as_object().expect("an object").clone();
        arguments.as_object_mut().expect("an object").extend(changes);
        arguments
    };
    for (arguments, begins) in [
        (json!({"code": "1"}), "arguments: "),
        (call(json!({"code": null})), "code: "),
        (call(json!({"language": "cobol"})), "language: "),
        (call(json!({"env": {"A": "1"}})), "env: "),
        (call(json!({"sandbox_id": "a"})), "sandbox_id: "),
        (call(json!({"timeout_ms": 0})), "timeout_ms: "),
        (call(json!({"timeout_ms": 1e12})), "timeout_ms: "),
        (call(json!({"timeout_ms": 100_000_000})), "timeout_ms: "),
        (call(json!({"network": "allowlist"})), "network: "),
        (call(json!({"files": [{"path": "a", "content": "a"}, {"path": "b"}]})), "files[1]: "),
        (call(json!({"files": [{"path": "a", "content": "?", "encoding": "base64"}]})), "files[0].content: "),
        (call(json!({"files": vec![json!({"path": "a", "content": ""}); 1001]})), "files: "),
    ] {
        let message = refusal(&client, "run_code", &arguments).await;
        assert!(message.starts_with(begins), "{begins}: {message}");
        assert!(!message.contains("line 1"), "the arguments have no lines: {message}");
    }
    let message = refusal(&client, "list_languages", &json!({"all": true})).await;
    assert!(message.starts_with("all: "), "{message}");
    let message = refusal(&client, "run_code", &call(json!({"files": [{"path": "/proc/a", "content": ""}]}))).await;
    assert!(message.starts_with("files[0].path: "), "{message}");
    let unknown = client.call_tool(request("run", &json!({}))).await.expect_err("no such tool");
    assert!(unknown.to_string().contains("run_code, list_languages"), "{unknown}");
}

async fn images_are_blocks_beside_the_structured_content() {
    let client = connect(server(), newest()).await;
    let png = STANDARD.encode(b"\x89PNG\r\n\x1a\nrest");
    let code = format!(
        "class Figure:\n    formats = {{'image/png': '{png}', 'image/svg+xml': '<svg/>'}}\n    __repr__ = lambda self: 'a figure'\nFigure()"
    );
    let (result, structured) = run_code(&client, &json!({"language": "python", "code": code})).await;
    assert_eq!((&structured["results"], &structured["truncated"]), (&json!(["a figure"]), &json!(false)));
    let [_, image] = &result.content[..] else { panic!("{result:?}") };
    let image = image.as_image().expect("an image");
    assert_eq!((image.mime_type.as_str(), &image.data), ("image/png", &png));
    let code = "class Page:\n    formats = {'text/plain': None, 'text/html': '<p>'}\nPage()";
    let (result, structured) = run_code(&client, &json!({"language": "python", "code": code})).await;
    assert_eq!((result.content.len(), &structured["truncated"]), (1, &json!(true)));
    assert!(structured["omitted"][0].as_str().expect("a line").contains("text/html"), "{structured}");
}

async fn keys_of_letta_get_no_images() {
    let server = Server::start_cold(&[("ONCEBOX_LETTA_API_KEYS", "letta-key-1")]);
    let config =
        StreamableHttpClientTransportConfig::with_uri(format!("{}/mcp", server.url)).auth_header("letta-key-1");
    let transport = StreamableHttpClientTransport::from_config(config);
    let client = Client::default().serve_with_lifecycle(transport, newest()).await.expect("a connection");
    let code = "class Figure:\n    formats = {'image/png': 'iVBORw0KGgo='}\nFigure()";
    let (result, structured) = run_code(&client, &json!({"language": "python", "code": code})).await;
    assert_eq!(result.content.len(), 1);
    assert!(structured["omitted"][0].as_str().expect("a line").starts_with("images: 1"), "{structured}");
}

async fn long_texts_keep_their_head_and_tail() {
    let client = connect(server(), newest()).await;
    let code = "print('a' * 300_000 + 'z'); raise ValueError('b' * 300_000 + 'y')";
    let (_, structured) = run_code(&client, &json!({"language": "python", "code": code})).await;
    assert_eq!(structured["truncated"], true);
    let value = &structured["exception"]["value"];
    for (text, head, tail) in [(&structured["stdout"], "aaa", "az\n"), (value, "bbb", "by")] {
        let text = text.as_str().expect("text");
        assert!(text.starts_with(head) && text.ends_with(tail), "{text:.100}");
        assert!((20_000..20_100).contains(&text.chars().count()), "{} characters", text.chars().count());
    }
}

fn endless() -> Value {
    json!({"language": "python", "code": "import time\nwhile True: time.sleep(1)", "timeout_ms": 60_000})
}

async fn a_full_queue_is_an_error_that_the_model_reads() {
    let server = Server::start_cold(&[("ONCEBOX_MAX_SANDBOXES", "1"), ("ONCEBOX_MAX_QUEUED", "0")]);
    let run = server.begin(endless());
    server.until_busy(1, 0).await;
    let client = connect(&server, newest()).await;
    let message = refusal(&client, "run_code", &json!({"language": "python", "code": "1"})).await;
    assert!(message.starts_with("max_sandboxes = 1") && message.ends_with("try again in 1 s"), "{message}");
    run.abort();
}

async fn progress_has_the_time_and_the_last_line_twice_a_second_at_most() {
    for lifecycle in [ClientLifecycleMode::Initialize, newest()] {
        // This client sends a token with each request.
        let client = connect(server(), lifecycle).await;
        let code = "import time\nfor i in range(200): print('line', i, flush=True); time.sleep(0.01)";
        let arguments = json!({"language": "python", "code": code, "timeout_ms": 20_000});
        run_code(&client, &arguments).await;
        let progress = client.service().progress.lock().expect("the progress").clone();
        assert!(progress.len() >= 2, "{progress:?}");
        for (index, (_, message)) in progress.iter().enumerate() {
            assert_eq!(message.total, Some(20_000.0));
            assert!(message.message.as_ref().is_some_and(|line| line.starts_with("line ")), "{message:?}");
            // By the server's clock; the messages may arrive closer together.
            assert!(message.progress >= 500.0 * (index + 1) as f64, "{progress:?}");
        }
        assert!(progress.windows(2).all(|pair| pair[0].1.progress < pair[1].1.progress), "{progress:?}");
        let lines: std::collections::BTreeSet<_> = progress.iter().map(|(_, message)| &message.message).collect();
        assert_eq!(lines.len(), progress.len(), "{progress:?}");
    }
}

async fn a_call_that_is_cancelled_ends_its_run() {
    let server = Server::start_cold(&[]);
    let client = connect(&server, newest()).await;
    let call = ClientRequest::CallToolRequest(CallToolRequest::new(request("run_code", &endless())));
    let call = client.send_cancellable_request(call, PeerRequestOptions::no_options()).await.expect("it is sent");
    server.until_busy(1, 0).await;
    call.cancel(Some("no longer needed".to_owned())).await.expect("it is cancelled");
    server.until_busy(0, 0).await;
    // The connection goes on.
    run_code(&client, &json!({"language": "python", "code": "1"})).await;
}

async fn a_client_that_goes_away_ends_its_run() {
    let server = Server::start_cold(&[("ONCEBOX_MAX_SANDBOXES", "1")]);
    for lifecycle in [ClientLifecycleMode::Initialize, newest()] {
        let client = connect(&server, lifecycle).await;
        let peer = client.peer().clone();
        let running = tokio::spawn(async move { peer.call_tool(request("run_code", &endless())).await });
        server.until_busy(1, 0).await;
        let peer = client.peer().clone();
        let waiting = tokio::spawn(async move { peer.call_tool(request("run_code", &endless())).await });
        server.until_busy(1, 1).await;
        client.cancel().await.expect("its end");
        eventually("neither runs nor waits", async || {
            let (_, status) = server.get("/v1/status").await;
            status["running"] == 0 && status["queued"] == 0
        })
        .await;
        running.abort();
        waiting.abort();
    }
    let silence = Duration::from_secs(60);
    assert!(tokio::time::timeout(silence, server.run("python", "1")).await.is_ok(), "the place is free");
}
