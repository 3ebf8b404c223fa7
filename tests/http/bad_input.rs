//! Invalid requests: refused with the field's name, and without effect.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Server, server};

trials![
    requests_that_cannot_be_met_are_refused_by_field_and_start_nothing,
    a_body_that_is_too_large_is_a_413,
    a_template_without_network_refuses_one,
    an_unknown_route_is_a_404_and_a_wrong_method_a_405,
    a_body_is_json_whatever_its_content_type,
];

/// Sends a raw body; returns the status, and the error's code and message.
async fn send(server: &Server, method: Method, path: &str, body: impl Into<reqwest::Body>) -> (u16, String, String) {
    let url = format!("{}{path}", server.url);
    let response = server.http.request(method, url).body(body).send().await.expect("an answer");
    let status = response.status().as_u16();
    let answer: Value = response.json().await.expect("a JSON answer");
    let text = |name: &str| answer["error"][name].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    assert_eq!(answer, json!({"error": {"code": text("code"), "message": text("message")}}));
    (status, text("code"), text("message"))
}

async fn refused(server: &Server, body: &str, expected: &str) {
    let (status, code, message) = send(server, Method::POST, "/v1/run", body.to_owned()).await;
    assert_eq!((status, code.as_str()), (400, "invalid_request"), "{body}: {message}");
    assert!(message.contains(expected), "{body}: `{message}` does not say `{expected}`");
    assert!(!message.contains('\n') && message.len() < 500, "{message}");
}

async fn requests_that_cannot_be_met_are_refused_by_field_and_start_nothing() {
    let server = Server::start_cold(&[("ONCEBOX_TEMPLATES__PYTHON__WARM", "1")]);
    let bodies = [
        ("", "the body: "),
        ("{", "the body: "),
        ("not json", "the body: "),
        ("[]", "the body: "),
        ("null", "the body: "),
        ("\"text\"", "the body: "),
        ("{\"code\": \"1\", \"language\": \"python\"} {}", "the body: trailing characters"),
        ("{\"language\": \"python\"}", "missing field `code`"),
        ("{\"code\": \"1\"}", "missing field `language`"),
        ("{\"code\": 1, \"language\": \"python\"}", "code: invalid type"),
        ("{\"code\": null, \"language\": \"python\"}", "code: invalid type"),
        ("{\"code\": \"1\", \"language\": [\"js\"]}", "language: invalid type"),
        ("{\"code\": \"1\", \"language\": \"python\", \"code\": \"2\"}", "duplicate field `code`"),
        ("{\"code\": \"\\ud800\", \"language\": \"python\"}", "code: "),
    ];
    for (body, expected) in bodies {
        refused(&server, body, expected).await;
    }
    let bytes = b"{\"code\": \"\xff\", \"language\": \"python\"}".as_slice();
    let (status, _, message) = send(&server, Method::POST, "/v1/run", bytes).await;
    assert_eq!(status, 400);
    assert!(message.starts_with("code: "), "{message}");

    let known = "language: no language is named `cobol`; known languages: java, js, python, r, ts";
    let members = [
        (json!({"language": "cobol"}), known),
        (json!({"language": ""}), "language: no language is named ``; known languages: java, js, python, r, ts"),
        (json!({"langauge": "js"}), "unknown field `langauge`"),
        (json!({"timeout_ms": 0}), "timeout_ms: must be from 1 to 600000, not 0"),
        (json!({"timeout_ms": 600_001}), "timeout_ms: must be from 1 to 600000, not 600001"),
        (json!({"timeout_ms": -1}), "timeout_ms: invalid value"),
        (json!({"timeout_ms": 1.5}), "timeout_ms: invalid type"),
        (json!({"timeout_ms": "1"}), "timeout_ms: invalid type"),
        (json!({"timeout_ms": 1e30}), "timeout_ms: invalid type"),
        (json!({"timeout_ms": u64::MAX}), "timeout_ms: must be from 1 to 600000, not 18446744073709551615"),
        (json!({"stdin": 7}), "stdin: invalid type"),
        (json!({"network": "some"}), "network: unknown variant `some`"),
        (json!({"env": ["A"]}), "env: invalid type"),
        (json!({"env": {"A": 1}}), "env.A: invalid type"),
        (json!({"env": {"A=B": "1"}}), "env: `A=B` cannot be set"),
        (json!({"env": {"": "1"}}), "env: `` cannot be set"),
        (json!({"env": {"A": "a\0b"}}), "env: `A` cannot be set"),
        (json!({"limits": {"memory": 1}}), "limits.memory: unknown field `memory`"),
        (json!({"limits": {"memory_bytes": 0}}), "limits.memory_bytes: must be from 67108864 to 1073741824, not 0"),
        (
            json!({"limits": {"memory_bytes": 1_073_741_825_u64}}),
            "limits.memory_bytes: must be from 67108864 to 1073741824, not 1073741825",
        ),
        (json!({"limits": {"cpu_millis": 1001}}), "limits.cpu_millis: must be from 10 to 1000, not 1001"),
        (json!({"limits": {"processes": 257}}), "limits.processes: must be from 16 to 256, not 257"),
        (json!({"limits": {"processes": -1}}), "limits.processes: invalid value"),
        (
            json!({"limits": {"disk_bytes": 536_870_913}}),
            "limits.disk_bytes: must be from 1048576 to 536870912, not 536870913",
        ),
        (json!({"limits": {"output_bytes": 1}}), "limits.output_bytes: must be from 1024 to 33554432, not 1"),
        (json!({"files": {}}), "files: invalid type"),
        (json!({"files": [{"path": "a"}]}), "files[0]: missing field `content`"),
        (json!({"files": [{"path": "a", "content": "", "mode": 1}]}), "files[0].mode: unknown field `mode`"),
        (json!({"files": [{"path": 1, "content": ""}]}), "files[0].path: invalid type"),
        (
            json!({"files": [{"path": "a", "content": "", "encoding": "hex"}]}),
            "files[0].encoding: unknown variant `hex`",
        ),
        (
            json!({"files": [{"path": "a", "content": ""}, {"path": "b", "content": "?", "encoding": "base64"}]}),
            "files[1].content: not base64",
        ),
        (json!({"files": vec![json!({"path": "a", "content": ""}); 1001]}), "files: at most 1000 files, not 1001"),
    ];
    for (more, expected) in members {
        let mut request = json!({"code": "1", "language": "python"});
        request.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        refused(&server, &request.to_string(), expected).await;
    }

    let (_, status) = server.get("/v1/status").await;
    assert_eq!((&status["running"], &status["queued"]), (&json!(0), &json!(0)));
    let python = status["pool"].as_array().and_then(|pool| pool.iter().find(|one| one["template"] == "python"));
    let python = python.expect("its shelf");
    assert_eq!((&python["idle"], &python["launching"]), (&json!(1), &json!(0)), "a refused request took a sandbox");
    assert_eq!(server.run("python", "'still here'").await["results"], json!(["'still here'"]));
}

