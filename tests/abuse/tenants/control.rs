//! The control plane: every route, without a key and with another tenant's key.

use libtest_mimic::Trial;
use reqwest::Method;
use serde_json::{Value, json};

use super::{SECRET, attackers, case, flip, is_refused, listed, unharmed, victim};
use crate::e2b::{KEY, OTHER_KEY, Sandbox, answer, api, request};

/// A route about one sandbox.
#[derive(Debug, Clone)]
struct Route {
    method: Method,
    version: &'static str,
    rest: &'static str,
    body: Value,
    /// Whether the owner's call ends or pauses the sandbox.
    stops: bool,
}

impl Route {
    fn path(&self, id: &str) -> String {
        format!("{}/sandboxes/{id}{}", self.version, self.rest)
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.path("ID"))
    }
}

fn routes() -> Vec<Route> {
    let route = |method: Method, version, rest, body, stops| Route { method, version, rest, body, stops };
    vec![
        route(Method::GET, "", "", json!({}), false),
        route(Method::HEAD, "", "", json!({}), false),
        route(Method::DELETE, "", "", json!({}), true),
        route(Method::POST, "", "/connect", json!({"timeout": 1}), false),
        route(Method::POST, "/v2", "/connect", json!({"timeout": 1}), false),
        route(Method::POST, "", "/timeout", json!({"timeout": 0}), true),
        route(Method::POST, "", "/refreshes", json!({"duration": 3600}), true),
        route(Method::POST, "", "/pause", json!({}), true),
        route(Method::POST, "", "/resume", json!({"timeout": 1}), false),
        route(Method::PUT, "", "/network", json!({}), false),
        route(Method::GET, "", "/metrics", json!({}), false),
        route(Method::GET, "", "/logs", json!({}), false),
        route(Method::GET, "/v2", "/logs", json!({}), false),
    ]
}

/// Routes that need a key and are not about one sandbox.
const OTHERS: [(&str, &str); 17] = [
    ("GET", "/sandboxes"),
    ("GET", "/v2/sandboxes"),
    ("POST", "/sandboxes"),
    ("POST", "/v2/sandboxes"),
    ("GET", "/sandboxes/metrics"),
    ("GET", "/templates"),
    ("GET", "/templates/aliases/base"),
    ("POST", "/v3/templates"),
    ("GET", "/snapshots"),
    ("GET", "/volumes"),
    ("GET", "/secrets"),
    ("GET", "/v1/status"),
    ("GET", "/v1/languages"),
    ("GET", "/metrics"),
    ("POST", "/mcp"),
    ("GET", "/v1/runs"),
    ("POST", "/v1/run"),
];

pub(super) fn trials() -> Vec<Trial> {
    let keyless = routes().into_iter().map(|route| {
        case(&format!("{} opens to no key but a right one", route.name()), move || opens_to_no_other_key(route))
    });
    let others = routes().into_iter().map(|route| {
        case(&format!("{} of one tenant is not there for another", route.name()), move || is_not_there(route))
    });
    let rest = OTHERS.into_iter().map(|(method, path)| {
        case(&format!("{method} {path} opens to no key but a right one"), move || opens_to_nobody(method, path))
    });
    let forms = FORMS.into_iter().map(|(form, spell)| {
        case(&format!("an id {form} names no sandbox of another's"), move || is_nobodys(form, spell))
    });
    let lists = LISTS.into_iter().map(|(what, query)| {
        case(&format!("a list of sandboxes {what} shows none of another's"), move || shows_none(query))
    });
    keyless.chain(others).chain(rest).chain(forms).chain(lists).collect()
}

