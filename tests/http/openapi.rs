//! `/openapi.json` describes what the server does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::e2b::{Answer, answer};
use crate::key_file::{KeyFile, send, with_key};
use crate::repository::root;
use crate::scopes::ROUTES;
use crate::support::{Server, eventually};

trials![
    the_description_is_the_one_of_the_documents,
    every_route_is_described_with_its_scopes_and_nothing_else,
    languages_and_bounds_are_those_of_the_templates,
    runs_of_every_kind_answer_as_described,
    refusals_of_every_status_answer_as_described,
    the_server_shows_its_state_as_described,
    a_method_that_a_path_does_not_take_is_refused_with_those_that_it_takes,
];

/// The paths that require no key.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/health"];

pub(crate) async fn get(server: &Server, path: &str) -> Answer {
    answer(server.http.get(format!("{}{path}", server.url))).await
}

async fn the_description_is_the_one_of_the_documents() {
    let file = root().join("docs/openapi.json");
    let server = Server::start_cold(&[]);
    let described = get(&server, "/openapi.json").await;
    assert_eq!(
        (described.status, &described.headers["content-type"]),
        (200, &"application/json".parse().expect("text"))
    );
    let text = format!("{}\n", serde_json::to_string_pretty(&described.json()).expect("JSON"));
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        fs::write(&file, &text).expect("it is written");
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == text, "docs/openapi.json is not what the server describes: UPDATE_FIXTURES=1 writes it");
}

/// A description, by which requests and answers are judged.
struct Described(Value);

impl Described {
    async fn by(server: &Server) -> Self {
        Self(get(server, "/openapi.json").await.json())
    }

    /// The operations, with method and path.
    fn operations(&self) -> impl Iterator<Item = (String, &String, &Value)> {
        let paths = self.0["paths"].as_object().expect("paths").iter();
        paths.flat_map(|(path, item)| {
            let item = item.as_object().expect("an item").iter();
            item.map(move |(method, operation)| (method.to_uppercase(), path, operation))
        })
    }

    /// Whether a value is as a schema says. A member that is not described is an error.
    fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let mut whole = json!({"components": self.0["components"], "allOf": [schema]});
        close(&mut whole["components"]["schemas"]);
        let validator = jsonschema::validator_for(&whole).expect("a schema");
        validator.validate(value).map_err(|err| format!("{}: {err}", err.instance_path()))
    }

    /// Checks that an answer has a status, headers and a body that the operation describes.
    fn check_answer(&self, method: &str, path: &str, answer: &Answer) {
        let what = format!("{method} {path}: {} {}", answer.status, answer.text());
        let response = &self.0["paths"][path][method.to_lowercase()]["responses"][answer.status.to_string()];
        let kind = answer.headers["content-type"].to_str().expect("text");
        let schema = &response["content"][kind]["schema"];
        assert!(schema.is_object(), "not described: {what}");
        let body = if kind == "application/json" { answer.json() } else { json!(answer.text()) };
        self.check(schema, &body).unwrap_or_else(|err| panic!("{err} in {what}"));
        if answer.status >= 400 {
            assert_eq!(*schema, json!({"$ref": "#/components/schemas/Error"}), "{what}");
        }
    }

    /// Whether the description accepts a request to run code.
    fn accepts(&self, request: &Value) -> bool {
        self.check(&json!({"$ref": "#/components/schemas/RunRequest"}), request).is_ok()
    }
}

/// Makes every object that lists its members refuse others.
fn close(schemas: &mut Value) {
    for schema in schemas.as_object_mut().expect("schemas").values_mut() {
        if schema["properties"].is_object() && schema.get("additionalProperties").is_none() {
            schema["additionalProperties"] = json!(false);
        }
    }
}