async fn a_body_that_is_too_large_is_a_413() {
    let server = Server::start_cold(&[("ONCEBOX_MAX_BODY_BYTES", "2000")]);
    let request = |length: usize| json!({"code": "x".repeat(length), "language": "cobol"}).to_string();
    let (status, code, message) = send(&server, Method::POST, "/v1/run", request(2000)).await;
    assert_eq!((status, code.as_str()), (413, "too_large"), "{message}");
    // The same without a content length.
    let pieces = (0..3).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1500]));
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let (status, code, message) = send(&server, Method::POST, "/v1/run", body).await;
    assert_eq!((status, code.as_str()), (413, "too_large"), "{message}");
    let (status, _, message) = send(&server, Method::POST, "/v1/run", request(1900)).await;
    assert_eq!(status, 400, "within the bound it is read: {message}");
    assert_eq!(server.get("/v1/status").await.1["running"], 0);
}

async fn a_template_without_network_refuses_one() {
    let server = Server::start_cold(&[("ONCEBOX_TEMPLATES__PYTHON__NETWORK", "none")]);
    let request = json!({"code": "1", "language": "python", "network": "full"});
    refused(&server, &request.to_string(), "network: `full` is not allowed here, only `none`").await;
    assert_eq!(server.get("/v1/status").await.1["running"], 0);
}

async fn an_unknown_route_is_a_404_and_a_wrong_method_a_405() {
    for path in ["/", "/v1", "/v1/runner", "/v1/run/", "/v2/run", "/v1/../etc/passwd%00"] {
        let (status, code, message) = send(server(), Method::GET, path, "").await;
        assert_eq!((status, code.as_str()), (404, "not_found"), "{path}: {message}");
    }
    for (method, path) in
        [(Method::GET, "/v1/run"), (Method::PUT, "/v1/run"), (Method::POST, "/v1/status"), (Method::DELETE, "/healthz")]
    {
        let (status, code, message) = send(server(), method.clone(), path, "").await;
        assert_eq!((status, code.as_str()), (405, "method_not_allowed"), "{path}: {message}");
        assert_eq!(message, format!("{path} does not take {method}"));
    }
}

async fn a_body_is_json_whatever_its_content_type() {
    for kind in ["application/json", "text/plain", "application/x-www-form-urlencoded"] {
        let post = server().http.post(format!("{}/v1/run", server().url)).header("content-type", kind);
        let response = post.body("{\"code\": \"1 + 1\", \"language\": \"python\"}").send().await.expect("an answer");
        let answer: Value = response.json().await.expect("a JSON answer");
        assert_eq!(answer["results"], json!(["2"]), "{kind}: {answer}");
    }
}
