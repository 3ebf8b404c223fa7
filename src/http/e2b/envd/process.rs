//! `process.Process`: commands in a sandbox.
//!
//! Source: e2b-dev/infra, `packages/envd/spec/process/process.proto`.

use std::sync::Arc;

use axum::extract::Extension;
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Value, json};

use super::connect::{self, Messages, ServerStreaming, StreamError, StreamTimeouts, Unary};
use super::error::{Code, ConnectError};
use super::user::User;
use crate::http::json::Pairs;
use crate::http::origin::Source;
use crate::protocol::{self, ProcessEnd, ProcessEvent, ProcessInfo, ProcessSelector, StartProcess, TerminalSize};
use crate::sandbox::{OperationError, Sandbox};

type UnaryResult = Result<Json<Value>, ConnectError>;

pub(in crate::http::e2b) fn routes() -> Router {
    Router::new()
        .route("/process.Process/List", post(list))
        .route("/process.Process/Start", post(start))
        .route("/process.Process/Connect", post(attach))
        .route("/process.Process/Update", post(update))
        .route("/process.Process/SendInput", post(send_input))
        .route("/process.Process/SendSignal", post(send_signal))
        .route("/process.Process/CloseStdin", post(close_stdin))
}

/// Returns the route of input streams. Their bodies may pause for any time, because people type them.
pub(in crate::http::e2b) fn input_routes() -> Router {
    Router::new().route("/process.Process/StreamInput", post(stream_input))
}

#[derive(Debug, Deserialize)]
struct ListRequest {}

async fn list(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    Unary(ListRequest {}): Unary<ListRequest>,
) -> Result<Response, ConnectError> {
    let processes = sandbox.processes().await?;
    Ok(connect::list_response("processes", processes.map_ok(shape)))
}

fn shape(process: ProcessInfo) -> Value {
    let ProcessInfo { pid, tag, command, args, env, cwd } = process;
    let mut config = json!({"cmd": command, "args": args, "envs": env});
    config.as_object_mut().expect("an object").extend(cwd.map(|cwd| ("cwd".to_owned(), cwd.into())));
    let mut shape = json!({"config": config, "pid": pid});
    shape.as_object_mut().expect("an object").extend(tag.map(|tag| ("tag".to_owned(), tag.into())));
    shape
}

