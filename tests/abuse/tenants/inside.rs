//! The routes on a sandbox's own ports: every route of its daemon and of its interpreters, with tokens of other
//! sandboxes.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use libtest_mimic::Trial;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{SECRET, attackers, case, is_refused, label, unharmed, victim, wrong_tokens};
use crate::e2b::{ENVD, INTERPRETER, KEY, OTHER_KEY, Sandbox, answer, envelope, request};

/// Routes of the daemon that need the token, with harmful bodies.
fn daemon() -> Vec<(&'static str, &'static str, Value)> {
    let harm = json!({"cmd": "/bin/rm", "args": ["-rf", "/home/user"]});
    let select = json!({"pid": 1});
    vec![
        ("POST", "/process.Process/List", json!({})),
        ("POST", "/process.Process/Start", json!({"process": harm})),
        ("POST", "/process.Process/Connect", json!({"process": select})),
        ("POST", "/process.Process/StreamInput", json!({"start": {"process": select}})),
        ("POST", "/process.Process/Update", json!({"process": select})),
        ("POST", "/process.Process/SendInput", json!({"process": select, "input": {"stdin": "YQ=="}})),
        ("POST", "/process.Process/SendSignal", json!({"process": select, "signal": 9})),
        ("POST", "/process.Process/CloseStdin", json!({"process": select})),
        ("POST", "/filesystem.Filesystem/Stat", json!({"path": "secret"})),
        ("POST", "/filesystem.Filesystem/MakeDir", json!({"path": "/home/user/made"})),
        ("POST", "/filesystem.Filesystem/Move", json!({"source": "secret", "destination": "moved"})),
        ("POST", "/filesystem.Filesystem/ListDir", json!({"path": "/home/user"})),
        ("POST", "/filesystem.Filesystem/Remove", json!({"path": "secret"})),
        ("POST", "/filesystem.Filesystem/WatchDir", json!({"path": "/home/user"})),
        ("POST", "/filesystem.Filesystem/CreateWatcher", json!({"path": "/home/user"})),
        ("POST", "/filesystem.Filesystem/GetWatcherEvents", json!({"watcherId": "1"})),
        ("POST", "/filesystem.Filesystem/RemoveWatcher", json!({"watcherId": "1"})),
        ("GET", "/files?path=secret", json!({})),
        ("HEAD", "/files?path=secret", json!({})),
        ("POST", "/files?path=secret", json!({})),
        ("GET", "/metrics", json!({})),
        ("GET", "/envs", json!({})),
    ]
}

const INTERPRETERS: [(&str, &str); 5] = [
    ("POST", "/execute"),
    ("GET", "/contexts"),
    ("POST", "/contexts"),
    ("DELETE", "/contexts/none"),
    ("POST", "/contexts/none/restart"),
];

pub(super) fn trials() -> Vec<Trial> {
    let daemon = daemon().into_iter().map(|(method, path, body)| {
        case(&format!("{method} {path} of a sandbox opens to its token alone"), move || {
            opens_to_its_token(ENVD, method, path, body)
        })
    });
    let interpreters = INTERPRETERS.into_iter().map(|(method, path)| {
        let body = json!({"code": format!("open('/home/user/secret').read()"), "language": "python"});
        case(&format!("{method} {path} of interpreters opens to no wrong token"), move || {
            opens_to_its_token(INTERPRETER, method, path, body)
        })
    });
    daemon
        .chain(interpreters)
        .chain([
            case("the health of a sandbox tells nothing but that it lives", health_tells_nothing),
            case("a token opens every route of its own sandbox and lists no other", a_token_opens_its_own),
            case("a token that has ended opens nothing, wherever it is shown", an_ended_token_opens_nothing),
        ])
        .collect()
}

/// Sends a call as its own clients do, so that it can only be refused because of its token.
fn as_sent(call: RequestBuilder, path: &str, body: &Value) -> RequestBuilder {
    let streams = ["Start", "Connect", "StreamInput", "WatchDir"];
    if path.starts_with("/files") {
        call.header("content-type", "application/octet-stream").body("overwritten")
    } else if streams.iter().any(|stream| path.ends_with(stream)) && path.contains('.') {
        call.header("content-type", "application/connect+json").body(envelope(0, body.to_string().as_bytes()))
    } else {
        call.json(body)
    }
}

