//! The Model Context Protocol, by requests that its clients do not send: errors of the protocol, of keys and of pages.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::key_file::{KeyFile, send};
use crate::support::{Server, server};

trials![
    headers_that_are_missing_or_contradict_the_body_are_refused,
    an_unknown_version_is_refused_with_those_that_are_known,
    unknown_methods_and_wrong_parameters_are_refused,
    a_body_that_is_no_message_is_a_400,
    there_is_no_stream_and_no_session,
    an_answer_is_one_stream_that_proxies_do_not_hold_back,
    a_key_is_needed_and_no_sign_in_is_offered,
    a_key_without_the_scope_is_refused,
    pages_of_other_hosts_and_foreign_names_are_refused_whatever_the_key,
    a_request_for_a_sandbox_does_not_reach_the_tools,
    code_and_output_are_not_logged,
];

const VERSION: &str = "2026-07-28";

fn meta(version: &str) -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

fn post(server: &Server) -> RequestBuilder {
    let post = server.http.post(format!("{}/mcp", server.url));
    post.header("accept", "application/json, text/event-stream").header("content-type", "application/json")
}

/// A message of the newest revision, with the headers that belong to it.
fn message(server: &Server, method: &str, mut params: Value) -> RequestBuilder {
    params["_meta"] = meta(VERSION);
    let post = post(server).header("mcp-protocol-version", VERSION).header("mcp-method", method);
    let post = match params["name"].as_str() {
        Some(name) => post.header("mcp-name", name),
        None => post,
    };
    post.json(&json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}))
}

/// A message as the revisions before have it.
fn old_message(server: &Server, method: &str, params: Value) -> RequestBuilder {
    post(server).json(&json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}))
}

/// The status of the answer, and its one message.
async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    let is_stream = response.headers().get("content-type").is_some_and(|kind| kind == "text/event-stream");
    let text = response.text().await.expect("a body");
    let text = match is_stream {
        true => text.lines().find_map(|line| line.strip_prefix("data: ")).expect("a message"),
        false => &text,
    };
    (status, serde_json::from_str(text).unwrap_or(Value::String(text.to_owned())))
}

async fn error(request: RequestBuilder) -> (u16, i64) {
    let (status, answer) = answer(request).await;
    (status, answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("{status}: {answer}")))
}

async fn headers_that_are_missing_or_contradict_the_body_are_refused() {
    let params = json!({"_meta": meta(VERSION), "name": "list_languages", "arguments": {}});
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
    let complete = [("mcp-protocol-version", VERSION), ("mcp-method", "tools/call"), ("mcp-name", "list_languages")];
    let with = |changed: &str, value: Option<&str>| {
        complete.iter().fold(post(server()).json(&body), |post, (name, usual)| {
            match if *name == changed { value } else { Some(*usual) } {
                Some(value) => post.header(*name, value),
                None => post,
            }
        })
    };
    assert_eq!(answer(with("", None)).await.0, 200);
    for (name, value) in [
        ("mcp-protocol-version", None),
        ("mcp-protocol-version", Some("2025-11-25")),
        ("mcp-method", None),
        ("mcp-method", Some("tools/list")),
        ("mcp-name", None),
        ("mcp-name", Some("run_code")),
    ] {
        assert_eq!(error(with(name, value)).await, (400, -32020), "{name}: {value:?}");
    }
    for (name, value) in
        [("mcp-protocol-version", "2025-11-25"), ("mcp-method", "tools/list"), ("mcp-name", "run_code")]
    {
        assert_eq!(error(with("", None).header(name, value)).await, (400, -32600), "{name} twice");
    }
    // What the body itself must have.
    let request = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {}});
    let request =
        post(server()).header("mcp-protocol-version", VERSION).header("mcp-method", "tools/list").json(&request);
    assert_eq!(error(request).await, (400, -32602));
}

async fn an_unknown_version_is_refused_with_those_that_are_known() {
    let request = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {"_meta": meta("2030-01-01")}});
    let request =
        post(server()).header("mcp-protocol-version", "2030-01-01").header("mcp-method", "tools/list").json(&request);
    let (status, answer) = answer(request).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!(-32022)), "{answer}");
    let data = &answer["error"]["data"];
    assert_eq!(data["requested"], "2030-01-01");
    for version in ["2025-03-26", "2025-06-18", "2025-11-25", VERSION] {
        assert!(data["supported"].as_array().expect("a list").contains(&json!(version)), "{data}");
    }
    let old = old_message(server(), "tools/list", json!({})).header("mcp-protocol-version", "2030-01-01");
    assert_eq!(old.send().await.expect("an answer").status(), 400);
}

