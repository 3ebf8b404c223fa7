//! A request can name its sandbox in four places. If these contradict each other, the request is refused, and in no case
//! does it reach a sandbox with the token of another.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use libtest_mimic::Trial;
use reqwest::{Method, RequestBuilder};

use super::{SECRET, attackers, case, label, unharmed, victim, whose};
use crate::attacker::{address, exchange};
use crate::e2b::{ENVD, Sandbox, answer, request, server};

/// Builds a request for the environment of the named sandbox.
type Build = fn(&Sandbox, &Sandbox) -> RequestBuilder;

fn envs() -> RequestBuilder {
    request(Method::GET, "/envs")
}

fn by_header(call: RequestBuilder, sandbox: &Sandbox) -> RequestBuilder {
    call.header("e2b-sandbox-id", &sandbox.id).header("e2b-sandbox-port", ENVD)
}

fn basic(sandbox: &Sandbox) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{ENVD}-{}.x:", sandbox.id)))
}

/// All requests carry the attacker's token, and name the victim somewhere.
const AT_ODDS: [(&str, Build); 12] = [
    ("the headers of one and the host of another", |victim, own| by_header(envs(), victim).header("host", label(own))),
    ("the host of one and the headers of another", |victim, own| by_header(envs(), own).header("host", label(victim))),
    ("the headers of one and the user of another", |victim, own| {
        by_header(envs(), victim).header("authorization", basic(own))
    }),
    ("the user of one and the headers of another", |victim, own| {
        by_header(envs(), own).header("authorization", basic(victim))
    }),
    ("the host of one and the user of another", |victim, own| {
        envs().header("host", label(victim)).header("authorization", basic(own))
    }),
    ("the user of one and the host of another", |victim, own| {
        envs().header("host", label(own)).header("authorization", basic(victim))
    }),
    ("two ids, the victim's first", |victim, own| by_header(by_header(envs(), victim), own)),
    ("two ids, the victim's last", |victim, own| by_header(by_header(envs(), own), victim)),
    ("two ids in one header", |victim, own| {
        envs().header("e2b-sandbox-id", format!("{}, {}", own.id, victim.id)).header("e2b-sandbox-port", ENVD)
    }),
    ("one id behind another", |victim, own| {
        envs().header("e2b-sandbox-id", format!("{}-{}", own.id, victim.id)).header("e2b-sandbox-port", ENVD)
    }),
    ("a host that is forwarded", |victim, own| {
        by_header(envs(), own)
            .header("x-forwarded-host", label(victim))
            .header("forwarded", format!("host={}", label(victim)))
    }),
    ("an id in the query", |victim, own| {
        let query = format!("/envs?E2b-Sandbox-Id={0}&sandboxId={0}&host={1}", victim.id, label(victim));
        by_header(request(Method::GET, &query), own)
    }),
];

/// A request head without its last lines.
type Head = fn(&Sandbox, &Sandbox) -> String;

/// Heads that an ordinary client does not send. All carry the attacker's token.
const BARE: [(&str, Head); 6] = [
    ("a whole URL and another host", |victim, own| {
        format!("GET http://{}/envs HTTP/1.1\r\nhost: {}\r\n", label(victim), label(own))
    }),
    ("a host and another's whole URL", |victim, own| {
        format!("GET http://{}/envs HTTP/1.1\r\nhost: {}\r\n", label(own), label(victim))
    }),
    ("two hosts", |victim, own| format!("GET /envs HTTP/1.1\r\nhost: {}\r\nhost: {}\r\n", label(own), label(victim))),
    ("two hosts, the victim's first", |victim, own| {
        format!("GET /envs HTTP/1.1\r\nhost: {}\r\nhost: {}\r\n", label(victim), label(own))
    }),
    ("a host that is folded into the line before", |victim, own| {
        format!("GET /envs HTTP/1.1\r\nhost: {}\r\n e2b-sandbox-id: {}\r\n", label(own), victim.id)
    }),
    ("an id that would end its line", |victim, own| {
        let (mine, other) = (&own.id, &victim.id);
        format!(
            "GET /envs HTTP/1.1\r\nhost: h\r\ne2b-sandbox-id: {mine}%0d%0ae2b-sandbox-id: {other}\r\ne2b-sandbox-port: 49983\r\n"
        )
    }),
];

pub(super) fn trials() -> Vec<Trial> {
    let at_odds = AT_ODDS.into_iter().map(|(what, build)| {
        case(&format!("{what}: the token of one opens not the other"), move || opens_its_own_alone(build))
    });
    let bare = BARE.into_iter().map(|(what, build)| {
        case(&format!("{what}, bare: the token of one opens not the other"), move || bare_opens_its_own_alone(build))
    });
    at_odds.chain(bare).collect()
}

async fn opens_its_own_alone(build: Build) {
    let (victim, own) = (victim().await, attackers().await);
    let found = whose(build(victim, own).header("x-access-token", &own.token)).await;
    assert!(found.is_none_or(|id| id == own.id), "it was the victim's");
    // The same with another key in addition, or with the right token in second place.
    let call = build(victim, own).header("x-access-token", &own.token).header("x-api-key", crate::e2b::OTHER_KEY);
    let found = answer(call).await;
    assert!(!found.text().contains(SECRET), "{}", found.text());
    unharmed().await;
    let rightly = by_header(envs(), victim).header("x-access-token", &victim.token);
    assert_eq!(whose(rightly).await.as_ref(), Some(&victim.id));
    let rightly = envs().header("host", label(victim)).header("x-access-token", &victim.token);
    assert_eq!(whose(rightly).await.as_ref(), Some(&victim.id));
    let rightly = envs().header("authorization", basic(victim)).header("x-access-token", &victim.token);
    assert_eq!(whose(rightly).await.as_ref(), Some(&victim.id));
}

async fn bare_opens_its_own_alone(build: Head) {
    let (victim, own) = (victim().await, attackers().await);
    let head = format!("{}x-access-token: {}\r\nconnection: close\r\n\r\n", build(victim, own), own.token);
    let found = String::from_utf8_lossy(&exchange(address(server()), head.as_bytes()).await).into_owned();
    assert!(found.starts_with("HTTP/1.1 ") && !found.contains(SECRET), "{found}");
    let rightly = format!(
        "GET http://{}/envs HTTP/1.1\r\nhost: elsewhere\r\nx-access-token: {}\r\nconnection: close\r\n\r\n",
        label(victim),
        victim.token
    );
    let found = String::from_utf8_lossy(&exchange(address(server()), rightly.as_bytes()).await).into_owned();
    assert!(found.starts_with("HTTP/1.1 200 ") && found.contains(SECRET), "{found}");
}