/// Whether a path is one that a described path stands for, whose last part `{rest}` takes all that is left.
fn is_for(described: &str, path: &str) -> bool {
    match (described.split_once('/'), path.split_once('/')) {
        _ if described == "{rest}" => !path.is_empty(),
        (Some((own, described)), Some((part, path))) => {
            (own == part || own.starts_with('{')) && is_for(described, path)
        }
        (None, None) => described == path || described.starts_with('{'),
        _ => false,
    }
}

async fn every_route_is_described_with_its_scopes_and_nothing_else() {
    let described = Described::by(&Server::start_cold(&[])).await;
    let operations: BTreeMap<_, _> =
        described.operations().map(|(method, path, operation)| ((method, path), operation)).collect();
    let mut found = BTreeSet::new();
    // HEAD is a GET without the body.
    for (method, path, scopes) in ROUTES.iter().filter(|(method, ..)| *method != "HEAD") {
        let of_path = operations.iter().filter(|((own, route), _)| own == method && is_for(route, path));
        let literal = |route: &str| route.split('/').filter(|part| !part.starts_with('{')).count();
        let closest = of_path.max_by_key(|((_, route), _)| literal(route));
        let (key, operation) = closest.unwrap_or_else(|| panic!("{method} {path} is not described"));
        found.insert(key);
        let security = operation["security"].as_array().expect("what a key needs");
        for way in ["key", "bearer"] {
            let named: Vec<_> = security.iter().filter_map(|one| one.get(way)).map(Value::to_string).collect();
            let expected = match scopes.len() {
                // Every key will do.
                5 => vec!["[]".to_owned()],
                _ => scopes.iter().map(|scope| json!([scope]).to_string()).collect(),
            };
            assert_eq!(named, expected, "{method} {path} by {way}");
        }
    }
    for (key, operation) in &operations {
        let is_open = OPEN.contains(&key.1.as_str());
        assert_ne!(found.contains(key), is_open, "{key:?} is described, and is no route");
        assert_eq!(operation.get("security").is_none(), is_open, "{key:?}");
        assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{key:?}: {operation}");
    }
    let ids: BTreeSet<_> = operations.values().map(|operation| operation["operationId"].to_string()).collect();
    assert_eq!(ids.len(), operations.len(), "two operations have one name");
}

async fn languages_and_bounds_are_those_of_the_templates() {
    let server = Server::start_cold(&[
        ("ONCEBOX_TEMPLATES__R__ALIASES", "[\"statistics\"]"),
        ("ONCEBOX_TEMPLATES__R__MEMORY_BYTES", "2147483648"),
        ("ONCEBOX_TEMPLATES__TS__RUNS", "false"),
        ("ONCEBOX_TEMPLATES__NODE__MAX_TIMEOUT_MS", "700000"),
    ]);
    let described = Described::by(&server).await;
    let request = &described.0["components"]["schemas"]["RunRequest"];
    let languages = request["properties"]["language"]["enum"].as_array().expect("languages");
    let has = |name: &str| languages.contains(&json!(name));
    assert!(has("r") && has("statistics") && has("python") && !has("rlang") && !has("ts"), "{languages:?}");
    let timeout = &request["properties"]["timeout_ms"];
    assert_eq!((&timeout["minimum"], &timeout["maximum"]), (&json!(1), &json!(700_000)));
    let memory = &described.0["components"]["schemas"]["LimitsRequest"]["properties"]["memory_bytes"];
    assert_eq!((&memory["minimum"], &memory["maximum"]), (&json!(67_108_864), &json!(2_147_483_648_u64)));
    // The example of the description is one that the server runs.
    let example = &request["examples"][0];
    assert!(described.accepts(example), "{example}");
    let (_, ran) = server.post("/v1/run", example).await;
    assert_eq!(ran["results"], json!(["42"]), "{ran}");
}

fn post(server: &Server, body: &Value) -> RequestBuilder {
    server.http.post(format!("{}/v1/run", server.url)).json(body)
}