async fn unknown_methods_and_wrong_parameters_are_refused() {
    assert_eq!(error(message(server(), "resources/list", json!({}))).await, (404, -32601));
    assert_eq!(error(message(server(), "tools/run", json!({}))).await, (404, -32601));
    let call = message(server(), "tools/call", json!({"name": "run", "arguments": {}}));
    assert_eq!(error(call).await.1, -32602);
    for params in [json!({"name": "run_code", "arguments": "1"}), json!({"arguments": {}}), json!({"name": 1})] {
        assert_eq!(error(old_message(server(), "tools/call", params.clone())).await, (200, -32602), "{params}");
    }
    assert_eq!(error(old_message(server(), "tools/run", json!({}))).await, (200, -32601));
}

async fn a_body_that_is_no_message_is_a_400() {
    let server = Server::start_cold(&[("ONCEBOX_MAX_BODY_BYTES", "4096")]);
    let list = r#"{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}"#;
    for (body, status, code) in [
        ("", 400, -32700),
        ("{", 400, -32700),
        (r#"{"jsonrpc": "2.0", "id": 1, "id": 2, "method": "tools/list"}"#, 400, -32700),
        (r#"{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a", "name": "b"}}"#, 400, -32700),
        ("{}", 400, -32600),
        ("1", 400, -32600),
        (r#"[{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}]"#, 400, -32600),
        (r#"{"jsonrpc": "1.0", "id": 1, "method": "tools/list"}"#, 400, -32600),
        (r#"{"jsonrpc": "2.0", "id": 1, "result": {}}"#, 400, -32600),
        (&" ".repeat(5000), 413, -32600),
    ] {
        assert_eq!(error(post(&server).body(body.to_owned())).await, (status, code), "{body:.100}");
    }
    let packed = post(&server).header("content-encoding", "gzip").body(list);
    assert_eq!(error(packed).await, (415, -32600));
    let plain = server.http.post(format!("{}/mcp", server.url)).body(list);
    assert_eq!(plain.header("accept", "*/*").send().await.expect("an answer").status(), 406);
}

async fn there_is_no_stream_and_no_session() {
    for method in [Method::GET, Method::DELETE, Method::PUT] {
        let request = server().http.request(method.clone(), format!("{}/mcp", server().url));
        let response = request.header("accept", "text/event-stream").send().await.expect("an answer");
        assert_eq!(response.status(), 405, "{method}");
        assert_eq!(response.headers()["allow"], "POST", "{method}");
    }
    let client = json!({"name": "test", "version": "1"});
    let open = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
    let response = old_message(server(), "initialize", open).send().await.expect("an answer");
    assert!(response.headers().get("mcp-session-id").is_none());
    let notification = post(server()).json(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    assert_eq!(notification.send().await.expect("an answer").status(), 202);
    // A session of another server does not matter.
    let list = old_message(server(), "tools/list", json!({})).header("mcp-session-id", "a").send().await;
    assert_eq!(list.expect("an answer").status(), 200);
}

async fn an_answer_is_one_stream_that_proxies_do_not_hold_back() {
    let response = message(server(), "tools/list", json!({})).send().await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let (_, listed) = answer(message(server(), "tools/list", json!({}))).await;
    let result = &listed["result"];
    assert_eq!((&listed["id"], &result["resultType"]), (&json!(7), &json!("complete")));
    assert!(result["ttlMs"].as_u64().is_some_and(|ttl_ms| ttl_ms > 0) && result["cacheScope"] == "private", "{result}");
    let (_, old) = answer(old_message(server(), "tools/list", json!({}))).await;
    assert_eq!(old["result"]["tools"], result["tools"]);
    assert!(old["result"].get("resultType").is_none(), "{old}");
}

async fn a_key_is_needed_and_no_sign_in_is_offered() {
    let server = Server::start_cold(&[("ONCEBOX_API_KEYS", "first-key-1")]);
    for request in [
        message(&server, "tools/list", json!({})),
        message(&server, "tools/list", json!({})).header("x-api-key", "wrong"),
    ] {
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
    }
    for (name, value) in [("x-api-key", "first-key-1"), ("authorization", "Bearer first-key-1")] {
        assert_eq!(answer(message(&server, "tools/list", json!({})).header(name, value)).await.0, 200, "{name}");
    }
    for kind in ["oauth-protected-resource", "oauth-authorization-server", "openid-configuration"] {
        for path in
            [format!("/.well-known/{kind}"), format!("/.well-known/{kind}/mcp"), format!("/mcp/.well-known/{kind}")]
        {
            assert_eq!(server.get(&path).await.0, 404, "{path}");
        }
    }
}

async fn a_key_without_the_scope_is_refused() {
    let (file, [run, kept]) = KeyFile::with([&["run", "--scope", "run"], &["kept", "--scope", "sandboxes"]]);
    let server = file.serve(&[]);
    assert_eq!(answer(message(&server, "tools/list", json!({})).header("x-api-key", &run)).await.0, 200);
    let (status, refused) = answer(message(&server, "tools/list", json!({})).header("x-api-key", &kept)).await;
    assert_eq!(status, 403);
    assert!(refused["error"]["message"].as_str().expect("a message").contains("`run`"), "{refused}");
}

async fn pages_of_other_hosts_and_foreign_names_are_refused_whatever_the_key() {
    let key = "first-key-1";
    let keyed = Server::start_cold(&[("ONCEBOX_API_KEYS", key), ("ONCEBOX_DOMAIN", "box.lan")]);
    let keyless = Server::start_cold(&[]);
    for server in [&keyed, &keyless] {
        let port = server.url.rsplit(':').next().expect("a port");
        let status = async |headers: &[(&str, &str)]| {
            let request = message(server, "tools/list", json!({})).header("x-api-key", key);
            let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            request.send().await.expect("an answer").status().as_u16()
        };
        let rebound = format!("evil.example:{port}");
        for refused in [
            &[("origin", "http://evil.example")][..],
            &[("origin", "null")],
            &[("host", &rebound)],
            &[("host", &rebound), ("origin", &format!("http://{rebound}"))],
        ] {
            assert_eq!(status(refused).await, 403, "{refused:?}");
        }
        let own = format!("localhost:{port}");
        assert_eq!(status(&[]).await, 200);
        assert_eq!(status(&[("host", &own), ("origin", &format!("http://{own}"))]).await, 200);
    }
    let status = async |host: &str| {
        let request = message(&keyed, "tools/list", json!({})).header("x-api-key", key).header("host", host);
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!((status("box.lan").await, status("192.0.2.1:3000").await), (200, 200));
}

async fn a_request_for_a_sandbox_does_not_reach_the_tools() {
    let server = Server::start_cold(&[("ONCEBOX_DOMAIN", "box.lan")]);
    let list = || message(&server, "tools/list", json!({}));
    let named = list().header("e2b-sandbox-id", "inone").header("e2b-sandbox-port", "8000");
    for request in [named, list().header("host", "8000-inone.box.lan")] {
        let (status, answer) = answer(request).await;
        assert!(status != 200 && answer.get("result").is_none(), "{status}: {answer}");
    }
}

async fn code_and_output_are_not_logged() {
    let server = Server::start_cold(&[("ONCEBOX_LOG", "trace,rmcp=trace,rmcp::service=trace")]);
    let run =
        json!({"name": "run_code", "arguments": {"language": "python", "code": "print('a' 'bcxyz'); 'd' 'efxyz'"}});
    for request in [message(&server, "tools/call", run.clone()), old_message(&server, "tools/call", run)] {
        let (_, answer) = answer(request).await;
        let result = &answer["result"]["structuredContent"];
        assert_eq!((&result["stdout"], &result["results"]), (&json!("abcxyz\n"), &json!(["'defxyz'"])));
    }
    assert!(!server.logged("TRACE").is_empty(), "the log has every level");
    for secret in ["bcxyz", "efxyz"] {
        assert_eq!(server.logged(secret), Vec::<String>::new());
    }
    assert_eq!(send(&server, "", Method::GET, "/healthz", None).await.status, 200);
}
