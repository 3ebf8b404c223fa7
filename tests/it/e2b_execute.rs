//! `/execute` and `/contexts` over plain HTTP: the lines of an answer, the time of their arrival, and the end of the
//! answer.

use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::e2b::{Answer, INTERPRETER, Sandbox, answer, execution_lines, in_time, is_as_recorded};

trials![
    an_execution_is_sent_in_ascii_lines_from_its_number_to_its_end,
    an_exception_is_one_line_before_the_end,
    a_value_that_is_too_large_to_be_sent_names_that_limit,
    headers_and_the_first_line_come_before_the_code_has_ended,
    silent_code_sends_a_keepalive_line_every_five_seconds,
    a_client_that_hangs_up_interrupts_the_code,
    an_answer_is_broken_off_when_the_sandbox_is_killed,
    an_answer_is_broken_off_when_the_sandbox_is_paused,
    an_answer_that_nobody_reads_holds_up_no_other,
    contexts_need_no_token_but_a_wrong_one_is_refused,
    contexts_are_described_alike_everywhere,
    a_context_starts_in_any_directory_that_its_user_may_enter,
    mistakes_are_answered_as_the_vendor_answers_them,
    variables_of_an_execution_are_gone_after_it,
    an_execution_waits_for_the_one_before_it_in_its_context,
];

/// A context for one test, so that it does not wait for another test.
pub(crate) async fn context(sandbox: &Sandbox, language: &str) -> String {
    let created = post(sandbox, "/contexts", json!({"language": language})).await;
    assert_eq!(created.status, 200, "{}", created.text());
    created.json()["id"].as_str().expect("an id").to_owned()
}

async fn post(sandbox: &Sandbox, path: &str, body: Value) -> Answer {
    answer(sandbox.at(INTERPRETER, Method::POST, path).json(&body)).await
}

/// Starts an execution; returns its answer after the first line is read.
async fn begin(sandbox: &Sandbox, context: &str, code: &str) -> Response {
    let request = sandbox.at(INTERPRETER, Method::POST, "/execute").json(&json!({"code": code, "context_id": context}));
    let mut response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    let first = response.chunk().await.expect("it goes on").expect("a line");
    let first: Value = serde_json::from_slice(&first).expect("one line");
    assert_eq!(first["type"], "number_of_executions");
    response
}

