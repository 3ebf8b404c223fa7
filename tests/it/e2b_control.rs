//! E2B's control plane: every member of its bodies, and the transitions between a sandbox's states.

use std::time::{Duration, SystemTime};

use reqwest::Method;
use serde_json::{Value, json};

use crate::e2b::{Answer, KEY, Sandbox, answer, api, is_as_recorded, request};
use crate::support::docker;

trials![
    a_sandbox_is_described_alike_when_it_is_created_connected_to_and_listed,
    old_clients_create_sandboxes_that_need_no_token,
    members_that_creation_may_omit_have_defaults,
    a_list_comes_in_pages_whose_last_has_no_token,
    a_list_can_be_filtered_by_every_property_of_sandboxes,
    a_metadata_filter_is_decoded_three_times,
    a_paused_sandbox_is_listed_and_goes_on_when_connected_to,
    a_pause_or_resumption_without_the_memory_is_refused_and_changes_nothing,
    a_pause_can_require_that_the_agent_answers,
    a_life_is_made_longer_by_connecting_and_refreshing_and_never_shorter,
    a_timeout_ends_a_sandbox_sooner_or_later_and_zero_at_once,
    a_sandbox_of_a_moment_is_gone_after_it,
    readings_and_logs_have_all_their_members,
    templates_are_known_by_their_names,
    what_is_not_offered_is_a_501_that_names_it,
    each_api_reports_its_health,
    more_sandboxes_than_may_be_kept_are_a_429,
];

fn time(value: &Value) -> SystemTime {
    humantime::parse_rfc3339(value.as_str().expect("a time")).expect("a time with an offset")
}

/// The seconds until a sandbox's end.
async fn left(sandbox: &Sandbox) -> i64 {
    let end = time(&sandbox.api(Method::GET, "", None).await.json()["endAt"]);
    let seconds = |time: Duration| i64::try_from(time.as_secs()).expect("seconds");
    end.duration_since(SystemTime::now()).map_or_else(|late| -seconds(late.duration()), seconds)
}

async fn list(query: &str) -> Answer {
    let answer = api(Method::GET, &format!("/v2/sandboxes?{query}"), None).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    answer
}

fn ids(answer: &Answer) -> Vec<String> {
    let list = answer.json();
    let ids = list.as_array().expect("a list").iter().map(|one| one["sandboxID"].as_str().expect("an id").to_owned());
    ids.collect()
}

async fn a_sandbox_is_described_alike_when_it_is_created_connected_to_and_listed() {
    let body = json!({
        "templateID": "base", "timeout": 600, "metadata": {"test": "shapes", "k 1": "v&1"}, "envVars": {"A": "1"},
        "autoPause": true, "autoResume": {"enabled": true}, "allow_internet_access": false, "someday": {"new": [1]},
    });
    let created = api(Method::POST, "/v2/sandboxes", Some(body)).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let sandbox = Sandbox::from(created.json());
    is_as_recorded("create-v2", created.json());
    for version in ["", "/v2"] {
        // Old SDKs identify sandboxes by sandbox id and client id.
        for id in [sandbox.id.clone(), format!("{}-oncebox", sandbox.id)] {
            let connected = api(Method::POST, &format!("{version}/sandboxes/{id}/connect"), Some(json!({}))).await;
            assert_eq!((connected.status, connected.json()), (200, created.json()));
        }
    }
    is_as_recorded("detail", sandbox.api(Method::GET, "", None).await.json());
    is_as_recorded("list", list("metadata=test%3Dshapes").await.json());
    let old = api(Method::GET, "/sandboxes?metadata=test%3Dshapes", None).await;
    assert_eq!(old.json(), list("metadata=test%3Dshapes").await.json());
    sandbox.kill().await;
    let again = sandbox.api(Method::DELETE, "", None).await.error(404);
    assert_eq!(again, format!("Sandbox \"{}\" doesn't exist or you don't have access to it", sandbox.id));
}

