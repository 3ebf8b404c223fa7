//! What each scope opens: every route with every scope.

use reqwest::Method;
use serde_json::json;

use crate::key_file::{KeyFile, send};

trials![each_scope_opens_its_routes_and_no_other, the_refusal_names_the_scope_in_the_shape_of_each_api];

const SCOPES: [&str; 5] = ["run", "sandboxes", "build", "metrics", "admin"];

/// The routes with the scopes that open them: every method that a route has, and one that stands for all others.
pub(crate) const ROUTES: &[(&str, &str, &[&str])] = &[
    ("POST", "/v1/run", &["run"]),
    ("GET", "/v1/runs", &["run", "sandboxes"]),
    ("GET", "/v1/languages", &SCOPES),
    ("GET", "/v1/status", &["metrics"]),
    ("GET", "/metrics", &["metrics"]),
    ("POST", "/mcp", &["run"]),
    ("POST", "/sandboxes", &["sandboxes"]),
    ("GET", "/sandboxes", &["sandboxes"]),
    ("POST", "/v2/sandboxes", &["sandboxes"]),
    ("GET", "/v2/sandboxes", &["sandboxes"]),
    ("HEAD", "/v2/sandboxes", &["sandboxes"]),
    ("GET", "/sandboxes/metrics", &["sandboxes"]),
    ("GET", "/sandboxes/inone", &["sandboxes"]),
    ("DELETE", "/sandboxes/inone", &["sandboxes"]),
    ("POST", "/sandboxes/inone/connect", &["sandboxes"]),
    ("POST", "/v2/sandboxes/inone/connect", &["sandboxes"]),
    ("POST", "/sandboxes/inone/timeout", &["sandboxes"]),
    ("POST", "/sandboxes/inone/refreshes", &["sandboxes"]),
    ("POST", "/sandboxes/inone/pause", &["sandboxes"]),
    ("POST", "/sandboxes/inone/resume", &["sandboxes"]),
    ("PUT", "/sandboxes/inone/network", &["sandboxes"]),
    ("GET", "/sandboxes/inone/metrics", &["sandboxes"]),
    ("GET", "/sandboxes/inone/logs", &["sandboxes"]),
    ("GET", "/v2/sandboxes/inone/logs", &["sandboxes"]),
    ("POST", "/sandboxes/inone/snapshots", &["sandboxes"]),
    ("POST", "/sandboxes/inone/fork", &["sandboxes"]),
    ("GET", "/templates", &["sandboxes", "build"]),
    ("GET", "/v2/templates", &["sandboxes", "build"]),
    ("GET", "/templates/aliases/base", &["sandboxes", "build"]),
    ("GET", "/templates/base", &["sandboxes", "build"]),
    ("POST", "/templates", &["build"]),
    ("POST", "/v2/templates", &["build"]),
    ("GET", "/v3/templates", &["build"]),
    ("POST", "/v3/templates", &["build"]),
    ("POST", "/templates/aliases/base", &["build"]),
    ("POST", "/templates/base", &["build"]),
    ("PATCH", "/templates/base", &["build"]),
    ("DELETE", "/templates/base", &["build"]),
    ("GET", "/templates/base/builds/b/status", &["build"]),
    ("POST", "/templates/base/builds/b", &["build"]),
    ("POST", "/v2/templates/base/builds/b", &["build"]),
    ("GET", "/api-keys", &["admin"]),
    ("POST", "/api-keys", &["admin"]),
    ("PATCH", "/api-keys/none", &["admin"]),
    ("DELETE", "/api-keys/none", &["admin"]),
    // Not offered, whoever asks.
    ("GET", "/snapshots", &SCOPES),
    ("GET", "/teams", &SCOPES),
    ("POST", "/volumes", &SCOPES),
    ("GET", "/volumes/v", &SCOPES),
    ("POST", "/secrets", &SCOPES),
    ("DELETE", "/secrets/s", &SCOPES),
];

async fn each_scope_opens_its_routes_and_no_other() {
    let (file, keys) = KeyFile::with(SCOPES.map(|scope| [scope, "--scope", scope]).each_ref().map(|key| &key[..]));
    let plain = "plain-key-1";
    let server = file.serve(&[("ONCEBOX_API_KEYS", plain)]);
    for (method, path, scopes) in ROUTES {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        for (scope, key) in SCOPES.iter().zip(&keys) {
            // A request that passes is refused for its body, or because there is no such thing.
            let status = send(&server, key, method.clone(), path, Some(json!({}))).await.status;
            assert_eq!(status != 403, scopes.contains(scope), "{method} {path} with {scope}: {status}");
            assert_ne!(status, 401, "{method} {path}");
        }
        // A key of the environment has all scopes but the one that makes keys.
        let status = send(&server, plain, method.clone(), path, Some(json!({}))).await.status;
        assert_eq!(status == 403, *scopes == ["admin"], "{method} {path}: {status}");
        let open = send(&server, "wrong-key-1", method.clone(), path, Some(json!({}))).await.status;
        assert_eq!(open, 401, "{method} {path} without a key");
    }
    for path in ["/healthz", "/health"] {
        assert_eq!(send(&server, "wrong-key-1", Method::GET, path, None).await.status, 200, "{path}");
    }
}

async fn the_refusal_names_the_scope_in_the_shape_of_each_api() {
    let (file, [key]) = KeyFile::with([&["some", "--scope", "metrics"]]);
    let server = file.serve(&[]);
    let run = json!({"language": "python", "code": "1"});
    let native = send(&server, &key, Method::POST, "/v1/run", Some(run)).await;
    let message = "this API key lacks the scope `run`";
    assert_eq!(native.status, 403);
    assert_eq!(native.json(), json!({"error": {"code": "forbidden", "message": message}}));
    let message = send(&server, &key, Method::GET, "/templates", None).await.error(403);
    assert!(message.contains("`sandboxes` or `build`"), "{message}");
}
