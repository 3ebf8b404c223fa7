//! The native API of a server with keys: nothing about one tenant's run is visible to another.

use libtest_mimic::Trial;
use serde_json::json;

use super::case;
use crate::e2b::{KEY, OTHER_KEY, answer, request};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        case("POST /v1/run with a wrong key runs nothing", with_a_wrong_key_runs_nothing),
        case("a status tells one tenant nothing of what another runs", a_status_tells_nothing),
    ]
}

async fn with_a_wrong_key_runs_nothing() {
    let marker = format!("/tmp/{}", super::SECRET);
    let run = json!({"language": "python", "code": format!("open({marker:?}, 'w'); print('{}')", super::SECRET)});
    for key in ["", "e2b_3", &KEY[1..], &KEY.to_uppercase(), &format!("{KEY} {OTHER_KEY}")] {
        let post = request(reqwest::Method::POST, "/v1/run").header("x-api-key", key).json(&run);
        let refused = answer(post).await;
        assert_eq!(refused.status, 401, "{key}: {}", refused.text());
        assert!(!refused.text().contains(super::SECRET));
    }
    for key in [KEY, OTHER_KEY] {
        let post = request(reqwest::Method::POST, "/v1/run").header("x-api-key", key).json(&run);
        let ran = answer(post).await;
        assert!(ran.status == 200 && ran.text().contains(super::SECRET), "{}", ran.text());
    }
}

async fn a_status_tells_nothing() {
    let victim = super::victim().await;
    for path in ["/v1/status", "/v1/languages", "/v1/runs", "/metrics", "/healthz", "/readyz", "/health"] {
        let told = answer(request(reqwest::Method::GET, path).header("x-api-key", OTHER_KEY)).await;
        assert!(told.status == 200, "{path}: {}", told.text());
        for secret in [super::SECRET, &victim.id, &victim.token, KEY] {
            assert!(!told.text().contains(secret), "{path}: {}", told.text());
        }
    }
}
