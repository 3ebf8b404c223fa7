//! `/docs/`, the page that shows the description, loads nothing from another host.

use async_compression::tokio::bufread::GzipDecoder;
use reqwest::Method;
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::e2b::{ENVD, INTERPRETER, Sandbox, answer, request};
use crate::openapi::get;
use crate::support::Server;

trials![
    the_page_needs_no_key_and_a_web_page_gets_none_of_it,
    the_page_is_in_the_program_and_names_no_other_host,
    the_same_paths_in_a_sandbox_are_the_sandboxes,
];

async fn the_page_needs_no_key_and_a_web_page_gets_none_of_it() {
    let open = Server::start_cold(&[]);
    let keyed = Server::start_cold(&[("ONCEBOX_API_KEYS", "first-key-1")]);
    for path in ["/openapi.json", "/docs", "/docs/", "/docs/swagger-ui.css"] {
        for server in [&open, &keyed] {
            let port = server.url.rsplit(':').next().expect("a port");
            let no_redirects = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
            let client = no_redirects.pool_max_idle_per_host(0).build().expect("a client");
            let get = || client.get(format!("{}{path}", server.url));
            let usual = if path == "/docs" { 303 } else { 200 };
            let shown = answer(get()).await;
            assert_eq!(shown.status, usual, "{path}");
            assert!(usual == 200 || shown.headers["location"] == "/docs/");
            let foreign = if std::ptr::eq(server, &open) { 403 } else { usual };
            assert_eq!(answer(get().header("origin", "http://evil.example")).await.status, foreign, "{path}");
            assert_eq!(answer(get().header("host", format!("evil.example:{port}"))).await.status, foreign, "{path}");
            assert_eq!(answer(get().header("origin", server.url.as_str())).await.status, usual, "{path}");
        }
    }
}

/// The text of a file of the page, which is compressed if it has a size worth it.
async fn text_of(server: &Server, path: &str) -> String {
    let file = get(server, path).await;
    assert_eq!(file.status, 200, "{path}");
    let policy = file.headers["content-security-policy"].to_str().expect("text");
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.split("; ").any(|own| own == part), "{policy}");
    }
    let Some(encoding) = file.headers.get("content-encoding") else {
        assert!(file.body.len() < 1024, "{path} is not compressed");
        return file.text();
    };
    assert_eq!(encoding, "gzip");
    let mut text = Vec::new();
    GzipDecoder::new(&file.body[..]).read_to_end(&mut text).await.expect("it is gzip");
    String::from_utf8_lossy(&text).into_owned()
}

async fn the_page_is_in_the_program_and_names_no_other_host() {
    let server = Server::start_cold(&[]);
    let index = text_of(&server, "/docs/").await;
    let sources: Vec<_> = ["src=\"", "href=\""]
        .iter()
        .flat_map(|start| index.split(start).skip(1))
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(sources.len() >= 5, "{index}");
    for source in sources {
        let text = text_of(&server, &format!("/docs/{}", source.trim_start_matches("./"))).await;
        if source.ends_with(".css") {
            let loads =
                text.split("url(").skip(1).filter(|rest| !rest.trim_start_matches(['"', '\'']).starts_with("data:"));
            assert_eq!((loads.count(), text.contains("@import")), (0, false), "{source} loads something else");
        }
    }
    let start = text_of(&server, "/docs/swagger-initializer.js").await;
    assert!(start.contains("\"url\": \"/openapi.json\"") && start.contains("\"layout\": \"BaseLayout\""), "{start}");
    for text in [&index, &start] {
        assert!(!text.contains("://") && !text.contains("\"//"), "{text}");
    }
    // No script and no style is in the text, where the policy would stop it.
    assert!(
        !index.contains("<style") && index.matches("<script").count() == index.matches("<script src=").count(),
        "{index}"
    );
    let missing = get(&server, "/docs/none.js").await;
    assert_eq!((missing.status, &missing.json()["error"]["code"]), (404, &json!("not_found")));
}

async fn the_same_paths_in_a_sandbox_are_the_sandboxes() {
    let sandbox = Sandbox::shared().await;
    let id = &sandbox.id;
    for path in ["/openapi.json", "/docs", "/docs/", "/docs/index.css"] {
        assert!([200, 303].contains(&answer(request(Method::GET, path)).await.status), "{path}");
        for (port, status) in [(ENVD, 404), (INTERPRETER, 404), (9, 502)] {
            let token = || request(Method::GET, path).header("x-access-token", &sandbox.token);
            let by_name = token().header("host", format!("{port}-{id}.localhost"));
            let by_headers = token().header("e2b-sandbox-id", id).header("e2b-sandbox-port", port);
            for call in [by_name, by_headers] {
                let found = answer(call).await;
                assert_eq!(found.status, status, "{path} on {port}: {}", found.text());
                assert!(!found.headers.contains_key("content-security-policy"), "{path} on {port}");
            }
        }
    }
}
