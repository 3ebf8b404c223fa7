//! The keys themselves: no client without the scope `admin` sees one, makes one, renames one or revokes one.

use libtest_mimic::Trial;
use reqwest::Method;
use serde_json::json;

use super::case;
use crate::key_file::{KeyFile, send};

/// The name of the key that an attacker wants to see or revoke.
const NAME: &str = "keeper-5b1f2ae09c";

/// Spellings of the path that a careless check would let pass, or add rights to.
const PATHS: [&str; 10] = [
    "/api-keys",
    "/api-keys/",
    "//api-keys",
    "/API-KEYS",
    "/api%2Dkeys",
    "/api-keys%2F",
    "/api-keys;scope=admin",
    "/api-keys?scope=admin&admin=true",
    "/v1/api-keys",
    "/v2/api-keys",
];

/// Every scope but `admin`.
const OTHERS: [&str; 4] = ["run", "sandboxes", "build", "metrics"];

pub(super) fn trials() -> Vec<Trial> {
    vec![case("the keys open to no key without the scope for them, however the path is spelled", opens_to_admins_alone)]
}

async fn opens_to_admins_alone() {
    let scopes = OTHERS.map(|scope| ["--scope", scope]).concat();
    let all_others: Vec<_> = std::iter::once("others").chain(scopes).collect();
    let (file, [admin, others, revoked]) =
        KeyFile::with([&[NAME, "--scope", "admin"], &all_others, &["revoked", "--scope", "admin"]]);
    file.keys(&["revoke", "revoked"]).expect("it is revoked");
    let plain = "plain-key-1";
    let server = file.serve(&[("ONCEBOX_API_KEYS", plain)]);
    let listed = send(&server, &admin, Method::GET, "/api-keys", None).await.json();
    let target = listed.as_array().expect("a list").iter().find(|key| key["name"] == NAME).expect("the key");
    let id = target["id"].as_str().expect("an id").to_owned();
    let secrets = [NAME, &id, target["mask"]["maskedValueSuffix"].as_str().expect("a mask")];
    let before = file.text();
    let last = if admin.ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{last}", &admin[..admin.len() - 1]);
    for key in [&others, plain, &revoked, &wrong, &admin[4..], &admin.to_uppercase(), &id, "admin", "", before.trim()] {
        // A header cannot hold the file's lines; one of its hashes is as good a try.
        let key = key.split('"').find(|part| part.starts_with("$sha256$")).unwrap_or(key);
        let of_one = [format!("/api-keys/{id}"), format!("/api-keys/{NAME}"), "/api-keys/..%2fapi-keys".to_owned()];
        for path in PATHS.into_iter().chain(of_one.iter().map(String::as_str)) {
            for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                let body = json!({"name": "mine", "scopes": ["admin"]});
                let found = send(&server, key, method.clone(), path, Some(body)).await;
                let shown = format!("{method} {path} with {key}: {} {}", found.status, found.text());
                assert!([401, 403, 404, 405].contains(&found.status), "{shown}");
                let told = found.text().replace(path, "");
                assert!(secrets.iter().all(|secret| !told.contains(secret)), "{shown}");
            }
        }
    }
    assert_eq!(file.text(), before, "a key was changed");
    // The control: what was tried is possible, for the right key.
    let made = send(&server, &admin, Method::POST, "/api-keys", Some(json!({"name": "mine"}))).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_ne!(file.text(), before);
}