async fn old_clients_create_sandboxes_that_need_no_token() {
    let create = |secure: Value| api(Method::POST, "/sandboxes", Some(json!({"templateID": "base", "secure": secure})));
    let (open, secured) = (create(json!(null)).await, create(json!(true)).await);
    assert_eq!((open.status, secured.status), (201, 201), "{}", open.text());
    is_as_recorded("create-v1", open.json());
    for (sandbox, status) in [(Sandbox::from(open.json()), 200), (Sandbox::from(secured.json()), 401)] {
        let stat = sandbox.at(49983, Method::POST, "/filesystem.Filesystem/Stat").json(&json!({"path": "/"}));
        assert_eq!(answer(stat).await.status, status);
        let wrong = sandbox.at(49983, Method::POST, "/filesystem.Filesystem/Stat").header("x-access-token", "x");
        let refused = answer(wrong.json(&json!({"path": "/"}))).await.error(401);
        let message = "unauthorized access, please provide a valid access token or method signing if supported";
        assert_eq!(refused, message);
        sandbox.kill().await;
    }
}

async fn members_that_creation_may_omit_have_defaults() {
    let sandbox = Sandbox::create(json!({"templateID": "team/base:default"})).await;
    assert!((270..=300).contains(&left(&sandbox).await));
    let detail = sandbox.api(Method::GET, "", None).await.json();
    assert_eq!((&detail["metadata"], &detail["state"]), (&json!({}), &json!("running")));
    assert_eq!(detail["lifecycle"], json!({"autoResume": false, "onTimeout": "kill"}));
    assert_eq!(detail["allowInternetAccess"], json!(null));
    sandbox.kill().await;
}

async fn a_list_comes_in_pages_whose_last_has_no_token() {
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(Sandbox::create(json!({"templateID": "base", "metadata": {"test": "pages"}})).await);
    }
    let ascending: Vec<_> = made.iter().map(|sandbox| sandbox.id.clone()).collect();
    for (order, expected) in [("order=asc&", ascending.clone()), ("", ascending.iter().rev().cloned().collect())] {
        let query = format!("{order}metadata=test%3Dpages&limit=2");
        let first = list(&query).await;
        let token = first.headers["x-next-token"].to_str().expect("text");
        let second = list(&format!("{query}&nextToken={token}")).await;
        assert!(!second.headers.contains_key("x-next-token"), "{:?}", second.headers);
        assert_eq!([ids(&first), ids(&second)].concat(), expected, "{query}");
        let all = list(&query.replace("limit=2", "limit=3")).await;
        assert!(!all.headers.contains_key("x-next-token"), "a full page need not have a next one");
        assert_eq!(ids(&all), expected);
    }
    for sandbox in made {
        sandbox.kill().await;
    }
    assert_eq!(ids(&list("metadata=test%3Dpages").await), [""; 0]);
}

async fn a_list_can_be_filtered_by_every_property_of_sandboxes() {
    let sandbox = Sandbox::create(json!({"templateID": "base", "metadata": {"test": "filters", "more": "x"}})).await;
    let own = vec![sandbox.id.clone()];
    let found = async |query: &str| ids(&list(&format!("metadata=test%3Dfilters&{query}")).await);
    assert_eq!(found("template=base").await, own);
    for none in ["template=code-interpreter-v1", "template=nowhere", "state=paused"] {
        assert_eq!(found(none).await, [""; 0], "{none}");
    }
    for all in ["state=running", "state=running,paused", "state=paused%2Crunning"] {
        assert_eq!(found(all).await, own, "{all}");
    }
    // The exact start time does not exclude the sandbox.
    let started = sandbox.api(Method::GET, "", None).await.json()["startedAt"].as_str().expect("a time").to_owned();
    let later = humantime::format_rfc3339_micros(time(&json!(started)) + Duration::from_micros(1)).to_string();
    for (after, expected) in [(started.clone(), own.clone()), (later, vec![])] {
        assert_eq!(found(&format!("startedAfter={after}")).await, expected, "{after}");
    }
    let offset = started.replace('Z', "%2B00:00");
    assert_eq!(found(&format!("startedAfter={offset}")).await, own, "{offset}");
    assert_eq!(ids(&list("metadata=test%3Dfilters%26more%3Dx").await), own);
    assert_eq!(ids(&list("metadata=test%3Dfilters%26more%3Dy").await), [""; 0]);
    sandbox.kill().await;
}

