//! A terminal that gets input and is resized.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::kept::Kept;
use crate::e2b::Stream;

/// Reads until the terminal shows a text.
async fn until_shown(stream: &mut Stream, shown: &mut String, text: &str) {
    while !shown.contains(text) {
        let message = stream.message().await;
        let data = message["event"]["data"]["pty"].as_str().unwrap_or_else(|| panic!("{message}, after {shown:?}"));
        shown.push_str(&String::from_utf8_lossy(&BASE64_STANDARD.decode(data).expect("base64")));
    }
}

pub(super) async fn typed_into_and_resized(kept: &Kept, number: u64) {
    let process = json!({"cmd": "/bin/bash", "args": ["--norc"], "envs": {"PS1": "> "}});
    let start = json!({"process": process, "pty": {"size": {"cols": 80, "rows": 24}}});
    let mut stream = kept.stream("process.Process/Start", start).await;
    let (pid, mut shown) = (stream.pid().await, String::new());
    let selected = json!({"pid": pid});
    let typed = |text: &str| json!({"process": selected, "input": {"pty": BASE64_STANDARD.encode(text)}});
    let type_in = async |text: &str| kept.done("process.Process/SendInput", typed(text)).await;
    until_shown(&mut stream, &mut shown, "> ").await;
    // One key at a time, as a person types.
    for key in ["e", "c", "h", "o", "", " $", "((", "1+1", "))a", "\n"] {
        assert_eq!(type_in(key).await, json!({}));
    }
    until_shown(&mut stream, &mut shown, "2a").await;
    let (rows, cols): (Value, Value) = ((20 + number % 50).into(), (90 + number % 50).into());
    let size = json!({"process": selected, "pty": {"size": {"cols": cols, "rows": rows}}});
    assert_eq!(kept.done("process.Process/Update", size).await, json!({}));
    type_in("stty size\n").await;
    until_shown(&mut stream, &mut shown, &format!("{rows} {cols}")).await;
    type_in("exit 7\n").await;
    let messages = stream.rest().await.expect("it is not broken off");
    assert_eq!(messages[messages.len() - 2]["event"]["end"]["exitCode"], 7, "{messages:?}");
}
