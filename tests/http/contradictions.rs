//! Requests that state one fact twice and differently. They are refused: whichever statement were chosen, a proxy on the
//! way or the client may have meant the other. (Those about the sandbox are in `addresses`.)

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::e2b::{ENVD, INTERPRETER, KEY, OTHER_KEY, Sandbox, Stream, answer, api, envelope, raw, request, server};

trials![
    keys_of_two_owners_are_refused,
    a_token_of_the_client_beside_its_key_is_ignored,
    a_token_that_is_there_twice_must_be_right_twice,
    a_header_with_two_values_is_refused,
    a_name_that_is_there_twice_in_an_object_is_refused,
    options_that_contradict_each_other_are_refused,
    a_query_parameter_that_is_there_twice_is_refused,
    lines_of_a_list_are_one_list,
    a_length_beside_chunks_is_ignored_and_ends_the_connection,
];

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

async fn keys_of_two_owners_are_refused() {
    for path in ["/sandboxes", "/v1/status"] {
        let get = || request(Method::GET, path);
        for call in [
            get().header("x-api-key", KEY).header("authorization", bearer(OTHER_KEY)),
            get().header("x-api-key", OTHER_KEY).header("authorization", bearer(KEY)),
            get().header("x-api-key", KEY).header("x-api-key", OTHER_KEY),
            get().header("x-api-key", KEY).header("x-api-key", ""),
            get().header("authorization", bearer(KEY)).header("authorization", bearer(OTHER_KEY)),
            get().header("authorization", bearer(KEY)).header("authorization", "Basic Og=="),
        ] {
            assert_eq!(answer(call).await.status, 400, "{path}");
        }
        for call in [
            get().header("x-api-key", KEY).header("authorization", bearer(KEY)),
            get().header("x-api-key", KEY).header("x-api-key", KEY),
        ] {
            assert_eq!(answer(call).await.status, 200, "{path}");
        }
    }
}

/// Old SDKs send `E2B_ACCESS_TOKEN`, which is no key, as `Authorization: Bearer`.
async fn a_token_of_the_client_beside_its_key_is_ignored() {
    for (key, token, status) in [(KEY, "no-key-of-ours", 200), ("no-key-of-ours", KEY, 401), ("", KEY, 401)] {
        let call = request(Method::GET, "/sandboxes").header("x-api-key", key).header("authorization", bearer(token));
        assert_eq!(answer(call).await.status, status, "{key} {token}");
    }
}

async fn a_token_that_is_there_twice_must_be_right_twice() {
    let sandbox = Sandbox::shared().await;
    let private = json!({"templateID": "base", "network": {"allowPublicTraffic": false}});
    let private = Sandbox::create(private).await;
    let traffic = private.created["trafficAccessToken"].as_str().expect("a token");
    for (tokens, status) in [(["", "wrong"], 401), (["wrong", ""], 401), (["", ""], 200)] {
        let with = |call: RequestBuilder, name: &str, right: &str| {
            tokens.iter().fold(call, |call, token| call.header(name, if token.is_empty() { right } else { token }))
        };
        for (port, path) in [(ENVD, "/envs"), (ENVD, "/files?path=/etc/hostname"), (INTERPRETER, "/health")] {
            let call = with(sandbox.at(port, Method::GET, path), "x-access-token", &sandbox.token);
            assert_eq!(answer(call).await.status, status, "{port}{path} {tokens:?}");
        }
        let call = with(private.at(INTERPRETER, Method::GET, "/health"), "e2b-traffic-access-token", traffic);
        assert_eq!(answer(call).await.status, if status == 401 { 403 } else { status }, "{tokens:?}");
    }
    private.kill().await;
}