/// Reads an answer to its end; returns whether that was orderly.
async fn ends_in_order(mut response: Response) -> bool {
    loop {
        match response.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

async fn an_execution_is_sent_in_ascii_lines_from_its_number_to_its_end() {
    let sandbox = Sandbox::interpreted().await;
    let context = context(sandbox, "python").await;
    let code = "import sys\nprint('é 😀')\nprint('err', file=sys.stderr)\n\
                class Rich:\n    def _repr_mimebundle_(self, **_):\n        \
                return {'text/plain': 'r', 'text/html': '<b>é</b>', 'application/x-own': 'own'}\n\
                display(Rich())\n{'a': [1, None]}";
    let answer = post(sandbox, "/execute", json!({"code": code, "context_id": context, "language": null})).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.headers.contains_key("content-length") && !answer.headers.contains_key("content-encoding"));
    let text = answer.text();
    assert!(text.is_ascii() && text.ends_with('\n'), "{text}");
    assert!(text.lines().all(|line| !line.is_empty()), "{text}");
    let mut lines = execution_lines(&text);
    // The lines of the two streams may come in any order.
    lines[1..3].sort_by_key(|line| std::cmp::Reverse(line["type"].to_string()));
    is_as_recorded("execute", json!(lines));
    // Each context counts its own executions.
    let second = sandbox.execute(&json!({"code": "1", "context_id": context})).await;
    assert_eq!(second[0], json!({"type": "number_of_executions", "execution_count": 2}));
}

async fn an_exception_is_one_line_before_the_end() {
    let sandbox = Sandbox::interpreted().await;
    let context = context(sandbox, "python").await;
    let lines = sandbox.execute(&json!({"code": "print(1)\n1/0", "context_id": context})).await;
    let kinds: Vec<_> = lines.iter().map(|line| line["type"].as_str().expect("a type")).collect();
    assert_eq!(kinds, ["number_of_executions", "stdout", "error", "end_of_execution"]);
    assert_eq!((&lines[2]["name"], &lines[2]["value"]), (&json!("ZeroDivisionError"), &json!("division by zero")));
    assert!(lines[2]["traceback"].as_str().expect("text").contains("1/0"), "{}", lines[2]);
}

async fn a_value_that_is_too_large_to_be_sent_names_that_limit() {
    let sandbox = Sandbox::interpreted().await;
    let programs = [
        ("java", "\"x\".repeat(60_000_000)"),
        ("java", "throw new RuntimeException(\"x\".repeat(60_000_000));"),
        ("python", "'x' * 60_000_000"),
        ("python", "raise ValueError('x' * 60_000_000)"),
        ("js", "throw new Error('x'.repeat(60_000_000))"),
        ("ts", "display.mime({ 'text/html': 'x'.repeat(60_000_000) })"),
        // R truncates its errors itself.
        ("r", "strrep('x', 60000000)"),
    ];
    for (language, code) in programs {
        let context = context(sandbox, language).await;
        let lines = sandbox.execute(&json!({"code": format!("{code}\n"), "context_id": context})).await;
        let message = "a single value, display or error message of the code was larger than value_bytes = 50331648 and could not be \
                       sent; print it in pieces, or write it to a file";
        let [_, error, _] = &lines[..] else { panic!("{language}: {code}: {}", json!(lines)) };
        assert_eq!((&error["name"], &error["value"]), (&json!("OutputLimit"), &json!(message)), "{language}: {code}");
        answer(sandbox.at(INTERPRETER, Method::DELETE, &format!("/contexts/{context}"))).await;
    }
    // A value that fits is sent whole.
    let context = context(sandbox, "python").await;
    let lines = sandbox.execute(&json!({"code": "'x' * 25_000_000", "context_id": context})).await;
    assert_eq!(lines[1]["text"].as_str().map(str::len), Some(25_000_000));
}

/// Code that runs until a file exists.
fn until(file: &str) -> String {
    format!("import os, time\nwhile not os.path.exists('{file}'): time.sleep(0.02)\n'over'")
}

async fn headers_and_the_first_line_come_before_the_code_has_ended() {
    let sandbox = Sandbox::interpreted().await;
    let context = context(sandbox, "python").await;
    let response = in_time(begin(sandbox, &context, &until("/tmp/first"))).await;
    sandbox.shell("touch /tmp/first").await;
    assert!(ends_in_order(response).await);
}

async fn silent_code_sends_a_keepalive_line_every_five_seconds() {
    let sandbox = Sandbox::interpreted().await;
    let context = context(sandbox, "python").await;
    let began = Instant::now();
    let mut response = begin(sandbox, &context, &until("/tmp/silent")).await;
    let line = response.chunk().await.expect("it goes on").expect("a line");
    assert_eq!(&line[..], b"{\"type\":\"keepalive\"}\n");
    assert!(began.elapsed() >= Duration::from_millis(4500), "{:?}", began.elapsed());
    sandbox.shell("touch /tmp/silent").await;
    assert!(ends_in_order(response).await);
}

async fn a_client_that_hangs_up_interrupts_the_code() {
    let sandbox = Sandbox::interpreted().await;
    let context = context(sandbox, "python").await;
    let code = "before = 1\nprint('begun', flush=True)\nwhile True: pass";
    let mut response = begin(sandbox, &context, code).await;
    response.chunk().await.expect("it goes on");
    drop(response);
    let next = json!({"code": "before + 1", "context_id": context});
    let lines = in_time(sandbox.execute(&next)).await;
    // The variables still exist.
    assert_eq!(lines[1]["text"], "2", "{lines:?}");
}

async fn an_answer_is_broken_off_when_the_sandbox_is_killed() {
    let sandbox = Sandbox::create(json!({"templateID": "code-interpreter-v1"})).await;
    let context = context(&sandbox, "python").await;
    let response = begin(&sandbox, &context, "import time; time.sleep(60)").await;
    sandbox.kill().await;
    assert!(!ends_in_order(response).await, "an orderly end looks like a success");
    let health = answer(sandbox.at(INTERPRETER, Method::GET, "/health")).await;
    let gone = json!({"sandboxId": sandbox.id, "message": "The sandbox was not found", "code": 502});
    assert_eq!((health.status, health.json()), (502, gone));
}

async fn an_answer_is_broken_off_when_the_sandbox_is_paused() {
    let sandbox = Sandbox::create(json!({"templateID": "code-interpreter-v1"})).await;
    let context = context(&sandbox, "python").await;
    let response = begin(&sandbox, &context, "import time; time.sleep(60)").await;
    assert_eq!(sandbox.api(Method::POST, "/pause", None).await.status, 204);
    assert!(!ends_in_order(response).await, "an orderly end looks like a success");
    sandbox.kill().await;
}

async fn an_answer_that_nobody_reads_holds_up_no_other() {
    let sandbox = Sandbox::interpreted().await;
    let (slow, quick) = (context(sandbox, "python").await, context(sandbox, "python").await);
    let unread = begin(sandbox, &slow, "for _ in range(64): print('x' * (1 << 20))").await;
    in_time(async {
        for _ in 0..10 {
            let lines = sandbox.execute(&json!({"code": "6 * 7", "context_id": quick})).await;
            assert_eq!(lines[1]["text"], "42");
            assert_eq!(sandbox.shell("echo here").await, "here\n");
        }
    })
    .await;
    let mut unread = unread;
    let mut length = 0;
    while let Some(piece) = unread.chunk().await.expect("it ends in order") {
        length += piece.len();
    }
    assert!(length > 64 << 20, "{length}");
}

async fn contexts_need_no_token_but_a_wrong_one_is_refused() {
    let sandbox = Sandbox::interpreted().await;
    let id = context(sandbox, "js").await;
    let listed = answer(sandbox.at(INTERPRETER, Method::GET, "/contexts")).await;
    assert_eq!(listed.status, 200);
    let with = |token: &'static str| sandbox.at(INTERPRETER, Method::GET, "/contexts").header("X-Access-Token", token);
    for wrong in ["", "wrong", &"x".repeat(32).leak()[..]] {
        answer(with(wrong)).await.error(401);
    }
    let right = sandbox.at(INTERPRETER, Method::GET, "/contexts").header("x-access-token", &sandbox.token);
    assert_eq!(answer(right).await.status, 200);
    let removed = answer(sandbox.at(INTERPRETER, Method::DELETE, &format!("/contexts/{id}"))).await;
    assert_eq!((removed.status, removed.text().as_str()), (200, "null"));
}

async fn contexts_are_described_alike_everywhere() {
    let sandbox = Sandbox::interpreted().await;
    let created = post(sandbox, "/contexts", json!({"language": " Python ", "cwd": "/tmp"})).await.json();
    assert_eq!((&created["language"], &created["cwd"]), (&json!("python"), &json!("/tmp")));
    assert_eq!(created.as_object().expect("an object").len(), 3, "{created}");
    let id = created["id"].as_str().expect("an id");
    let run = async |code: &str| sandbox.execute(&json!({"code": code, "context_id": id})).await;
    assert_eq!(run("import os; x = 1; os.getcwd()").await[1]["text"], "/tmp");
    let listed = answer(sandbox.at(INTERPRETER, Method::GET, "/contexts")).await.json();
    assert!(listed.as_array().expect("a list").contains(&created), "{listed}");
    let restarted = answer(sandbox.at(INTERPRETER, Method::POST, &format!("/contexts/{id}/restart"))).await;
    assert_eq!((restarted.status, restarted.text().as_str()), (200, "null"));
    let lines = run("x").await;
    assert_eq!((&lines[0]["execution_count"], &lines[1]["name"]), (&json!(1), &json!("NameError")));
    let remove = || sandbox.at(INTERPRETER, Method::DELETE, &format!("/contexts/{id}"));
    assert_eq!(answer(remove()).await.status, 200);
    let gone = answer(remove()).await;
    assert_eq!((gone.status, gone.text()), (404, format!("Context {id} not found")));
}

async fn a_context_starts_in_any_directory_that_its_user_may_enter() {
    let sandbox = Sandbox::interpreted().await;
    sandbox.shell("sudo mkdir -m 700 /closed; sudo mkdir -m 755 /open; touch /tmp/file").await;
    for cwd in ["/root", "/open", "/", "/proc", "/usr/bin"] {
        let created = post(sandbox, "/contexts", json!({"cwd": cwd})).await;
        assert_eq!(created.status, 200, "{cwd}: {}", created.text());
        let id = created.json()["id"].clone();
        let lines = sandbox.execute(&json!({"code": "import os; os.getcwd()", "context_id": id})).await;
        assert_eq!(lines[1]["text"], cwd);
        let path = format!("/contexts/{}", id.as_str().expect("an id"));
        assert_eq!(answer(sandbox.at(INTERPRETER, Method::DELETE, &path)).await.status, 200);
    }
    // What root's home holds is the user's to change, as everything in its sandbox is.
    sandbox.shell("cd /root && echo x > own && rm own").await;
    for (cwd, reason) in [
        ("/no/such/place", "does not exist"),
        ("/tmp/file", "is not a directory"),
        ("/tmp/file/below", "is not a directory"),
        ("/closed", "cannot be entered"),
        ("/closed/below", "cannot be entered"),
    ] {
        let refused = post(sandbox, "/contexts", json!({"cwd": cwd})).await;
        assert_eq!(refused.status, 400, "{cwd}: {}", refused.text());
        assert!(refused.text().starts_with(&format!("cwd '{cwd}' {reason}")), "{}", refused.text());
    }
    let unknown = post(sandbox, "/contexts", json!({"cwd": "/tmp", "language": "nolang"})).await;
    assert!(unknown.status == 500 && unknown.text().contains("The 'nolang' kernel is not available"));
}

async fn mistakes_are_answered_as_the_vendor_answers_them() {
    let sandbox = Sandbox::interpreted().await;
    let both = post(sandbox, "/execute", json!({"code": "1", "context_id": "x", "language": "python"})).await;
    assert_eq!((both.status, both.text().as_str()), (400, "Only one of context_id or language can be provided"));
    for path in ["/contexts/nobody/restart", "/execute"] {
        let unknown = post(sandbox, path, json!({"code": "1", "context_id": "nobody"})).await;
        assert_eq!((unknown.status, unknown.text().as_str()), (404, "Context nobody not found"), "{path}");
    }
    for path in ["/contexts", "/execute"] {
        let unknown = post(sandbox, path, json!({"code": "1", "language": "nolang"})).await;
        assert_eq!(unknown.status, 500);
        assert!(unknown.text().starts_with("Failed to create context: {"), "{}", unknown.text());
        assert!(unknown.text().contains("The 'nolang' kernel is not available"), "{}", unknown.text());
    }
    let bodies = [
        "",
        "{",
        "[]",
        "null",
        "{}",
        "{\"code\": 1}",
        "{\"code\": null}",
        "{\"code\": \"1\", \"context_id\": 1}",
        "{\"code\": \"1\", \"language\": {}}",
        "{\"code\": \"1\", \"env_vars\": []}",
        "{\"code\": \"1\", \"env_vars\": {\"A\": 1}}",
        "{\"code\": \"\\ud800\"}",
    ];
    for body in bodies {
        let refused = answer(sandbox.at(INTERPRETER, Method::POST, "/execute").body(body)).await;
        assert_eq!(refused.status, 422, "{body}: {}", refused.text());
        assert!(refused.json()["detail"][0]["msg"].is_string(), "{body}: {}", refused.text());
    }
    let missing = answer(sandbox.at(INTERPRETER, Method::GET, "/nowhere")).await;
    assert_eq!((missing.status, missing.json()), (404, json!({"detail": "Not Found"})));
    let method = answer(sandbox.at(INTERPRETER, Method::GET, "/execute")).await;
    assert_eq!((method.status, method.json()), (405, json!({"detail": "Method Not Allowed"})));
    assert_eq!(sandbox.execute(&json!({"code": "1"})).await.len(), 3);
}

async fn variables_of_an_execution_are_gone_after_it() {
    let sandbox =
        Sandbox::create(json!({"templateID": "code-interpreter-v1", "envVars": {"OWN": "all", "B": "b"}})).await;
    let run = async |env: Value| {
        let code = "import os; print(os.environ['OWN'], os.environ.get('NEW'), os.environ['E2B_SANDBOX'], end='')";
        let lines = sandbox.execute(&json!({"code": code, "env_vars": env})).await;
        lines
            .iter()
            .filter(|line| line["type"] == "stdout")
            .filter_map(|line| line["text"].as_str())
            .collect::<String>()
    };
    assert_eq!(run(json!({"OWN": "one'\"\n", "NEW": "two"})).await, "one'\"\n two true");
    assert_eq!(run(json!(null)).await, "all None true");
    let envs = answer(sandbox.envd(Method::GET, "/envs")).await;
    assert_eq!(envs.status, 200);
    is_as_recorded("envs", envs.json());
    answer(sandbox.at(49983, Method::GET, "/envs")).await.error(401);
    sandbox.kill().await;
}

async fn an_execution_waits_for_the_one_before_it_in_its_context() {
    let sandbox = Sandbox::interpreted().await;
    let (own, other) = (context(sandbox, "python").await, context(sandbox, "python").await);
    let first = begin(sandbox, &own, &format!("{}; x = 1", until("/tmp/before"))).await;
    let (next, beside) = (json!({"code": "x", "context_id": own}), json!({"code": "2", "context_id": other}));
    let next = sandbox.execute(&next);
    let rest = in_time(async {
        assert_eq!(sandbox.execute(&beside).await[1]["text"], "2", "another context does not wait");
        sandbox.shell("touch /tmp/before").await;
        ends_in_order(first).await
    });
    let (next, in_order) = tokio::join!(next, rest);
    assert_eq!(next.iter().find(|line| line["type"] == "result").expect("a result")["text"], "1");
    assert!(in_order);
}
