//! Every member of the requests that E2B's SDKs send is done, or refused by its name, or without effect by E2B's own
//! words. `docs/e2b.md` has a table of them.
//!
//! Source: e2b 2.63.0 for Python, `e2b/api/client/models`.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::e2b::{Answer, ENVD, KEY, Sandbox, answer, api, request};
use crate::repository::root;

trials![
    every_member_of_a_creation_is_done_or_refused_by_its_name,
    every_member_of_a_request_about_a_sandbox_is_done_or_refused_by_its_name,
    options_that_no_sdk_knows_are_refused_where_they_may_be_restrictions,
    the_page_lists_every_member,
];

/// What must become of a member.
enum Expected {
    /// The details of the sandbox have this value at this place.
    Shown(&'static str, Value),
    /// The request succeeds. If the member has an effect, the test looks for it.
    Taken,
    /// An error with this status names the member.
    Refused(u16),
    /// A test with containers shows the effect: its file and its name.
    ShownBy(&'static str, &'static str),
}

use Expected::{Refused, Shown, ShownBy, Taken};

/// A member, with a value, of the request that this is called on the page.
type Case = (&'static str, &'static str, Value, Expected);

/// `POST /sandboxes` and `POST /v2/sandboxes`.
fn of_creations() -> Vec<Case> {
    let case = |member, value, expected| ("creation", member, value, expected);
    vec![
        case("templateID", json!("base"), Shown("/templateID", json!("base"))),
        case("templateID", json!("team/base:default"), Shown("/templateID", json!("base"))),
        case("templateID", json!("team/base:v2"), Refused(404)),
        case("timeout", json!(900), Taken),
        case("timeout", json!(86_401), Refused(400)),
        case("metadata", json!({"a": "1"}), Shown("/metadata/a", json!("1"))),
        case("envVars", json!({"MEMBER": "1"}), Taken),
        case("secure", json!(true), ShownBy("e2b_control", "old_clients_create_sandboxes_that_need_no_token")),
        case("secure", json!(false), Taken),
        case("allow_internet_access", json!(false), Shown("/allowInternetAccess", json!(false))),
        case("autoPause", json!(false), Shown("/lifecycle/onTimeout", json!("kill"))),
        // This engine cannot pause.
        case("autoPause", json!(true), Refused(501)),
        case("autoPause", json!(true), ShownBy("e2b_control", "a_sandbox_of_a_moment_is_gone_after_it")),
        case("autoPauseMemory", json!(true), Taken),
        case("autoPauseMemory", json!(false), Refused(501)),
        case("autoResume", json!({"enabled": true}), Shown("/lifecycle/autoResume", json!(true))),
        case(
            "autoResume",
            json!({"enabled": true}),
            ShownBy("e2b_ports", "a_paused_sandbox_answers_only_if_it_may_resume"),
        ),
        case("mcp", json!({"duckduckgo": {}}), Refused(501)),
        case("mcp", json!({}), Refused(501)),
        case("mcp", json!(null), Taken),
        case("iam", json!({"tokens": {"aws": {"audience": "a", "tokenType": "JWT-SVID"}}}), Refused(501)),
        case("iam", json!({"tokens": {}}), Taken),
        case("iam", json!({}), Taken),
        case("volumeMounts", json!([{"name": "v", "path": "/v"}]), Refused(501)),
        case("volumeMounts", json!([]), Taken),
        case("network.allowPublicTraffic", json!(false), Shown("/network/allowPublicTraffic", json!(false))),
        case(
            "network.allowPublicTraffic",
            json!(false),
            ShownBy("e2b_ports", "a_private_port_needs_the_traffic_token"),
        ),
        case(
            "network.maskRequestHost",
            json!("a.test:${PORT}"),
            Shown("/network/maskRequestHost", json!("a.test:${PORT}")),
        ),
        case("network.maskRequestHost", json!("a test"), Refused(400)),
        case("network.maskRequestHost", json!("a.test"), ShownBy("e2b_ports", "a_masked_host_is_what_the_server_sees")),
        case("network.allowOut", json!(["1.1.1.1"]), Shown("/network/allowOut", json!(["1.1.1.1"]))),
        case("network.allowOut", json!(["*.a.test"]), Refused(400)),
        case("network.allowOut", json!(["1.1.1.1"]), ShownBy("network", "a_client_chooses_among_public_addresses")),
        case("network.denyOut", json!(["8.8.8.0/24"]), Shown("/network/denyOut", json!(["8.8.8.0/24"]))),
        case("network.denyOut", json!(["a.test"]), Refused(400)),
        case("network.rules", json!({"a.test": [{"transform": {"headers": {"A": "1"}}}]}), Refused(400)),
        case("network.rules", json!({}), Taken),
        case("network.egressProxy", json!({"address": "proxy.test:1080"}), Refused(400)),
        case("network.egressProxy", json!({}), Refused(400)),
        case("network.egressProxy", json!(null), Taken),
        case("network.dnsServers", json!(["8.8.8.8"]), Refused(400)),
        case("network.dnsServers", json!([]), Taken),
        case("network.httpsPorts", json!([8443]), Refused(400)),
        case("network.httpsPorts", json!([]), Taken),
    ]
}

/// Requests about a sandbox that runs.
fn of_sandboxes() -> Vec<Case> {
    let goes_on = || ShownBy("e2b_control", "a_paused_sandbox_is_listed_and_goes_on_when_connected_to");
    let without_memory =
        || ShownBy("e2b_control", "a_pause_or_resumption_without_the_memory_is_refused_and_changes_nothing");
    let longer = || ShownBy("e2b_control", "a_life_is_made_longer_by_connecting_and_refreshing_and_never_shorter");
    vec![
        ("connect", "timeout", json!(600), longer()),
        ("connect", "timeout", json!(86_401), Refused(400)),
        ("connect", "memory", json!(true), Taken),
        // It concerns paused sandboxes only.
        ("connect", "memory", json!(false), Taken),
        ("connect", "memory", json!(false), without_memory()),
        ("resume", "timeout", json!(90), goes_on()),
        ("resume", "timeout", json!(86_401), Refused(400)),
        ("resume", "autoPause", json!(false), goes_on()),
        ("resume", "autoPause", json!(true), Refused(400)),
        ("resume", "memory", json!(false), Refused(501)),
        ("resume", "memory", json!(false), without_memory()),
        ("pause", "memory", json!(true), goes_on()),
        ("pause", "memory", json!(false), Refused(501)),
        (
            "pause",
            "requireHealthyGuest",
            json!(true),
            ShownBy("e2b_control", "a_pause_can_require_that_the_agent_answers"),
        ),
        ("timeout", "timeout", json!(60), Taken),
        (
            "timeout",
            "timeout",
            json!(60),
            ShownBy("e2b_control", "a_timeout_ends_a_sandbox_sooner_or_later_and_zero_at_once"),
        ),
        ("timeout", "timeout", json!(86_401), Refused(400)),
        ("refreshes", "duration", json!(60), longer()),
        ("refreshes", "duration", json!(3601), Refused(400)),
        ("network", "allow_internet_access", json!(true), Taken),
        ("network", "allow_internet_access", json!(false), Refused(400)),
        ("network", "allowOut", json!([]), Taken),
        ("network", "allowOut", json!(["1.1.1.1"]), Refused(400)),
        ("network", "denyOut", json!([]), Taken),
        ("network", "denyOut", json!(["1.1.1.1"]), Refused(400)),
        ("network", "rules", json!({}), Taken),
        ("network", "rules", json!({"a.test": []}), Refused(400)),
        ("network", "egressProxy", json!(null), Taken),
        ("network", "egressProxy", json!({"address": "proxy.test:1080"}), Refused(400)),
        ("network", "dnsServers", json!([]), Taken),
        ("network", "dnsServers", json!(["8.8.8.8"]), Refused(400)),
        ("snapshots", "name", json!("a"), Refused(501)),
        ("snapshots", "memory", json!(false), Refused(501)),
        ("fork", "timeout", json!(60), Refused(501)),
        ("fork", "count", json!(2), Refused(501)),
    ]
}

/// Puts a value at `a.b` of a JSON object.
fn put(body: &mut Value, member: &str, value: Value) {
    match member.split_once('.') {
        Some((outer, inner)) => put(&mut body[outer], inner, value),
        None => body[member] = value,
    }
}

/// Checks that an error names the member, or what is wrong with a timeout or a template.
#[track_caller]
fn names(refused: &Answer, status: u16, member: &str) {
    let message = refused.error(status).to_lowercase();
    let name = member.rsplit('.').next().unwrap_or(member).trim_end_matches("ID").to_lowercase();
    assert!(message.contains(&name), "`{message}` does not name {member}");
}

async fn every_member_of_a_creation_is_done_or_refused_by_its_name() {
    for (path, marker) in [("/sandboxes", "v1"), ("/v2/sandboxes", "v2")] {
        for (_, member, value, expected) in of_creations() {
            let mut body = json!({"templateID": "base", "secure": true, "metadata": {"members": marker}});
            put(&mut body, member, value.clone());
            if member == "metadata" {
                body["metadata"]["members"] = json!(marker);
            }
            if let ShownBy(..) = expected {
                continue;
            }
            let created = api(Method::POST, path, Some(body.clone())).await;
            if let Refused(status) = expected {
                names(&created, status, member);
                continue;
            }
            assert_eq!(created.status, 201, "{path} {body}: {}", created.text());
            let sandbox = Sandbox::from(created.json());
            let detail = sandbox.api(Method::GET, "", None).await.json();
            if let Shown(place, shown) = &expected {
                assert_eq!(detail.pointer(place), Some(shown), "{path} {body}: {detail}");
            }
            match member {
                "timeout" => {
                    let time =
                        |name: &str| humantime::parse_rfc3339(detail[name].as_str().expect("text")).expect("a time");
                    let life = time("endAt").duration_since(time("startedAt")).expect("it ends later");
                    assert!(life.as_secs().abs_diff(900) < 30, "{detail}");
                }
                "envVars" => assert_eq!(sandbox.shell("echo $MEMBER").await, "1\n"),
                "secure" => {
                    // The second version ignores it: every sandbox requires its token.
                    let status = if value == json!(false) && path == "/sandboxes" { 200 } else { 401 };
                    let stat =
                        sandbox.at(ENVD, Method::POST, "/filesystem.Filesystem/Stat").json(&json!({"path": "/"}));
                    assert_eq!(answer(stat).await.status, status, "{path} {body}");
                }
                _ => {}
            }
            sandbox.kill().await;
        }
        // What is refused leaves no sandbox.
        let left = api(Method::GET, &format!("/v2/sandboxes?metadata=members%3D{marker}"), None).await;
        assert_eq!(left.json(), json!([]));
    }
}

async fn every_member_of_a_request_about_a_sandbox_is_done_or_refused_by_its_name() {
    let sandbox = Sandbox::create(json!({"templateID": "base", "timeout": 900})).await;
    for (name, member, value, expected) in of_sandboxes() {
        if let ShownBy(..) = expected {
            continue;
        }
        let method = if name == "network" { Method::PUT } else { Method::POST };
        let body = json!({member: value});
        let sent = sandbox.api(method, &format!("/{name}"), Some(body.clone())).await;
        match expected {
            // The whole path is not offered.
            Refused(501) if ["snapshots", "fork"].contains(&name) => {
                assert!(sent.error(501).contains(name));
            }
            Refused(status) => names(&sent, status, member),
            _ => assert!(sent.status < 300, "{name} {body}: {} {}", sent.status, sent.text()),
        }
    }
    assert_eq!(sandbox.shell("echo alive").await, "alive\n");
    sandbox.kill().await;
}

async fn options_that_no_sdk_knows_are_refused_where_they_may_be_restrictions() {
    for (member, value) in [
        ("network.allow_out", json!(["1.1.1.1"])),
        ("network.denyIn", json!(["1.1.1.1"])),
        ("autoResume.policy", json!("never")),
        ("iam.roles", json!(["reader"])),
    ] {
        let mut body = json!({"templateID": "base"});
        if member.starts_with("autoResume") {
            body["autoResume"] = json!({"enabled": true});
        }
        put(&mut body, member, value);
        names(&api(Method::POST, "/v2/sandboxes", Some(body)).await, 400, member);
    }
    // Elsewhere, as by E2B, they are ignored.
    let created = request(Method::POST, "/v2/sandboxes").header("x-api-key", KEY);
    let created = answer(created.json(&json!({"templateID": "base", "someday": {"new": [1]}}))).await;
    assert_eq!(created.status, 201, "{}", created.text());
    Sandbox::from(created.json()).kill().await;
}

async fn the_page_lists_every_member() {
    let page = std::fs::read_to_string(root().join("docs/e2b.md")).expect("the page");
    let (_, table) = page.split_once("| request | members | here |\n").expect("the table");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let mut listed = BTreeSet::new();
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert!(cells.len() == 3 && !cells[2].is_empty(), "{row}");
        for member in cells[1].split('`').skip(1).step_by(2) {
            assert!(listed.insert((cells[0].to_owned(), member.to_owned())), "{member} of {} is there twice", cells[0]);
        }
    }
    let cases: Vec<_> = of_creations().into_iter().chain(of_sandboxes()).collect();
    let tested: BTreeSet<_> = cases.iter().map(|case| (case.0.to_owned(), case.1.to_owned())).collect();
    assert_eq!(listed, tested);
    for case in &cases {
        let ShownBy(file, test) = case.3 else { continue };
        let mut paths = ["it", "http"].map(|ring| root().join(format!("tests/{ring}/{file}.rs"))).into_iter();
        let path = paths.find(|path| path.exists()).unwrap_or_else(|| panic!("there is no {file}.rs"));
        let source = std::fs::read_to_string(&path).expect("a file");
        assert!(source.contains(&format!("async fn {test}(")), "{} has no {test}", path.display());
    }
}