async fn a_metadata_filter_is_decoded_three_times() {
    let sandbox = Sandbox::create(json!({"templateID": "base", "metadata": {"a b": "c&d", "p%q": "é=+"}})).await;
    // As the SDKs send it.
    assert_eq!(ids(&list("metadata=a%252520b%3Dc%252526d").await), [sandbox.id.as_str()]);
    assert_eq!(ids(&list("metadata=p%252525q%3D%2525C3%2525A9%25253D%25252B").await), [sandbox.id.as_str()]);
    assert_eq!(ids(&list("metadata=a%252520b%3Dc").await), [""; 0]);
    sandbox.kill().await;
}

async fn a_paused_sandbox_is_listed_and_goes_on_when_connected_to() {
    let sandbox = Sandbox::create(json!({"templateID": "base", "metadata": {"test": "pause"}})).await;
    assert_eq!(sandbox.api(Method::POST, "/resume", Some(json!({"timeout": 60}))).await.error(409), {
        format!("Sandbox {} is already running", sandbox.id)
    });
    sandbox.shell("echo kept > /tmp/kept").await;
    let pause = async |body: Option<Value>| sandbox.api(Method::POST, "/pause", body).await;
    assert_eq!(pause(Some(json!({}))).await.status, 204);
    assert_eq!(pause(None).await.error(409), format!("Sandbox {} is already paused", sandbox.id));
    assert_eq!(ids(&list("metadata=test%3Dpause&state=paused").await), [sandbox.id.as_str()]);
    assert_eq!(api(Method::GET, "/sandboxes?metadata=test%3Dpause", None).await.json(), json!([]));
    let detail = sandbox.api(Method::GET, "", None).await.json();
    assert_eq!(detail["state"], "paused");
    assert!(time(&detail["endAt"]) <= SystemTime::now(), "the end of a paused one is when it was paused");
    // The sandbox does not run, so there is no deadline to set.
    sandbox.api(Method::POST, "/timeout", Some(json!({"timeout": 60}))).await.error(404);
    sandbox.api(Method::POST, "/refreshes", Some(json!({"duration": 60}))).await.error(404);
    let health = answer(sandbox.at(49983, Method::GET, "/health")).await;
    let gone = json!({"sandboxId": sandbox.id, "message": "The sandbox was not found", "code": 502});
    assert_eq!((health.status, health.json()), (502, gone));
    let connected = sandbox.api(Method::POST, "/connect", Some(json!({"timeout": 60}))).await;
    assert_eq!((connected.status, connected.json()), (201, sandbox.created.clone()));
    assert_eq!(sandbox.shell("cat /tmp/kept").await, "kept\n");
    assert!((50..=60).contains(&left(&sandbox).await));
    assert_eq!(pause(Some(json!({"memory": true}))).await.status, 204);
    let resumed = sandbox.api(Method::POST, "/resume", Some(json!({"timeout": 90, "autoPause": false}))).await;
    assert_eq!((resumed.status, resumed.json()), (201, sandbox.created.clone()));
    assert_eq!(pause(None).await.status, 204);
    sandbox.kill().await;
}

async fn a_pause_or_resumption_without_the_memory_is_refused_and_changes_nothing() {
    let sandbox = Sandbox::create(json!({"templateID": "base"})).await;
    let state = async || sandbox.api(Method::GET, "", None).await.json()["state"].clone();
    let post = async |path: &str, body: Value| sandbox.api(Method::POST, path, Some(body)).await;
    assert!(post("/pause", json!({"memory": false})).await.error(501).starts_with("memory: "));
    assert_eq!(state().await, "running");
    assert_eq!(post("/pause", json!({})).await.status, 204);
    for (path, body) in
        [("/connect", json!({"timeout": 60, "memory": false})), ("/resume", json!({"timeout": 60, "memory": false}))]
    {
        assert!(post(path, body).await.error(501).starts_with("memory: "), "{path}");
        assert_eq!(state().await, "paused", "{path}");
    }
    assert!(post("/resume", json!({"autoPause": true})).await.error(400).starts_with("autoPause: "));
    assert_eq!(state().await, "paused");
    assert_eq!(post("/connect", json!({"timeout": 60, "memory": true})).await.status, 201);
    // By E2B's own words it concerns paused sandboxes only.
    assert_eq!(post("/connect", json!({"timeout": 60, "memory": false})).await.status, 200);
    sandbox.kill().await;
}

