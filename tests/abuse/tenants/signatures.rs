//! Links to files: a signature for something else opens nothing.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use libtest_mimic::Trial;
use reqwest::Method;
use sha2::{Digest, Sha256};

use super::{SECRET, attackers, case, ended_token, is_refused, unharmed, victim};
use crate::e2b::{ENVD, KEY, answer, request};

/// Forges a link's query, from the victim's token and the attacker's.
type Forge = fn(&str, &str) -> String;

fn sign(text: &str) -> String {
    let signature = format!("v1_{}", BASE64_STANDARD_NO_PAD.encode(Sha256::digest(text)));
    form_urlencoded::byte_serialize(signature.as_bytes()).collect()
}

/// A time in the future, and one in the past.
const LATER: u64 = 4_102_444_800;
const PAST: u64 = 1_000_000_000;

/// Everyone who was once given a link knows its signature.
const FORGED: [(&str, Forge); 16] = [
    ("for another path", |token, _| format!("path=secret&signature={}", sign(&format!("other:read::{token}")))),
    ("for another user", |token, _| {
        format!("path=secret&username=root&signature={}", sign(&format!("secret:read:user:{token}")))
    }),
    ("for writing", |token, _| format!("path=secret&signature={}", sign(&format!("secret:write::{token}")))),
    ("for another time", |token, _| {
        format!("path=secret&signature={}&signature_expiration={LATER}", sign(&format!("secret:read::{token}:{PAST}")))
    }),
    ("for a time that has passed", |token, _| {
        format!("path=secret&signature={}&signature_expiration={PAST}", sign(&format!("secret:read::{token}:{PAST}")))
    }),
    ("for a time that is taken away", |token, _| {
        format!("path=secret&signature={}", sign(&format!("secret:read::{token}:{LATER}")))
    }),
    ("for a time that was added", |token, _| {
        format!("path=secret&signature={}&signature_expiration={LATER}", sign(&format!("secret:read::{token}")))
    }),
    ("with the attacker's token", |_, own| format!("path=secret&signature={}", sign(&format!("secret:read::{own}")))),
    ("with no token", |_, _| format!("path=secret&signature={}", sign("secret:read::"))),
    ("with a key", |_, _| format!("path=secret&signature={}", sign(&format!("secret:read::{KEY}")))),
    ("of another version", |token, _| {
        format!("path=secret&signature={}", sign(&format!("secret:read::{token}")).replacen("v1_", "v2_", 1))
    }),
    ("cut short", |token, _| format!("path=secret&signature={}", &sign(&format!("secret:read::{token}"))[..20])),
    ("of nothing", |_, _| "path=secret&signature=".to_owned()),
    ("for a path of which it is given twice", |token, _| {
        format!("path=other&path=secret&signature={}", sign(&format!("other:read::{token}")))
    }),
    ("for the parts of a path put together otherwise", |token, _| {
        format!("path=secret:read&signature={}", sign(&format!("secret:read:x:{token}")))
    }),
    ("with its name in capitals", |token, _| {
        format!("path=secret&Signature={}", sign(&format!("secret:read::{token}")))
    }),
];

pub(super) fn trials() -> Vec<Trial> {
    let forged = FORGED.into_iter().map(|(what, forge)| {
        case(&format!("a link whose signature is {what} opens nothing"), move || opens_nothing(forge))
    });
    forged.chain([case("a link of a sandbox that has ended opens nothing", ended_opens_nothing)]).collect()
}

async fn opens_nothing(forge: Forge) {
    let (victim, own) = (victim().await, attackers().await);
    let query = forge(&victim.token, &own.token);
    let path = format!("/files?{query}");
    is_refused(victim.at(ENVD, Method::GET, &path), &query).await;
    is_refused(victim.at(ENVD, Method::GET, &path).header("x-access-token", &own.token), &query).await;
    let write = victim.at(ENVD, Method::POST, &path).header("content-type", "application/octet-stream");
    // The right signature for writing allows to write, so that is not tried here.
    if !query.contains(&sign(&format!("secret:write::{}", victim.token))) {
        is_refused(write.body("overwritten"), &query).await;
    }
    // If the request names no sandbox, the signature does: that is the attacker's own at most.
    let found = answer(request(Method::GET, &path)).await;
    let is_own = query.contains(&sign(&format!("secret:read::{}", own.token)));
    assert!([401, 403, 404].contains(&found.status) || is_own, "{}", found.text());
    assert!(!found.text().contains(SECRET));
    unharmed().await;
    let rightly = format!("path=secret&signature={}", sign(&format!("secret:read::{}", victim.token)));
    for opened in [
        answer(victim.at(ENVD, Method::GET, &format!("/files?{rightly}"))).await,
        answer(request(Method::GET, &format!("/files?{rightly}"))).await,
    ] {
        assert_eq!((opened.status, opened.text().as_str()), (200, SECRET));
    }
}

async fn ended_opens_nothing() {
    let query = format!("/files?path=secret&signature={}", sign(&format!("secret:read::{}", ended_token().await)));
    is_refused(request(Method::GET, &query), "nobody named").await;
    is_refused(victim().await.at(ENVD, Method::GET, &query), "the victim named").await;
    let rightly = format!("/files?path=secret&signature={}", sign(&format!("secret:read::{}", victim().await.token)));
    assert_eq!(answer(request(Method::GET, &rightly)).await.text(), SECRET);
}