async fn runs_of_every_kind_answer_as_described() {
    let server = Server::start_cold(&[("ONCEBOX_DRAIN_TIMEOUT_MS", "0")]);
    let described = Described::by(&server).await;
    let kinds = described.0["components"]["schemas"]["OutcomeKind"]["examples"].clone();
    let every_member = json!({
        "code": "import os, sys; print(sys.stdin.read(), os.environ['A']); print('!', file=sys.stderr); open('b').read()",
        "env": {"A": "1"}, "stdin": "in", "network": "none", "timeout_ms": 60_000, "limits": {"processes": 32},
        "files": [{"path": "a", "content": ""}, {"path": "b", "content": "AAA=", "encoding": "base64"}],
    });
    for (kind, mut request) in [
        ("ok", every_member),
        ("ok", json!({"code": "6 * 7", "timeout_ms": null, "limits": {"memory_bytes": null}})),
        ("exception", json!({"code": "1 / 0"})),
        ("exit", json!({"code": "exit(3)"})),
        ("timeout", json!({"code": "while True: pass", "timeout_ms": 300})),
        ("output_limit", json!({"code": "print('x' * 5000)", "limits": {"output_bytes": 1024}})),
        ("signal", json!({"code": "import os; os.kill(os.getpid(), 9)"})),
    ] {
        request["language"] = json!("python");
        assert!(described.accepts(&request), "{request}");
        let ran = answer(post(&server, &request)).await;
        assert_eq!((ran.status, &ran.json()["outcome"]["kind"]), (200, &json!(kind)), "{}", ran.text());
        assert!(kinds.as_array().expect("kinds").contains(&json!(kind)), "{kinds}");
        described.check_answer("POST", "/v1/run", &ran);
        let streamed = answer(post(&server, &request).header("accept", "text/event-stream")).await;
        described.check_answer("POST", "/v1/run", &streamed);
    }
    // The last kind that comes about without a container.
    let code = "import time; print(1, flush=True); time.sleep(600)";
    let mut events = server.stream(json!({"language": "python", "code": code})).await;
    assert_eq!(events.next().await.expect("an event").name, "stdout");
    assert!(server.stop());
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event.data);
    }
    let outcome = &last.expect("an end")["outcome"];
    assert_eq!(outcome["kind"], "cancelled");
    described.check(&json!({"$ref": "#/components/schemas/Outcome"}), outcome).expect("it is described");
}

async fn refusals_of_every_status_answer_as_described() {
    let (file, [all, other, metrics, confined, often]) = KeyFile::with([
        &["all", "--scope", "run", "--scope", "metrics"],
        &["other"],
        &["metrics", "--scope", "metrics"],
        &["confined", "--template", "r"],
        &["often", "--max-starts-per-minute", "1"],
    ]);
    let server = file.serve(&[("ONCEBOX_MAX_BODY_BYTES", "2000"), ("ONCEBOX_TEMPLATES__R__LANGUAGE", "missing")]);
    let described = Described::by(&server).await;
    let check = async |request: RequestBuilder, status: u16, path: &str| {
        let refused = answer(request).await;
        assert_eq!(refused.status, status, "{path}: {}", refused.text());
        described.check_answer(if path == "/v1/run" { "POST" } else { "GET" }, path, &refused);
        refused
    };
    let run = |key: &str, body: &Value| with_key(&server, key, Method::POST, "/v1/run").json(body);
    let code = json!({"language": "python", "code": "1"});
    for wrong in [
        json!({"language": "cobol", "code": "1"}),
        json!({"language": "python"}),
        json!({"language": "python", "code": "1", "timeout_ms": 0}),
        json!({"language": "python", "code": "1", "limits": {"memory_bytes": 1}}),
        json!({"language": "python", "code": "1", "limits": {"other": 1}}),
        json!({"language": "python", "code": "1", "env": {"A=": ""}}),
        json!({"language": "python", "code": "1", "other": 1}),
        json!({"language": "python", "code": "1", "files": null}),
    ] {
        assert!(!described.accepts(&wrong), "{wrong}");
        check(run(&all, &wrong), 400, "/v1/run").await;
    }
    for path in ["/v1/run", "/v1/status", "/v1/languages"] {
        let method = if path == "/v1/run" { Method::POST } else { Method::GET };
        let call = |key: &str| with_key(&server, key, method.clone(), path).json(&code);
        check(call("wrong-key-1"), 401, path).await;
        check(call(&all).bearer_auth(&other), 400, path).await;
        if path != "/v1/languages" {
            check(call(if path == "/v1/run" { &metrics } else { &other }), 403, path).await;
        }
    }
    check(run(&confined, &code), 403, "/v1/run").await;
    check(run(&all, &json!({"language": "python", "code": "x".repeat(3000)})), 413, "/v1/run").await;
    check(run(&all, &code).header("content-encoding", "gzip"), 415, "/v1/run").await;
    check(run(&all, &json!({"language": "r", "code": "1"})), 503, "/v1/run").await;
    assert_eq!(answer(run(&often, &code)).await.status, 200);
    let limited = check(run(&often, &code), 429, "/v1/run").await;
    let headers = described.0["paths"]["/v1/run"]["post"]["responses"]["429"]["headers"].as_object().expect("headers");
    assert!(headers.keys().any(|name| limited.headers.contains_key(name)), "{:?}", limited.headers);
    assert!(limited.json()["error"]["limit"]["value"] == 1, "{}", limited.text());
}