#[derive(Debug, Deserialize)]
struct StartRequest {
    process: ConfigRequest,
    pty: Option<PtyRequest>,
    tag: Option<String>,
    /// Whether the process has a standard input; true for clients that do not send this member.
    stdin: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct ConfigRequest {
    #[serde(default)]
    cmd: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    envs: Pairs,
    cwd: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PtyRequest {
    size: Option<SizeRequest>,
}

#[derive(Debug, Default, Deserialize)]
struct SizeRequest {
    #[serde(default)]
    cols: u16,
    #[serde(default)]
    rows: u16,
}

impl PtyRequest {
    fn size(self) -> TerminalSize {
        let SizeRequest { cols, rows } = self.size.unwrap_or_default();
        TerminalSize { cols, rows }
    }
}

/// Starts a process and streams its events. The process continues after the response ends. The client's timeout also
/// applies to the process; the agent enforces it.
async fn start(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    User(user): User,
    source: Source,
    timeouts: StreamTimeouts,
    ServerStreaming(request): ServerStreaming<StartRequest>,
) -> Result<Response, StreamError> {
    let StartRequest { process, pty, tag, stdin } = request;
    let start = StartProcess {
        command: process.cmd,
        args: process.args,
        env: process.envs.0,
        cwd: process.cwd.filter(|cwd| !cwd.is_empty()),
        user,
        pty: pty.map(PtyRequest::size),
        stdin: stdin.unwrap_or(true),
        tag,
        timeout_ms: timeouts.timeout.map(|timeout| timeout.as_millis().try_into().unwrap_or(u64::MAX)),
    };
    let events = sandbox.spawn(&start, source.by("command")).await?;
    Ok(connect::message_stream(messages(events), timeouts.with_grace(), keep_alive()))
}

#[derive(Debug, Deserialize)]
struct SelectRequest {
    process: Selector,
}

/// The process that a request is for: exactly one member must be set.
#[derive(Debug, Deserialize)]
struct Selector {
    pid: Option<u32>,
    tag: Option<String>,
}

impl Selector {
    fn check(self) -> Result<ProcessSelector, ConnectError> {
        match (self.pid, self.tag) {
            (Some(pid), None) => Ok(ProcessSelector::Pid(pid)),
            (None, Some(tag)) => Ok(ProcessSelector::Tag(tag)),
            _ => Err(ConnectError::invalid("process: either pid or tag must be set")),
        }
    }
}

/// Streams the events of a running process. The client's timeout ends only the response, because another request
/// started the process.
async fn attach(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    timeouts: StreamTimeouts,
    ServerStreaming(request): ServerStreaming<SelectRequest>,
) -> Result<Response, StreamError> {
    let events = sandbox.attach(&request.process.check()?).await?;
    Ok(connect::message_stream(messages(events), timeouts, keep_alive()))
}

/// Returns the messages of a process up to its end. Without an end event, the sandbox is lost.
fn messages(
    events: impl Stream<Item = Result<ProcessEvent, OperationError>> + Send + Unpin + 'static,
) -> impl Stream<Item = Result<Value, ConnectError>> + Send + Unpin + 'static {
    let messages = futures::stream::unfold(Some(events), |events| async {
        let mut events = events?;
        Some(match events.next().await {
            Some(Ok(ProcessEvent::Ended(end))) if end.timed_out => (Err(ConnectError::deadline_exceeded()), None),
            Some(Ok(event)) => {
                let over = matches!(event, ProcessEvent::Ended(_));
                (Ok(message(event)), (!over).then_some(events))
            }
            Some(Err(err)) => (Err(err.into()), None),
            None => (Err(ConnectError::lost()), None),
        })
    });
    messages.boxed()
}

fn keep_alive() -> Value {
    json!({"event": {"keepalive": {}}})
}

fn message(event: ProcessEvent) -> Value {
    let data = |stream: &str, data: Bytes| json!({"data": {stream: BASE64_STANDARD.encode(data)}});
    let event = match event {
        ProcessEvent::Started { pid } => json!({"start": {"pid": pid}}),
        ProcessEvent::Stdout { data: bytes } => data("stdout", bytes),
        ProcessEvent::Stderr { data: bytes } => data("stderr", bytes),
        ProcessEvent::Pty { data: bytes } => data("pty", bytes),
        ProcessEvent::Ended(end) => json!({"end": end_shape(end)}),
    };
    json!({"event": event})
}

/// Renders the end of a process as Go's `os.ProcessState` describes it.
fn end_shape(ProcessEnd { exit_code, signal, .. }: ProcessEnd) -> Value {
    match (exit_code, signal) {
        (Some(0), _) => json!({"exitCode": 0, "exited": true, "status": "exit status 0"}),
        (Some(code), _) => {
            let status = format!("exit status {code}");
            json!({"exitCode": code, "exited": true, "status": status, "error": status})
        }
        (None, signal) => {
            let status = format!("signal: {}", signal_description(signal.unwrap_or_default()));
            json!({"exitCode": -1, "exited": false, "status": status, "error": status})
        }
    }
}

/// Returns Go's description of a signal.
fn signal_description(signal: i32) -> String {
    const DESCRIPTIONS: [&str; 15] = [
        "hangup",
        "interrupt",
        "quit",
        "illegal instruction",
        "trace/breakpoint trap",
        "aborted",
        "bus error",
        "floating point exception",
        "killed",
        "user defined signal 1",
        "segmentation fault",
        "user defined signal 2",
        "broken pipe",
        "alarm clock",
        "terminated",
    ];
    let description = usize::try_from(signal).ok().and_then(|signal| DESCRIPTIONS.get(signal.checked_sub(1)?));
    description.map_or_else(|| format!("signal {signal}"), |description| (*description).to_owned())
}

#[derive(Debug, Deserialize)]
struct UpdateRequest {
    process: Selector,
    pty: Option<PtyRequest>,
}

async fn update(Extension(sandbox): Extension<Arc<Sandbox>>, Unary(request): Unary<UpdateRequest>) -> UnaryResult {
    let process = request.process.check()?;
    if let Some(pty) = request.pty {
        sandbox.resize_terminal(&process, pty.size()).await?;
    }
    Ok(Json(json!({})))
}

#[derive(Debug, Deserialize)]
struct SendInputRequest {
    process: Selector,
    input: InputRequest,
}

/// Input in base64: exactly one member must be set.
#[derive(Debug, Deserialize)]
struct InputRequest {
    stdin: Option<String>,
    pty: Option<String>,
}

async fn send_input(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    Unary(request): Unary<SendInputRequest>,
) -> UnaryResult {
    input(&sandbox, &request.process.check()?, request.input).await?;
    Ok(Json(json!({})))
}

async fn input(sandbox: &Sandbox, process: &ProcessSelector, input: InputRequest) -> Result<(), ConnectError> {
    let decode = |text: String| {
        let bytes = BASE64_STANDARD.decode(text).map_err(|err| ConnectError::invalid(format!("input: {err}")))?;
        Ok::<_, ConnectError>(Bytes::from(bytes))
    };
    let written = match (input.stdin, input.pty) {
        (Some(text), None) => sandbox.write_stdin(process, decode(text)?).await,
        (None, Some(text)) => sandbox.write_terminal(process, decode(text)?).await,
        _ => return Err(ConnectError::invalid("input: either stdin or pty must be set")),
    };
    written.map_err(|err| input_error(err, Code::Internal))
}

/// Converts an error of an input. If the input is closed or does not exist, the code is `code`, as in E2B's envd.
fn input_error(err: OperationError, code: Code) -> ConnectError {
    match err {
        OperationError::Refused { code: protocol::Code::FailedPrecondition, message } => {
            ConnectError::new(code, message)
        }
        err => err.into(),
    }
}

/// A message of an input stream: at most one member may be set. Without any, it keeps the connection alive.
#[derive(Debug, Deserialize)]
struct StreamInputRequest {
    start: Option<SelectRequest>,
    data: Option<DataRequest>,
}

#[derive(Debug, Deserialize)]
struct DataRequest {
    input: InputRequest,
}

async fn stream_input(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    mut messages: Messages<StreamInputRequest>,
) -> Result<Response, StreamError> {
    let mut process = None;
    while let Some(StreamInputRequest { start, data }) = messages.next().await? {
        if start.is_some() && data.is_some() {
            return Err(ConnectError::invalid("a message must have either `start` or `data`").into());
        }
        if let Some(start) = start {
            process = Some(start.process.check()?);
        }
        if let Some(data) = data {
            let process = process.as_ref().ok_or_else(|| ConnectError::invalid("the first message must be `start`"))?;
            input(&sandbox, process, data.input).await?;
        }
    }
    Ok(connect::empty_response())
}

#[derive(Debug, Deserialize)]
struct SendSignalRequest {
    process: Selector,
    signal: SignalRequest,
}

/// A protobuf enum, which in JSON is a name or a number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum SignalRequest {
    Name(String),
    Number(i32),
}

