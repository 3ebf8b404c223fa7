//! Input of commands: empty, bytes, and streams of both.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use super::kept::{Kept, STREAM, bash};
use crate::e2b::{ENVD, Stream, envelope, stdout};

fn input(pid: u64, text: &str) -> Value {
    json!({"process": {"pid": pid}, "input": {"stdin": BASE64_STANDARD.encode(text)}})
}

/// The command that gets many empty inputs. Its shell creates the file after the start was answered.
async fn reader(kept: &Kept) -> u64 {
    let start = async || {
        let pid = kept.background("exec cat > /tmp/read", true).await;
        kept.until_there("/tmp/read").await;
        pid
    };
    *kept.reader.get_or_init(start).await
}

pub(super) async fn of_nothing(kept: &Kept, number: u64) {
    let pid = reader(kept).await;
    assert_eq!(kept.done("process.Process/SendInput", input(pid, "")).await, json!({}));
    if number.is_multiple_of(50) {
        assert_eq!(kept.read("/tmp/read").await.text(), "");
    }
}

pub(super) async fn of_bytes(kept: &Kept, number: u64) {
    let mut stream = kept.stream("process.Process/Start", bash("exec cat", true)).await;
    let pid = stream.pid().await;
    let lines = [format!("{number}\n"), String::new(), "x".repeat(number as usize % 10_000), "\n".to_owned()];
    for line in &lines {
        assert_eq!(kept.done("process.Process/SendInput", input(pid, line)).await, json!({}));
    }
    assert_eq!(kept.done("process.Process/CloseStdin", json!({"process": {"pid": pid}})).await, json!({}));
    ends_with(stream, &lines.concat()).await;
}

async fn ends_with(mut stream: Stream, expected: &str) {
    let messages = stream.rest().await.expect("it is not broken off");
    assert_eq!(stdout(&messages), expected);
    assert_eq!(messages[messages.len() - 2]["event"]["end"]["exitCode"], 0);
}

/// The envelopes of one request, some of which are empty.
fn envelopes(pid: u64, number: u64) -> Vec<Vec<u8>> {
    let data = |text: &str| json!({"data": {"input": {"stdin": BASE64_STANDARD.encode(text)}}});
    let messages = [
        json!({"start": {"process": {"pid": pid}}}),
        data(&number.to_string()),
        data(""),
        json!({"keepalive": {}}),
        data(""),
        data("\n"),
    ];
    messages.iter().map(|message| envelope(0, message.to_string().as_bytes())).collect()
}

pub(super) async fn streamed(kept: &Kept, number: u64) {
    let mut stream = kept.stream("process.Process/Start", bash("exec cat", true)).await;
    let pid = stream.pid().await;
    let request = kept.envd(Method::POST, "/process.Process/StreamInput").header("content-type", STREAM);
    let mut answer = Stream::new(request.body(envelopes(pid, number).concat()).send().await.expect("an answer"));
    assert_eq!(answer.rest().await.expect("an end"), [json!({}), json!({})]);
    assert_eq!(kept.done("process.Process/CloseStdin", json!({"process": {"pid": pid}})).await, json!({}));
    ends_with(stream, &format!("{number}\n")).await;
}

/// The client hangs up after some messages and a part of one.
pub(super) async fn broken_off(kept: &Kept, number: u64) {
    let pid = reader(kept).await;
    let data = json!({"data": {"input": {"stdin": ""}}}).to_string();
    let start = json!({"start": {"process": {"pid": pid}}}).to_string();
    let whole = [envelope(0, start.as_bytes()), envelope(0, data.as_bytes()), envelope(0, data.as_bytes())].concat();
    let sent = &whole[..number as usize % whole.len()];
    let head = kept.head(ENVD, "POST", "/process.Process/StreamInput");
    let head = format!("{head}content-type: {STREAM}\r\ncontent-length: 1000\r\n\r\n");
    kept.send_and_leave(&[head.as_bytes(), sent].concat()).await;
    if number.is_multiple_of(50) {
        assert_eq!(kept.read("/tmp/read").await.text(), "");
    }
}