/// Headers without a key, or with a wrong one.
async fn wrong_keys() -> Vec<(&'static str, String)> {
    let flipped: String = KEY.chars().map(flip).collect();
    let token = victim().await.token.clone();
    let mut wrong = vec![
        ("x-api-key", KEY.replace('1', "3")),
        ("x-api-key", KEY[..KEY.len() - 1].to_owned()),
        ("x-api-key", format!("{KEY}1")),
        ("x-api-key", format!("{KEY},{OTHER_KEY}")),
        ("x-api-key", flipped),
        ("x-api-key", String::new()),
        ("x-api-key", token.clone()),
        ("x-access-token", KEY.to_owned()),
        ("cookie", format!("x-api-key={KEY}")),
        ("authorization", format!("Basic {KEY}")),
        ("authorization", KEY.to_owned()),
        ("authorization", format!("Bearer  {KEY}")),
        ("proxy-authorization", format!("Bearer {KEY}")),
    ];
    wrong.push(("authorization", format!("Bearer {token}")));
    wrong
}

/// A sandbox with which its owner may do anything.
async fn own(route: &Route) -> Option<Sandbox> {
    if route.stops { Some(Sandbox::create(json!({"templateID": "base", "timeout": 900})).await) } else { None }
}

/// The control: the owner's call is accepted.
async fn opens_to_its_owner(route: &Route, id: &str) {
    let found = answer(request(route.method.clone(), &route.path(id)).header("x-api-key", KEY).json(&route.body)).await;
    assert!(![401, 403, 404].contains(&found.status) && found.status < 500, "{}: {}", found.status, found.text());
}

async fn opens_to_no_other_key(route: Route) {
    let id = &victim().await.id;
    let without = |path: &str| request(route.method.clone(), path).json(&route.body);
    is_refused(without(&route.path(id)), "no key").await;
    for (name, value) in wrong_keys().await {
        is_refused(without(&route.path(id)).header(name, &value), &format!("{name}: {value}")).await;
    }
    let query = format!("{}?api_key={KEY}&x-api-key={KEY}", route.path(id));
    is_refused(without(&query), "a key in the query").await;
    unharmed().await;
    let own = own(&route).await;
    opens_to_its_owner(&route, own.as_ref().map_or(id, |own| &own.id)).await;
    if let Some(own) = own {
        own.api(Method::DELETE, "", None).await;
    }
}

async fn is_not_there(route: Route) {
    let own = own(&route).await;
    let id = own.as_ref().map_or(&victim().await.id, |own| &own.id);
    let (mine, key) = (&attackers().await.id, OTHER_KEY);
    for path in [
        route.path(id),
        route.path(&format!("{id}-client")),
        format!("{}?sandboxID={mine}&sandbox_id={mine}", route.path(id)),
    ] {
        let call = request(route.method.clone(), &path).header("x-api-key", key).json(&route.body);
        is_refused(call, &path).await;
        // The sandbox's own token does not replace the key.
        let call = request(route.method.clone(), &path).header("x-api-key", key).json(&route.body);
        is_refused(call.header("x-access-token", &victim().await.token), &path).await;
    }
    // With two keys, the request is one tenant's or is refused.
    let both = request(route.method.clone(), &route.path(id)).header("x-api-key", key);
    is_refused(both.header("authorization", format!("Bearer {KEY}x")).json(&route.body), "two keys").await;
    unharmed().await;
    if let Some(own) = &own {
        assert_eq!(own.api(Method::GET, "", None).await.json()["state"], "running");
    }
    opens_to_its_owner(&route, id).await;
    if let Some(own) = &own {
        own.api(Method::DELETE, "", None).await;
    }
}

async fn opens_to_nobody(method: &'static str, path: &'static str) {
    let id = &victim().await.id;
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let body = json!({"templateID": "none", "language": "none", "code": ""});
    let call = || request(method.clone(), path).json(&body);
    is_refused(call(), "no key").await;
    for (name, value) in wrong_keys().await {
        is_refused(call().header(name, &value), &format!("{name}: {value}")).await;
    }
    assert!(listed().await.contains(id), "it is gone");
    for (name, value) in [("x-api-key", KEY.to_owned()), ("authorization", format!("Bearer {KEY}"))] {
        let found = answer(call().header(name, value)).await;
        let nothing_there = found.status == 404 && found.text().contains("none");
        assert!(![401, 403].contains(&found.status) && (found.status != 404 || nothing_there), "{}", found.text());
    }
}