impl SignalRequest {
    fn number(&self) -> Result<i32, ConnectError> {
        match self {
            Self::Number(number @ (9 | 15)) => Ok(*number),
            Self::Name(name) if name == "SIGNAL_SIGKILL" => Ok(9),
            Self::Name(name) if name == "SIGNAL_SIGTERM" => Ok(15),
            Self::Name(_) | Self::Number(_) => Err(ConnectError::invalid("signal: must be SIGTERM or SIGKILL")),
        }
    }
}

async fn send_signal(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    Unary(request): Unary<SendSignalRequest>,
) -> UnaryResult {
    sandbox.signal(&request.process.check()?, request.signal.number()?).await?;
    Ok(Json(json!({})))
}

async fn close_stdin(Extension(sandbox): Extension<Arc<Sandbox>>, Unary(request): Unary<SelectRequest>) -> UnaryResult {
    let closing = sandbox.close_stdin(&request.process.check()?).await;
    closing.map_err(|err| input_error(err, Code::Unknown))?;
    Ok(Json(json!({})))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(exit_code: Option<i32>, signal: Option<i32>) -> ProcessEvent {
        ProcessEvent::Ended(ProcessEnd { exit_code, signal, timed_out: false })
    }

    #[test]
    fn events_have_the_form_of_envd() {
        let data = ProcessEvent::Stdout { data: Bytes::from_static(b"hi\n") };
        assert_eq!(message(data), json!({"event": {"data": {"stdout": "aGkK"}}}));
        assert_eq!(message(ProcessEvent::Started { pid: 7 }), json!({"event": {"start": {"pid": 7}}}));
        let end = |event| message(event)["event"]["end"].clone();
        assert_eq!(end(ended(Some(0), None)), json!({"exitCode": 0, "exited": true, "status": "exit status 0"}));
        let three = json!({"exitCode": 3, "exited": true, "status": "exit status 3", "error": "exit status 3"});
        assert_eq!(end(ended(Some(3), None)), three);
        let killed = json!({"exitCode": -1, "exited": false, "status": "signal: killed", "error": "signal: killed"});
        assert_eq!(end(ended(None, Some(9))), killed);
        assert_eq!(end(ended(None, Some(15)))["status"], "signal: terminated");
        assert_eq!(end(ended(None, Some(64)))["status"], "signal: signal 64");
    }

    #[tokio::test]
    async fn a_stream_without_an_end_event_fails_as_lost() {
        let started = || Ok(ProcessEvent::Started { pid: 7 });
        let cut: Vec<_> = messages(futures::stream::iter([started()])).collect().await;
        assert!(matches!(cut.as_slice(), [Ok(_), Err(err)] if err.code == Code::Unavailable), "{cut:?}");
        let whole: Vec<_> = messages(futures::stream::iter([started(), Ok(ended(Some(0), None))])).collect().await;
        assert!(matches!(whole.as_slice(), [Ok(_), Ok(_)]), "{whole:?}");
        let end = ProcessEnd { exit_code: None, signal: Some(9), timed_out: true };
        let late: Vec<_> = messages(futures::stream::iter([Ok(ProcessEvent::Ended(end))])).collect().await;
        assert!(matches!(late.as_slice(), [Err(err)] if err.code == Code::DeadlineExceeded), "{late:?}");
    }

    #[test]
    fn requests_may_omit_members() {
        let request: StartRequest = serde_json::from_value(json!({"process": {"cmd": "ls"}, "x": 1})).expect("a start");
        assert!(request.stdin.is_none() && request.process.args.is_empty());
        let select = |value: Value| serde_json::from_value::<Selector>(value).expect("a selector").check().ok();
        assert_eq!(select(json!({"pid": 3})), Some(ProcessSelector::Pid(3)));
        assert_eq!(select(json!({"tag": "t"})), Some(ProcessSelector::Tag("t".to_owned())));
        assert_eq!(select(json!({})), None);
        let signal = |value: Value| serde_json::from_value::<SignalRequest>(value).expect("a signal").number().ok();
        assert_eq!(signal(json!("SIGNAL_SIGTERM")), Some(15));
        assert_eq!(signal(json!(9)), Some(9));
        assert_eq!(signal(json!("SIGNAL_SIGHUP")), None);
    }
}
