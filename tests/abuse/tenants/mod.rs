//! One tenant attacks another tenant's sandboxes with wrong keys, tokens, signatures, ids and addresses.

mod addresses;
mod control;
mod inside;
mod keys;
mod native;
mod passing;
mod signatures;

use libtest_mimic::Trial;
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::e2b::{ENVD, OTHER_KEY, Sandbox, answer, api, request};

const CLASS: &str = "tenants";

/// A secret of the attacked sandbox, which only its owner knows.
pub(super) const SECRET: &str = "secret-5b1f2ae09c";

pub(crate) fn trials() -> Vec<Trial> {
    [
        control::trials(),
        native::trials(),
        inside::trials(),
        keys::trials(),
        addresses::trials(),
        signatures::trials(),
        passing::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn case<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial {
    crate::case(CLASS, name, test)
}

/// The attacked sandbox. Its environment, its metadata and a file contain the secret.
async fn victim() -> &'static Sandbox {
    static VICTIM: OnceCell<Sandbox> = OnceCell::const_new();
    VICTIM
        .get_or_init(|| async {
            let sandbox = Sandbox::create(json!({
                "templateID": "code-interpreter-v1", "timeout": 7200,
                "metadata": {"secret": SECRET}, "envVars": {"SECRET": SECRET},
            }))
            .await;
            sandbox.shell("printf %s \"$SECRET\" > ~/secret").await;
            sandbox
        })
        .await
}

/// The attacker's own sandbox.
async fn attackers() -> &'static Sandbox {
    static ATTACKERS: OnceCell<Sandbox> = OnceCell::const_new();
    ATTACKERS
        .get_or_init(|| async {
            let create = request(Method::POST, "/v2/sandboxes").header("x-api-key", OTHER_KEY);
            let created = answer(create.json(&json!({"templateID": "base", "timeout": 7200}))).await;
            assert_eq!(created.status, 201, "{}", created.text());
            Sandbox::from(created.json())
        })
        .await
}

/// A token that was valid once.
async fn ended_token() -> &'static str {
    static ENDED: OnceCell<String> = OnceCell::const_new();
    ENDED
        .get_or_init(|| async {
            let sandbox = Sandbox::create(json!({"templateID": "base"})).await;
            sandbox.kill().await;
            sandbox.token
        })
        .await
}

/// Tokens that do not open the victim.
async fn wrong_tokens() -> Vec<String> {
    let Sandbox { id, token, .. } = victim().await;
    let changed = if token.ends_with('x') { "y" } else { "x" };
    let flipped: String = token.chars().map(flip).collect();
    vec![
        String::new(),
        attackers().await.token.clone(),
        ended_token().await.to_owned(),
        format!("{}{changed}", &token[..token.len() - 1]),
        token[..token.len() - 1].to_owned(),
        format!("{token}{token}"),
        flipped,
        format!("{token},{token}"),
        id.clone(),
        OTHER_KEY.to_owned(),
        crate::e2b::KEY.to_owned(),
        "null".to_owned(),
    ]
}

fn flip(letter: char) -> char {
    if letter.is_ascii_lowercase() { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
}

/// Checks that a request was refused, and that the answer reveals nothing about the victim.
#[track_caller]
fn refused(found: &crate::e2b::Answer, token: &str, what: &str) {
    assert!([401, 403, 404].contains(&found.status), "{what}: {} {}", found.status, found.text());
    let text = found.text();
    assert!(!text.contains(SECRET) && !text.contains(token), "{what}: {text}");
}

/// Sends a request and checks the same.
async fn is_refused(request: RequestBuilder, what: &str) {
    let token = &victim().await.token;
    refused(&answer(request).await, token, what);
}

/// Checks that the victim runs, belongs to its owner, and is unchanged.
async fn unharmed() {
    let victim = victim().await;
    let detail = victim.api(Method::GET, "", None).await.json();
    assert_eq!((&detail["state"], &detail["metadata"]["secret"]), (&json!("running"), &json!(SECRET)), "{detail}");
    let lasts = humantime::parse_rfc3339(detail["endAt"].as_str().expect("a time")).expect("a time");
    let lasts = lasts.duration_since(std::time::SystemTime::now()).expect("it lasts");
    assert!((60..=7200).contains(&lasts.as_secs()), "its end was moved: {detail}");
    let kept = answer(victim.envd(Method::GET, "/files?path=secret")).await;
    assert_eq!((kept.status, kept.text().as_str()), (200, SECRET));
}

/// The id of the sandbox that answered a request to `/envs`.
async fn whose(request: RequestBuilder) -> Option<String> {
    let found = answer(request).await;
    (found.status == 200).then(|| found.json()["E2B_SANDBOX_ID"].as_str().expect("an id").to_owned())
}

/// The first label of the host name of the daemon's port of a sandbox.
fn label(sandbox: &Sandbox) -> String {
    format!("{ENVD}-{}.localhost", sandbox.id)
}

/// The ids in the whole list of the victim's owner, to check that none was added or removed.
async fn listed() -> Vec<String> {
    let list = api(Method::GET, "/v2/sandboxes", None).await.json();
    let ids = list.as_array().expect("a list").iter();
    ids.map(|entry| entry["sandboxID"].as_str().expect("an id").to_owned()).collect()
}
