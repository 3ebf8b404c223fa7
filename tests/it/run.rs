//! `POST /v1/run`, whatever the language.

use crate::support::{server, stdout};

trials![code_that_runs_is_ok, code_that_raises_is_a_200_with_its_traceback];

async fn code_that_runs_is_ok() {
    let answer = server().run("js", "console.log('hello'); 1 + 1").await;
    assert_eq!(stdout(&answer), "hello\n");
    assert_eq!(answer["results"][0], "2");
    assert_eq!(answer["outcome"]["kind"], "ok");
    assert!(answer.get("error").is_none());
}

async fn code_that_raises_is_a_200_with_its_traceback() {
    let answer = server().run("js", "null.x").await;
    assert_eq!(answer["outcome"]["kind"], "exception");
    assert_eq!(answer["exception"]["name"], "TypeError");
    assert_eq!(answer["error"], answer["exception"]["traceback"]);
}
