//! API keys: the requests that they allow, and the servers that need them.

use serde_json::{Value, json};

use crate::key_file::KeyFile;
use crate::support::{Server, eventually, refuses_to_start};

trials![
    a_key_opens_the_api_in_either_header_and_nothing_else_does,
    health_needs_no_key,
    another_address_than_loopback_needs_a_key,
    a_key_that_could_be_guessed_is_refused,
    a_page_in_a_browser_does_not_reach_a_server_without_keys,
];

const KEYS: (&str, &str) = ("ONCEBOX_API_KEYS", "first-key-1, second-key-2");

async fn a_key_opens_the_api_in_either_header_and_nothing_else_does() {
    let server = Server::start_cold(&[KEYS]);
    let url = format!("{}/v1/run", server.url);
    let run = async |header: Option<(&str, &str)>| {
        let mut post = server.http.post(&url).json(&json!({"language": "cobol", "code": ""}));
        if let Some((name, value)) = header {
            post = post.header(name, value);
        }
        let response = post.send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.expect("a JSON answer"))
    };
    // A request that passes the key check is then refused because of its language.
    for (name, value) in [
        ("x-api-key", "first-key-1"),
        ("X-API-Key", "second-key-2"),
        ("authorization", "Bearer first-key-1"),
        ("Authorization", "bearer second-key-2"),
    ] {
        let (status, answer) = run(Some((name, value))).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("invalid_request")), "{name}: {value}");
    }
    let refused = [
        None,
        Some(("x-api-key", "")),
        Some(("x-api-key", "first-key-")),
        Some(("x-api-key", "first-key-1 ,second-key-2x")),
        Some(("x-api-key", "first-key-1, second-key-2")),
        Some(("x-api-key", "FIRST-KEY-1")),
        Some(("authorization", "first-key-1")),
        Some(("authorization", "Basic first-key-1")),
        Some(("authorization", "Bearer ")),
        Some(("authorization", "Bearer wrong-key-3")),
        Some(("cookie", "x-api-key=first-key-1")),
    ];
    for header in refused {
        let (status, answer) = run(header).await;
        let message = "a valid API key is needed, as `X-API-Key` or `Authorization: Bearer`";
        assert_eq!(status, 401, "{header:?}");
        assert_eq!(answer, json!({"error": {"code": "unauthorized", "message": message}}), "{header:?}");
    }
    for path in ["/v1/status", "/v1/languages"] {
        assert_eq!(server.get(path).await.0, 401, "{path}");
        assert_eq!(server.get(&format!("{path}?key=first-key-1&x-api-key=first-key-1")).await.0, 401, "{path}");
    }
    assert!(server.containers().is_empty());
}

async fn health_needs_no_key() {
    let server = Server::start_cold(&[KEYS]);
    assert_eq!(server.get("/healthz").await.0, 200);
    eventually("it is ready", async || server.get("/readyz").await.0 == 200).await;
}

async fn another_address_than_loopback_needs_a_key() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:3000"] {
        assert_eq!(
            refuses_to_start(&[("ONCEBOX_LISTEN", address)], None),
            format!(
                "oncebox: environment: listen = \"{address}\" is not loopback, and anyone who reaches it could run code: \
                 add a key first, by `oncebox keys add` or in ONCEBOX_API_KEYS\n"
            )
        );
    }
    let (file, []) = KeyFile::with([]);
    file.write("# No key yet: nobody is let in.\n");
    let path = file.path();
    for keys in [KEYS, ("ONCEBOX_KEYS", path.to_str().expect("text"))] {
        let server = Server::start_cold(&[("ONCEBOX_LISTEN", "0.0.0.0:0"), keys]);
        assert_eq!(server.get("/v1/status").await.0, 401);
        assert_eq!(server.get("/healthz").await.0, 200);
    }
}

async fn a_key_that_could_be_guessed_is_refused() {
    for keys in ["short", "long-enough-1,short", "with space-1"] {
        let said = refuses_to_start(&[("ONCEBOX_API_KEYS", keys)], None);
        let reason = "must hold keys of at least 8 visible ASCII characters, with commas between them";
        assert_eq!(said, format!("oncebox: environment: ONCEBOX_API_KEYS {reason}\n"));
        assert!(!said.contains(keys), "a key is a secret");
    }
}

async fn a_page_in_a_browser_does_not_reach_a_server_without_keys() {
    let server = Server::start_cold(&[]);
    let port = server.url.rsplit(':').next().expect("a port").to_owned();
    let send = async |path: &str, headers: &[(&str, String)]| {
        // The requests that a form, or a script without a preflight request, can send.
        let post = server.http.post(format!("{}{path}", server.url)).header("content-type", "text/plain");
        let post = headers.iter().fold(post, |post, (name, value)| post.header(*name, value));
        let sent = post.body(r#"{"language": "cobol", "code": "", "templateID": "none"}"#).send().await;
        sent.expect("an answer").status().as_u16()
    };
    for (path, else_status) in [("/v1/run", 400), ("/v2/sandboxes", 404)] {
        let page = [("origin", "http://evil.example".to_owned())];
        assert_eq!(send(path, &page).await, 403, "{path}");
        // A foreign name whose DNS entry leads to this machine.
        let rebound = format!("evil.example:{port}");
        let rebound = [("host", rebound.clone()), ("origin", format!("http://{rebound}"))];
        assert_eq!(send(path, &rebound).await, 403, "{path}");
        assert_eq!(send(path, &[("origin", "null".to_owned())]).await, 403, "{path}");
        assert_eq!(send(path, &[]).await, else_status, "{path}");
        assert_eq!(send(path, &[("host", format!("localhost:{port}"))]).await, else_status, "{path}");
    }
    assert!(server.stop());
}
