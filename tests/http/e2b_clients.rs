//! What single clients of E2B's API send and need, and others do not.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::e2b::{ENVD, INTERPRETER, KEY, OTHER_KEY, Sandbox, answer, api};
use crate::support::{Server, eventually};

trials![
    calls_of_the_control_plane_may_name_envd_in_their_headers,
    the_first_sdks_get_only_members_of_entries_that_they_know,
    streams_of_a_killed_sandbox_end_with_the_error_that_sdks_know,
    the_command_line_lists_templates_and_cannot_change_them,
    a_letta_that_is_not_configured_is_named_with_what_to_set,
];

/// Python's SDK 2.7 to 2.28 adds the headers for envd to the request of `Sandbox.connect`.
async fn calls_of_the_control_plane_may_name_envd_in_their_headers() {
    let sandbox = Sandbox::create(json!({"templateID": "base"})).await;
    let call = |key: &str, port: u16, method: Method, path: &str| {
        sandbox.at(port, method, &format!("/sandboxes/{}{path}", sandbox.id)).header("x-api-key", key)
    };
    let connected = answer(call(KEY, ENVD, Method::POST, "/connect").json(&json!({"timeout": 300}))).await;
    assert_eq!((connected.status, connected.json()), (200, sandbox.created.clone()));
    assert_eq!(answer(call(KEY, ENVD, Method::GET, "")).await.json()["sandboxID"], sandbox.created["sandboxID"]);
    // The headers open nothing.
    answer(call(OTHER_KEY, ENVD, Method::GET, "")).await.error(404);
    answer(sandbox.envd(Method::GET, &format!("/sandboxes/{}", sandbox.id))).await.error(401);
    // On other ports the path belongs to the server in the sandbox; nothing listens there.
    assert_eq!(answer(call(KEY, 8000, Method::GET, "")).await.json()["port"], 8000);
    sandbox.kill().await;
}

/// Python's SDK up to 1.5.3 fails on a message with a member that it does not know.
async fn the_first_sdks_get_only_members_of_entries_that_they_know() {
    let sandbox = Sandbox::create(json!({"templateID": "base"})).await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).to_str().expect("text").to_owned();
    std::fs::write(path("file"), "content").expect("a file");
    std::os::unix::fs::symlink(path("file"), path("link")).expect("a link");
    let first = BTreeSet::from(["name", "path", "type"].map(str::to_owned));
    for (agent, is_first) in
        [("connect-python", true), ("connect-python/0.12", false), ("e2b-python-sdk/2.63.0", false)]
    {
        let call = async |method: &str, message: Value| {
            let call = sandbox.envd(Method::POST, &format!("/filesystem.Filesystem/{method}"));
            let answer = answer(call.header("user-agent", agent).json(&message)).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer.json()
        };
        let names = |entry: &Value| entry.as_object().expect("an entry").keys().cloned().collect::<BTreeSet<_>>();
        let made = path(&format!("made by {}", agent.replace('/', " ")));
        let moved = format!("{made}, moved");
        for entry in [
            call("Stat", json!({"path": path("file")})).await["entry"].clone(),
            call("Stat", json!({"path": path("link")})).await["entry"].clone(),
            call("MakeDir", json!({"path": made})).await["entry"].clone(),
            call("Move", json!({"source": made, "destination": moved})).await["entry"].clone(),
            call("ListDir", json!({"path": path(""), "depth": 1})).await["entries"][0].clone(),
        ] {
            assert_eq!(names(&entry) == first, is_first, "{agent}: {entry}");
            assert!(is_first || entry["size"].is_string(), "{entry}");
        }
    }
    sandbox.kill().await;
}

/// Of a stream that breaks off, older SDKs only know that the connection broke; the first ones send the request again.
async fn streams_of_a_killed_sandbox_end_with_the_error_that_sdks_know() {
    let sandbox = Sandbox::create(json!({"templateID": "code-interpreter-v1"})).await;
    let mut command = sandbox.start("echo printed; exec sleep 60").await;
    let pid = command.pid().await;
    let mut joined = sandbox.stream("process.Process/Connect", json!({"process": {"pid": pid}})).await;
    assert_eq!(joined.pid().await, pid);
    let mut watch = sandbox.stream("filesystem.Filesystem/WatchDir", json!({"path": "/tmp"})).await;
    assert_eq!(watch.message().await, json!({"start": {}}));
    let code = json!({"code": "import time; print('printed', flush=True); time.sleep(60)"});
    let execute = sandbox.at(INTERPRETER, Method::POST, "/execute").json(&code).send().await.expect("an answer");
    sandbox.kill().await;
    for stream in [&mut command, &mut joined, &mut watch] {
        let (code, message) = stream.error().await;
        assert_eq!(code, "unavailable");
        assert!(
            message.contains("was not found") && message.contains("killed or reached its end of life"),
            "{message}"
        );
    }
    // The lines of an execution have no such end: to break off is the only sign.
    assert!(execute.bytes().await.is_err());
    let health = answer(sandbox.at(ENVD, Method::GET, "/health")).await;
    assert_eq!((health.status, health.text().contains("was not found")), (502, true));
}

