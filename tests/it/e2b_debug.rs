//! Debug mode, in which SDKs dial fixed ports of this machine and mostly do not name their sandbox. Also pages in
//! browsers, which may call a sandbox that they know, and no other.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::e2b::{ENVD, INTERPRETER, KEY, Sandbox, answer, request};
use crate::support::{Server, eventually};

trials![
    a_call_without_a_token_is_for_the_newest_sandbox_that_wants_none,
    pages_may_call_a_sandbox_that_they_know,
    pages_may_not_call_the_server_itself,
];

/// A request to a port of this machine.
fn dial(server: &Server, port: u16, method: Method, path: &str) -> RequestBuilder {
    server.http.request(method, format!("http://localhost:{port}{path}"))
}

async fn execute(server: &Server, code: &str, token: Option<&str>) -> (u16, String) {
    let request = dial(server, INTERPRETER, Method::POST, "/execute").json(&json!({"code": code}));
    let request = token.into_iter().fold(request, |request, token| request.header("X-Access-Token", token));
    let answer = answer(request).await;
    (answer.status, answer.text())
}

async fn create(server: &Server, body: Value, key: &str) -> Value {
    let request = server.http.post(format!("{}/sandboxes", server.url)).header("x-api-key", key);
    let created = answer(request.json(&body)).await;
    assert_eq!(created.status, 201, "{}", created.text());
    created.json()
}

/// Starts a server that listens on the fixed ports. They are in the range of ports that systems assign to outgoing
/// connections, so another connection may use one for a moment.
async fn start(variables: &[(&str, &str)]) -> Server {
    let variables = [&[("ONCEBOX_DEBUG_PORTS", "true")][..], variables].concat();
    let mut started = None;
    eventually("the ports are free", async || {
        started =
            Server::try_start_cold(&variables).inspect_err(|said| assert!(said.contains("in use"), "{said}")).ok();
        started.is_some()
    })
    .await;
    started.expect("it has started")
}

async fn a_call_without_a_token_is_for_the_newest_sandbox_that_wants_none() {
    let server = start(&[("ONCEBOX_TEMPLATES__FULL__WARM", "1")]).await;
    // The oldest and the newest SDKs create no sandbox: the server creates one when they call.
    let (status, lines) = execute(&server, "mine = 'shared'; mine", None).await;
    assert!(status == 200 && lines.contains("\"text\":\"shared\""), "{lines}");
    let first = create(&server, json!({"templateID": "code-interpreter-v1"}), "any").await;
    let second = create(&server, json!({"templateID": "code-interpreter-v1"}), "any").await;
    let secure = create(&server, json!({"templateID": "code-interpreter-v1", "secure": true}), "any").await;
    let own = |sandbox: &Value| format!("import os; os.environ['E2B_SANDBOX_ID'] == {}", sandbox["sandboxID"]);
    let (_, lines) = execute(&server, &own(&second), None).await;
    assert!(lines.contains("\"text\":\"True\""), "{lines}");
    for sandbox in [&first, &second, &secure] {
        let (_, lines) = execute(&server, &own(sandbox), sandbox["envdAccessToken"].as_str()).await;
        assert!(lines.contains("\"text\":\"True\""), "{lines}");
    }
    // A browser names the origin of a page. Such a page must not run code here.
    let page = dial(&server, INTERPRETER, Method::POST, "/execute").header("origin", "http://evil.example");
    assert_eq!(answer(page.body(r#"{"code": "1"}"#)).await.status, 401);
    // The errors for a sandbox that has ended and for an unknown token differ.
    let id = first["sandboxID"].as_str().expect("an id");
    let killed = server.http.delete(format!("{}/sandboxes/{id}", server.url)).header("x-api-key", "any");
    assert_eq!(answer(killed).await.status, 204);
    let (status, text) = execute(&server, "1", first["envdAccessToken"].as_str()).await;
    assert_eq!((status, text.contains("The sandbox was not found")), (502, true), "{text}");
    assert_eq!(execute(&server, "1", Some("no such token")).await.0, 401);
    assert!(server.stop());

    let keyed = start(&[("ONCEBOX_API_KEYS", KEY)]).await;
    let open = create(&keyed, json!({"templateID": "code-interpreter-v1"}), KEY).await;
    assert_eq!(execute(&keyed, "1", None).await.0, 401);
    assert_eq!(answer(dial(&keyed, ENVD, Method::GET, "/metrics")).await.status, 401);
    assert_eq!(execute(&keyed, "1", open["envdAccessToken"].as_str()).await.0, 200);
    assert!(keyed.stop());
}

async fn pages_may_call_a_sandbox_that_they_know() {
    let sandbox = Sandbox::interpreted().await;
    // A browser first sends a preflight request, without the headers that it asks about.
    let asked = request(Method::OPTIONS, "/execute")
        .header("origin", "https://page.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,e2b-sandbox-id,e2b-sandbox-port,x-access-token");
    let allowed = answer(asked).await;
    assert_eq!(allowed.status, 200, "{}", allowed.text());
    assert_eq!(allowed.headers["access-control-allow-origin"], "*");
    assert!(
        allowed.headers["access-control-allow-headers"].to_str().is_ok_and(|names| names.contains("e2b-sandbox-id"))
    );
    for call in [
        sandbox.at(INTERPRETER, Method::POST, "/execute").json(&json!({"code": "1"})),
        sandbox.envd(Method::GET, "/metrics"),
        sandbox.envd(Method::GET, "/files").query(&[("path", "/etc/hostname")]),
    ] {
        let told = answer(call.header("origin", "https://page.example")).await;
        assert_eq!((told.status, &told.headers["access-control-allow-origin"]), (200, &"*".parse().expect("a value")));
    }
}

async fn pages_may_not_call_the_server_itself() {
    for path in ["/v1/run", "/sandboxes", "/v2/sandboxes"] {
        let asked = request(Method::OPTIONS, path)
            .header("origin", "https://page.example")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,x-api-key");
        let told = answer(asked).await;
        assert!(told.status >= 400, "{path}: {}", told.status);
        assert!(!told.headers.contains_key("access-control-allow-origin"), "{path}");
    }
}