async fn the_server_shows_its_state_as_described() {
    let server =
        Server::start_unready(&[("ONCEBOX_TEMPLATES__R__LANGUAGE", "missing"), ("ONCEBOX_TEMPLATES__R__WARM", "1")]);
    let described = Described::by(&server).await;
    let check = async |path: &str| {
        let shown = get(&server, path).await;
        let schema = &described.0["paths"][path]["get"]["responses"][shown.status.to_string()]["content"];
        let schema = &schema["application/json"]["schema"];
        described.check(schema, &shown.json()).unwrap_or_else(|err| panic!("{path}: {err}: {}", shown.text()));
        shown
    };
    let known = async || {
        let languages = check("/v1/languages").await.json();
        let mut of_all =
            languages["languages"].as_array().expect("languages").iter().map(|one| one["version"].is_null());
        of_all.clone().any(|unknown| unknown) && of_all.any(|unknown| !unknown)
    };
    eventually("one language has started and another has not", known).await;
    for path in ["/v1/status", "/healthz"] {
        assert_eq!(check(path).await.status, 200);
    }
    assert_eq!(check("/readyz").await.status, 503);
}

async fn a_method_that_a_path_does_not_take_is_refused_with_those_that_it_takes() {
    let (file, [key]) = KeyFile::with([&["all", "--scope", "run", "--scope", "metrics", "--scope", "admin"]]);
    let server = file.serve(&[]);
    let described = Described::by(&server).await;
    // The errors of other protocols are not described.
    let is_own = |operation: &Value| !["e2b", "mcp"].iter().any(|tag| operation["tags"].to_string().contains(tag));
    for (method, path, operation) in described.operations().filter(|(.., operation)| is_own(operation)) {
        for other in [Method::PUT, Method::PATCH, Method::DELETE] {
            let refused = send(&server, &key, other, path, None).await;
            assert_eq!(refused.status, 405, "{path}: {}", refused.text());
            described.check_answer(&method, path, &refused);
            assert!(refused.headers["allow"].to_str().expect("text").contains(&method), "{path}");
            assert!(operation["responses"]["405"]["headers"]["Allow"].is_object(), "{path}");
        }
    }
    for (path, allowed) in [("/api-keys", "GET,HEAD,POST"), ("/templates", "GET,HEAD,POST")] {
        let refused = send(&server, &key, Method::OPTIONS, path, None).await;
        assert_eq!((refused.status, &refused.headers["allow"]), (405, &allowed.parse().expect("text")), "{path}");
    }
}