/// `e2b template list` shows what `GET /templates` answers.
async fn the_command_line_lists_templates_and_cannot_change_them() {
    let list = async |path: &str| {
        let answer = api(Method::GET, path, None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        (answer.json(), answer.headers.get("x-next-token").map(|token| token.to_str().expect("text").to_owned()))
    };
    let (templates, _) = list("/templates?teamID=any").await;
    let templates = templates.as_array().expect("a list");
    let names: Vec<_> = templates.iter().map(|template| template["templateID"].as_str().expect("text")).collect();
    assert!(["base", "code-interpreter-v1", "python"].iter().all(|name| names.contains(name)), "{names:?}");
    // The members that the SDKs' models require.
    let required = [
        "templateID",
        "buildID",
        "cpuCount",
        "memoryMB",
        "diskSizeMB",
        "public",
        "aliases",
        "names",
        "createdAt",
        "updatedAt",
        "createdBy",
        "lastSpawnedAt",
        "spawnCount",
        "buildCount",
        "envdVersion",
        "buildStatus",
    ];
    let mut builds = BTreeSet::new();
    for template in templates {
        assert!(required.iter().all(|name| template.get(name).is_some()), "{template}");
        let build = template["buildID"].as_str().expect("text");
        let parts: Vec<_> = build.split('-').map(str::len).collect();
        assert!(parts == [8, 4, 4, 4, 12] && builds.insert(build), "not a UUID, or there twice: {build}");
        humantime::parse_rfc3339(template["createdAt"].as_str().expect("text")).expect("a time");
        // Each of its names leads to it.
        for name in template["aliases"].as_array().expect("a list") {
            let (detail, _) = list(&format!("/templates/{}", name.as_str().expect("text"))).await;
            assert_eq!(detail["builds"][0]["buildID"], template["buildID"], "{name}");
        }
    }
    let base = &templates[names.iter().position(|name| *name == "base").expect("base")];
    let sandbox = Sandbox::create(json!({"templateID": "base"})).await;
    let detail = sandbox.api(Method::GET, "", None).await.json();
    for member in ["templateID", "cpuCount", "memoryMB", "diskSizeMB", "envdVersion"] {
        assert_eq!(base[member], detail[member], "{member}");
    }
    sandbox.kill().await;
    // In pages, as the second version answers.
    let (mut paged, mut token) = (Vec::new(), String::new());
    loop {
        let (page, next) = list(&format!("/v2/templates?limit=2{token}")).await;
        paged.extend(page.as_array().expect("a list").clone());
        let Some(next) = next else { break };
        assert_eq!(page.as_array().expect("a list").len(), 2);
        token = format!("&nextToken={next}");
    }
    assert_eq!(&paged, templates);
    for query in ["limit=0", "limit=101", "nextToken=nowhere"] {
        api(Method::GET, &format!("/v2/templates?{query}"), None).await.error(400);
    }
    api(Method::GET, "/templates/nowhere", None).await.error(404);
    for (method, path) in [
        (Method::POST, "/templates"),
        (Method::POST, "/v3/templates"),
        (Method::POST, "/v2/templates/base/builds/1"),
        (Method::PATCH, "/v2/templates/base"),
        (Method::DELETE, "/templates/base"),
        (Method::GET, "/templates/base/tags"),
        (Method::POST, "/templates/tags"),
        (Method::GET, "/teams"),
    ] {
        let message = api(method, path, Some(json!({}))).await.error(501);
        assert!(message.starts_with(&format!("{path} is not offered here: ")), "{message}");
    }
}

/// Letta never kills the sandboxes of `run_code`, so that it soon reaches the limit.
async fn a_letta_that_is_not_configured_is_named_with_what_to_set() {
    const VARIABLE: &str = "ONCEBOX_LETTA_API_KEYS";
    let server =
        Server::start_cold(&[("ONCEBOX_API_KEYS", KEY), (VARIABLE, OTHER_KEY), ("ONCEBOX_MAX_KEPT_SANDBOXES", "1")]);
    let create = async |key: &str, metadata: Value| {
        let create = server.http.post(format!("{}/sandboxes", server.url)).header("x-api-key", key);
        answer(create.json(&json!({"templateID": "code-interpreter-v1", "metadata": metadata}))).await
    };
    // As Letta creates the sandbox of a custom tool.
    let tool = create(KEY, json!({"config_state": "1"})).await;
    assert_eq!(tool.status, 201, "{}", tool.text());
    eventually("the log names the variable", async || server.logged(VARIABLE).len() == 1).await;
    for _ in 0..3 {
        assert!(create(KEY, json!({})).await.error(429).contains(VARIABLE));
    }
    eventually("the log names the variable", async || server.logged(VARIABLE).len() == 2).await;
    assert!(!create(OTHER_KEY, json!({})).await.error(429).contains(VARIABLE), "it is there already");
    assert_eq!(server.logged(VARIABLE).len(), 2, "once for each reason");
}