async fn a_pause_can_require_that_the_agent_answers() {
    let server = crate::support::Server::start_cold(&[("ONCEBOX_API_KEYS", KEY)]);
    let post = async |path: &str, body: Value| {
        let request = server.http.post(format!("{}{path}", server.url)).header("x-api-key", KEY);
        answer(request.json(&body)).await
    };
    let created = post("/v2/sandboxes", json!({"templateID": "base"})).await.json();
    let path = format!("/sandboxes/{}/pause", created["sandboxID"].as_str().expect("an id"));
    let container = server.sandboxes();
    let [container] = container.as_slice() else { panic!("{container:?}") };
    docker(&["kill", "--signal", "STOP", container]);
    let refused = post(&path, json!({"requireHealthyGuest": true})).await.error(503);
    assert!(refused.contains("requireHealthyGuest"), "{refused}");
    docker(&["kill", "--signal", "CONT", container]);
    assert_eq!(post(&path, json!({"requireHealthyGuest": true})).await.status, 204);
}

async fn a_life_is_made_longer_by_connecting_and_refreshing_and_never_shorter() {
    let sandbox = Sandbox::create(json!({"templateID": "base", "timeout": 300})).await;
    let post = async |path: &str, body: Option<Value>| sandbox.api(Method::POST, path, body).await.status;
    assert_eq!(post("/connect", Some(json!({"timeout": 10}))).await, 200);
    assert_eq!(post("/refreshes", Some(json!({"duration": 0}))).await, 204);
    assert_eq!(post("/refreshes", None).await, 204);
    assert!(left(&sandbox).await > 280);
    assert_eq!(post("/connect", Some(json!({"timeout": 500}))).await, 200);
    assert!((490..=500).contains(&left(&sandbox).await));
    assert_eq!(post("/refreshes", Some(json!({"duration": 3600}))).await, 204);
    assert!((3590..=3600).contains(&left(&sandbox).await));
    sandbox.kill().await;
}

async fn a_timeout_ends_a_sandbox_sooner_or_later_and_zero_at_once() {
    for now in [0, -5] {
        let sandbox = Sandbox::create(json!({"templateID": "base", "timeout": 300})).await;
        let timeout = async |s: i64| sandbox.api(Method::POST, "/timeout", Some(json!({"timeout": s}))).await.status;
        assert_eq!(timeout(86_400).await, 204);
        assert!(left(&sandbox).await > 86_300);
        assert_eq!(timeout(20).await, 204);
        assert!((10..=20).contains(&left(&sandbox).await));
        assert_eq!(timeout(now).await, 204);
        crate::support::eventually("it is gone", async || sandbox.api(Method::GET, "", None).await.status == 404).await;
        assert_eq!(timeout(20).await, 404);
    }
}

async fn a_sandbox_of_a_moment_is_gone_after_it() {
    let killed = Sandbox::create(json!({"templateID": "base", "timeout": 1})).await;
    let paused = Sandbox::create(json!({"templateID": "base", "timeout": 1, "autoPause": true})).await;
    crate::support::eventually("it is gone", async || killed.api(Method::GET, "", None).await.status == 404).await;
    crate::support::eventually("it is paused", async || {
        paused.api(Method::GET, "", None).await.json()["state"] == "paused"
    })
    .await;
    paused.kill().await;
}