async fn a_header_with_two_values_is_refused() {
    let sandbox = Sandbox::shared().await;
    let upload = |kind: &str| {
        sandbox.envd(Method::POST, "/files?path=/tmp/contradiction").header("content-type", kind).body("x")
    };
    let stat = |kind: &str| {
        let call = sandbox.envd(Method::POST, "/filesystem.Filesystem/Stat").header("content-type", kind);
        call.body("{\"path\": \"/\"}")
    };
    let start = || {
        let call =
            sandbox.envd(Method::POST, "/process.Process/Start").header("content-type", "application/connect+json");
        call.body(envelope(0, br#"{"process": {"cmd": "/bin/true"}}"#))
    };
    let basic = |user: &str| format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:")));
    let octets = "application/octet-stream";
    for (call, status) in [
        (upload(octets).header("content-type", "multipart/form-data; boundary=b"), 400),
        (upload(octets).header("x-metadata-k", "1").header("X-Metadata-K", "2"), 400),
        (upload(octets).header("x-metadata-k", "1").header("X-Metadata-K", "1"), 200),
        (upload(octets).header("content-encoding", "identity").header("content-encoding", "gzip"), 400),
        (stat("application/json").header("content-type", "text/plain"), 400),
        (stat("application/json").header("content-type", "application/json"), 200),
        (stat("application/json").header("authorization", basic("root")).header("authorization", basic("user")), 400),
        (start().header("connect-timeout-ms", "1000").header("connect-timeout-ms", "60000"), 400),
        (start().header("keepalive-ping-interval", "1").header("keepalive-ping-interval", "60"), 400),
        (start().header("connect-timeout-ms", "60000").header("connect-timeout-ms", "60000"), 200),
    ] {
        let found = answer(call).await;
        assert_eq!(found.status, status, "{}", found.text());
    }
}

async fn a_name_that_is_there_twice_in_an_object_is_refused() {
    let sandbox = Sandbox::interpreted().await;
    let control = |path: &str, body: &str| request(Method::POST, path).header("x-api-key", KEY).body(body.to_owned());
    let execute = |body: &str| sandbox.at(INTERPRETER, Method::POST, "/execute").body(body.to_owned());
    for (call, status, named) in [
        (control("/v1/run", r#"{"language": "python", "code": "1", "env": {"A": "1", "A": "2"}}"#), 400, "env: "),
        (control("/v2/sandboxes", r#"{"templateID": "base", "metadata": {"a": "1", "a": "2"}}"#), 400, "metadata: "),
        (control("/v2/sandboxes", r#"{"templateID": "base", "envVars": {"A": "1", "A": "1"}}"#), 400, "envVars: "),
        (control("/v2/sandboxes", r#"{"templateID": "none", "templateID": "base"}"#), 400, "`templateID`"),
        (control("/v2/sandboxes", r#"{"templateID": "base", "timeout": 1, "timeout": 2}"#), 400, "`timeout`"),
        (execute(r#"{"code": "1", "env_vars": {"A": "1", "A": "2"}}"#), 422, "env_vars: "),
        (execute(r#"{"code": "1", "code": "2"}"#), 422, "`code`"),
    ] {
        let found = answer(call).await;
        assert!(found.status == status && found.text().contains(named), "{named}: {}", found.text());
    }
    let start = sandbox.envd(Method::POST, "/process.Process/Start").header("content-type", "application/connect+json");
    let message = br#"{"process": {"cmd": "/bin/true", "envs": {"A": "1", "A": "2"}}}"#;
    let started = start.body(envelope(0, message)).send().await.expect("an answer");
    let (code, message) = Stream::new(started).error().await;
    assert!(code == "invalid_argument" && message.contains("process.envs: "), "{message}");
}

async fn options_that_contradict_each_other_are_refused() {
    let create = |top: Value, inner: Value| {
        let network = json!({"allow_internet_access": inner});
        let body = json!({"templateID": "base", "allow_internet_access": top, "network": network});
        api(Method::POST, "/v2/sandboxes", Some(body))
    };
    for (top, inner) in [(true, false), (false, true)] {
        assert!(create(json!(top), json!(inner)).await.error(400).contains("network.allow_internet_access"));
    }
    for (top, inner, shown) in
        [(json!(false), json!(false), false), (json!(null), json!(false), false), (json!(true), json!(null), true)]
    {
        let sandbox = Sandbox::from(create(top, inner).await.json());
        assert_eq!(sandbox.api(Method::GET, "", None).await.json()["allowInternetAccess"], shown);
        sandbox.kill().await;
    }
    // One message of an input stream has one member.
    let sandbox = Sandbox::shared().await;
    let both = json!({"start": {"process": {"pid": 1}}, "data": {"input": {"stdin": "YQ=="}}});
    let (code, message) = sandbox.stream("process.Process/StreamInput", both).await.error().await;
    assert!(code == "invalid_argument" && message.contains("`data`"), "{code}: {message}");
}

async fn a_query_parameter_that_is_there_twice_is_refused() {
    let sandbox = Sandbox::shared().await;
    let read = |query: &str| sandbox.envd(Method::GET, &format!("/files?{query}"));
    for (query, named) in [
        ("path=/etc/hostname&path=/etc/passwd", "path"),
        ("path=/etc/hostname&username=root&username=user", "username"),
        ("path=/etc/hostname&signature=a&signature=b", "signature"),
        ("path=/etc/hostname&signature_expiration=1&signature_expiration=2", "signature_expiration"),
    ] {
        assert!(answer(read(query)).await.error(400).contains(named), "{query}");
        let write = sandbox.envd(Method::POST, &format!("/files?{query}"));
        answer(write.header("content-type", "application/octet-stream").body("x")).await.error(400);
    }
    assert_eq!(answer(read("path=/etc/hostname&other=1&other=2")).await.status, 200);
}

async fn lines_of_a_list_are_one_list() {
    let run = json!({"language": "python", "code": "1"});
    let post = server().http.post(format!("{}/v1/run", server().url)).header("x-api-key", KEY);
    let post = post.header("accept", "application/json").header("accept", "text/event-stream");
    let found = answer(post.json(&run)).await;
    assert_eq!(found.headers["content-type"], "text/event-stream", "{}", found.text());
    // Content that was compressed twice.
    let sandbox = Sandbox::shared().await;
    let upload =
        sandbox.envd(Method::POST, "/files?path=/tmp/twice").header("content-type", "application/octet-stream");
    let upload = upload.header("content-encoding", "gzip").header("content-encoding", "gzip").body("x");
    assert!(answer(upload).await.error(400).contains("gzip, gzip"));
}

/// So nothing that follows is taken for a request, however a proxy on the way has read it.
async fn a_length_beside_chunks_is_ignored_and_ends_the_connection() {
    let body = json!({"templateID": "none"}).to_string();
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let behind = format!("GET /sandboxes HTTP/1.1\r\nhost: h\r\nx-api-key: {KEY}\r\n\r\n");
    for lengths in [
        ["content-length: 4\r\n", "transfer-encoding: chunked\r\n"],
        ["transfer-encoding: chunked\r\n", "content-length: 4\r\n"],
    ] {
        let [first, second] = lengths;
        let head = format!("POST /v2/sandboxes HTTP/1.1\r\nhost: h\r\nx-api-key: {KEY}\r\n{first}{second}\r\n");
        let told = raw(format!("{head}{chunked}{behind}").as_bytes()).await;
        assert!(told.starts_with("HTTP/1.1 404 "), "{told}");
        assert_eq!(told.matches("HTTP/1.1 ").count(), 1, "{told}");
    }
}