async fn opens_to_its_token(port: u16, method: &'static str, path: &'static str, body: Value) {
    let victim = victim().await;
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let call = || as_sent(victim.at(port, method.clone(), path), path, &body);
    let named = || {
        let host = label(victim).replace("49983", &port.to_string());
        as_sent(request(method.clone(), path).header("host", host), path, &body)
    };
    let tokens = wrong_tokens().await;
    for token in &tokens {
        is_refused(call().header("x-access-token", token), &format!("{method} {path} with {token:?}")).await;
        is_refused(named().header("x-access-token", token), &format!("{method} {path} by name with {token:?}")).await;
    }
    // Only the first token counts; a right one behind it has no effect.
    let two = call().header("x-access-token", &tokens[1]).header("x-access-token", &victim.token);
    is_refused(two, "two tokens").await;
    // E2B's interpreters accept every caller that knows the id, which nobody can guess; the daemon does not.
    if port == ENVD {
        is_refused(call(), "no token").await;
        for (name, value) in [
            ("x-api-key", KEY.to_owned()),
            ("authorization", format!("Bearer {}", victim.token)),
            ("authorization", format!("Basic {}", BASE64_STANDARD.encode(format!("root:{}", victim.token)))),
            ("cookie", format!("x-access-token={}", victim.token)),
            ("e2b-traffic-access-token", victim.token.clone()),
        ] {
            is_refused(call().header(name, &value), &format!("{method} {path} with {name}")).await;
        }
    }
    unharmed().await;
    // The control: the owner's call, on a sandbox that may be lost.
    let own = attackers().await;
    let owners = as_sent(own.at(ENVD, method.clone(), path), path, &json!({"path": "/tmp"}));
    if port == ENVD {
        let response = owners.header("x-access-token", &own.token).send().await.expect("an answer");
        assert!(![401, 403].contains(&response.status().as_u16()), "its own token is refused");
        let text = if path.contains("WatchDir") { String::new() } else { response.text().await.unwrap_or_default() };
        assert!(!text.contains("unauthenticated"), "{text}");
    } else {
        let own = victim.at(port, Method::GET, "/contexts").header("x-access-token", &victim.token);
        assert_eq!(answer(own).await.status, 200);
    }
}

async fn health_tells_nothing() {
    let victim = victim().await;
    for token in wrong_tokens().await {
        let health = answer(victim.at(ENVD, Method::GET, "/health").header("x-access-token", &token)).await;
        assert!(health.status == 204 && health.body.is_empty(), "{}", health.text());
    }
    let nobody = request(Method::GET, "/health").header("e2b-sandbox-id", "inobody").header("e2b-sandbox-port", ENVD);
    assert_eq!(answer(nobody).await.status, 502);
}

async fn a_token_opens_its_own() {
    let (victim, own): (_, &Sandbox) = (victim().await, attackers().await);
    let found = answer(own.envd(Method::GET, "/envs").header("x-api-key", OTHER_KEY)).await;
    assert_eq!(found.json()["E2B_SANDBOX_ID"], json!(own.id));
    for (path, body) in [
        ("process.Process/List", json!({})),
        ("filesystem.Filesystem/ListDir", json!({"path": "/home/user", "depth": 9})),
        ("filesystem.Filesystem/Stat", json!({"path": "/home/user/../../proc/1"})),
    ] {
        let told = own.call(path, body).await;
        assert!(!told.text().contains(SECRET) && !told.text().contains(&victim.id), "{path}: {}", told.text());
    }
    let there = own.shell(&format!("env; cat ~/secret 2>&1; grep -rs {SECRET} /proc/*/environ /home /tmp; true")).await;
    assert!(!there.contains(&format!("={SECRET}")) && there.contains(&own.id), "{there}");
    assert_eq!(victim.shell("cat ~/secret").await, SECRET);
}

async fn an_ended_token_opens_nothing() {
    let ended = Sandbox::create(json!({"templateID": "base"})).await;
    assert_eq!(ended.shell("echo alive").await, "alive\n");
    ended.kill().await;
    for (path, status) in [("/envs", 502), ("/process.Process/List", 502), ("/files?path=x", 502), ("/health", 502)] {
        let gone = answer(ended.envd(Method::GET, path)).await;
        assert_eq!(gone.status, status, "{path}: {}", gone.text());
        // Without an address, the token alone names the sandbox.
        let gone = answer(request(Method::GET, path).header("x-access-token", &ended.token)).await;
        assert!(gone.status == 502 || gone.status == 401 || path == "/health" || path == "/envs", "{}", gone.text());
        assert!(!gone.text().contains(SECRET));
    }
    unharmed().await;
}