async fn readings_and_logs_have_all_their_members() {
    let sandbox = Sandbox::shared().await;
    crate::support::eventually("there is a reading", async || {
        let metrics = sandbox.api(Method::GET, "/metrics?start=0&end=99999999999", None).await.json();
        metrics.as_array().is_some_and(|list| !list.is_empty())
    })
    .await;
    let metrics = sandbox.api(Method::GET, "/metrics", None).await.json();
    is_as_recorded("metric", metrics[0].clone());
    for name in ["timestampUnix", "cpuCount", "memUsed", "memTotal", "memCache", "diskUsed", "diskTotal"] {
        assert!(metrics[0][name].is_u64(), "{name}: {metrics}");
    }
    for (version, name) in [("", "logs-v1"), ("/v2", "logs-v2")] {
        let logs = api(Method::GET, &format!("{version}/sandboxes/{}/logs?limit=10", sandbox.id), None).await;
        assert_eq!(logs.status, 200);
        is_as_recorded(name, logs.json());
    }
}

async fn templates_are_known_by_their_names() {
    for (alias, id) in
        [("base", "base"), ("code-interpreter-v1", "code-interpreter-v1"), ("full", "code-interpreter-v1")]
    {
        let found = api(Method::GET, &format!("/templates/aliases/{alias}"), None).await;
        assert_eq!((found.status, found.json()), (200, json!({"templateID": id, "public": true})), "{alias}");
    }
    for alias in ["nowhere", "..%2F..%2Fetc", "%00"] {
        api(Method::GET, &format!("/templates/aliases/{alias}"), None).await.error(404);
    }
}

async fn what_is_not_offered_is_a_501_that_names_it() {
    let id = &Sandbox::shared().await.id;
    let (snapshots, fork) = (format!("/sandboxes/{id}/snapshots"), format!("/sandboxes/{id}/fork"));
    for (method, path) in [
        (Method::POST, snapshots.as_str()),
        (Method::POST, &fork),
        (Method::GET, "/snapshots"),
        (Method::POST, "/v3/templates"),
        (Method::DELETE, "/templates/some"),
        (Method::POST, "/templates/tags"),
        (Method::POST, "/v2/templates/some/builds/1"),
        (Method::POST, "/volumes"),
        (Method::GET, "/volumes/some"),
        (Method::GET, "/secrets"),
        (Method::DELETE, "/secrets/some"),
    ] {
        let message = api(method, path, Some(json!({}))).await.error(501);
        assert!(message.starts_with(&format!("{path} is not offered here")), "{message}");
    }
    for member in [json!({"mcp": {"x": {}}}), json!({"volumeMounts": [{"name": "v", "path": "/v"}]})] {
        let mut body = json!({"templateID": "base"});
        body.as_object_mut().expect("an object").extend(member.as_object().expect("an object").clone());
        api(Method::POST, "/v2/sandboxes", Some(body)).await.error(501);
    }
}

async fn each_api_reports_its_health() {
    let sandbox = Sandbox::shared().await;
    assert_eq!(answer(request(Method::GET, "/health")).await.status, 200);
    let envd = answer(sandbox.at(49983, Method::GET, "/health")).await;
    assert_eq!((envd.status, envd.text().as_str()), (204, ""));
    let interpreter = answer(sandbox.at(49999, Method::GET, "/health")).await;
    assert_eq!((interpreter.status, interpreter.json()), (200, json!("OK")));
}

async fn more_sandboxes_than_may_be_kept_are_a_429() {
    let server = crate::support::Server::start_cold(&[("ONCEBOX_MAX_KEPT_SANDBOXES", "0"), ("ONCEBOX_API_KEYS", KEY)]);
    let create = server.http.post(format!("{}/v2/sandboxes", server.url)).header("x-api-key", KEY);
    let refused = answer(create.json(&json!({"templateID": "base"}))).await;
    assert!(!refused.headers.contains_key("retry-after"), "waiting kills no sandbox");
    assert_eq!(refused.headers["should-retry"], "false");
    assert!(refused.error(429).starts_with("max_kept_sandboxes = 0: "));
    assert!(server.containers().is_empty());
}