/// Spells an id so that a careless parser would take it for the victim's.
type Spell = fn(&str) -> String;

const FORMS: [(&str, Spell); 12] = [
    ("in capitals", |id| id.to_uppercase()),
    ("with a letter more", |id| format!("{id}0")),
    ("with a letter less", |id| id[..id.len() - 1].to_owned()),
    ("with a letter before it", |id| format!("i{id}")),
    ("with a dot", |id| format!("{id}.")),
    ("below dots", |id| format!("x%2f..%2f{id}")),
    ("behind an encoded slash", |id| format!("%2f{id}")),
    ("before an encoded slash", |id| format!("{id}%2fconnect")),
    ("with a NUL", |id| format!("{id}%00")),
    ("with a line's end", |id| format!("{id}%0d%0a")),
    ("with a blank", |id| format!("%20{id}%20")),
    ("encoded twice", |id| format!("%2569{}", &id[1..])),
];

async fn is_nobodys(form: &'static str, spell: Spell) {
    let victim = victim().await;
    let spelled = spell(&victim.id);
    for key in [KEY, OTHER_KEY] {
        for (method, rest, body) in [
            (Method::GET, "", json!({})),
            (Method::DELETE, "", json!({})),
            (Method::POST, "/timeout", json!({"timeout": 0})),
            (Method::POST, "/pause", json!({})),
        ] {
            let path = format!("/sandboxes/{spelled}{rest}");
            is_refused(request(method.clone(), &path).header("x-api-key", key).json(&body), form).await;
        }
    }
    // The same in a host name, where capitals do not matter and a token is needed.
    let envs = request(Method::GET, "/envs").header("host", format!("49983-{spelled}.localhost"));
    let found = answer(envs.header("x-access-token", &attackers().await.token)).await;
    assert!(!found.text().contains(SECRET), "{}", found.text());
    unharmed().await;
    assert_eq!(victim.api(Method::GET, "", None).await.status, 200);
}

const LISTS: [(&str, &str); 12] = [
    ("that asks for nothing", ""),
    ("by its metadata", "metadata=secret%3Dsecret-5b1f2ae09c"),
    ("by empty metadata", "metadata="),
    ("by metadata of several layers", "metadata=secret%253Dsecret-5b1f2ae09c%2526"),
    ("that run", "state=running"),
    ("that are paused", "state=paused"),
    ("that run or are paused", "state=running,paused"),
    ("of its template", "template=code-interpreter-v1"),
    ("from the first on", "order=asc&limit=100"),
    ("since always", "startedAfter=1970-01-01T00:00:00Z"),
    ("that says whose", "tenant=0&teamID=0&team=*"),
    ("from a made-up page on", "order=asc&nextToken=MF9faTA"),
];

async fn shows_none(query: &'static str) {
    let victim = victim().await;
    for path in ["/sandboxes", "/v2/sandboxes"] {
        let path = format!("{path}?{query}");
        let shown = answer(request(Method::GET, &path).header("x-api-key", OTHER_KEY)).await;
        assert!(shown.status == 200 && !shown.text().contains(&victim.id), "{path}: {}", shown.text());
        assert!(!shown.text().contains(SECRET) && !shown.text().contains(&victim.token), "{path}: {}", shown.text());
        let own = api(Method::GET, &path, None).await;
        let is_there = own.text().contains(&victim.id);
        // The old list has neither pages nor templates, and some of these queries select other sandboxes.
        let is_expected = !["state=paused", "metadata=secret%253D"].iter().any(|other| query.starts_with(other));
        assert!(is_there || !is_expected || !path.starts_with("/v2"), "its owner does not see it: {path}");
    }
    let many = format!("/sandboxes/metrics?sandbox_ids={},{}", victim.id, attackers().await.id);
    let shown = answer(request(Method::GET, &many).header("x-api-key", OTHER_KEY)).await;
    assert!(shown.status == 200 && !shown.text().contains(&victim.id), "{}", shown.text());
    crate::support::eventually("it has a reading", async || {
        api(Method::GET, &many, None).await.text().contains(&victim.id)
    })
    .await;
}
