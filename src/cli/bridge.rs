//! The bridge of `oncebox mcp` to a running server: each request on standard input is one `POST /mcp`, whose messages are
//! lines on standard output.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, TryStreamExt};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;

use super::with_causes;

/// The longest line in either direction.
const MAX_LINE: usize = 256 << 20;
/// How long answers are waited for at the end of standard input.
const DRAIN: Duration = Duration::from_secs(5);
/// The longest time to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// The code of an error that is not one of the protocol.
const INTERNAL_ERROR: i64 = -32603;

/// A client of one server.
#[derive(Debug, Clone)]
pub(super) struct Bridge {
    http: reqwest::Client,
    url: String,
    with_images: bool,
    /// The version that the client and the server have agreed on, if that was at the beginning.
    version: Arc<Mutex<Option<String>>>,
}

impl Bridge {
    /// Creates a bridge to the server with this address.
    pub(super) fn new(url: &str, key: Option<&str>, with_images: bool) -> Result<Self, Box<dyn Error>> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if let Some(key) = key {
            let mut key = HeaderValue::from_str(key).map_err(|_| "ONCEBOX_API_KEY must be visible ASCII characters")?;
            key.set_sensitive(true);
            headers.insert("x-api-key", key);
        }
        let http = reqwest::Client::builder().default_headers(headers).connect_timeout(CONNECT).build()?;
        let url = reqwest::Url::parse(url).map_err(|err| format!("ONCEBOX_URL: {err}, as in http://127.0.0.1:3000"))?;
        let url = url.as_str().trim_end_matches('/');
        let url = format!("{}/mcp", url.strip_suffix("/mcp").unwrap_or(url));
        Ok(Self { http, url, with_images, version: Arc::default() })
    }

    /// Serves the client until it closes standard input. Answers that are not there five seconds later are dropped, which
    /// ends their runs.
    pub(super) async fn serve(&self) -> io::Result<()> {
        let (sender, mut answers) = mpsc::channel::<Value>(16);
        let writer = tokio::spawn(async move {
            let mut output = tokio::io::stdout();
            while let Some(answer) = answers.recv().await {
                output.write_all(format!("{answer}\n").as_bytes()).await?;
                output.flush().await?;
            }
            io::Result::Ok(())
        });
        let mut requests = Requests::default();
        let mut lines = FramedRead::new(tokio::io::stdin(), LinesCodec::new_with_max_length(MAX_LINE));
        loop {
            let line = tokio::select! {
                line = lines.next() => line,
                Some(_) = requests.tasks.join_next() => continue,
            };
            match line {
                None => break,
                Some(line) => self.take(&line.map_err(io::Error::other)?, &mut requests, &sender).await,
            }
            if sender.is_closed() {
                break;
            }
        }
        drop(sender);
        let _ = tokio::time::timeout(DRAIN, async { while requests.tasks.join_next().await.is_some() {} }).await;
        requests.tasks.shutdown().await;
        writer.await.map_err(io::Error::other)?
    }

    /// Takes a line of the client.
    async fn take(&self, line: &str, requests: &mut Requests, answers: &mpsc::Sender<Value>) {
        if line.trim().is_empty() {
            return;
        }
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            let error = json!({"code": -32700, "message": "the line: must be one JSON-RPC message"});
            let _ = answers.send(json!({"jsonrpc": "2.0", "id": null, "error": error})).await;
            return;
        };
        let method = message["method"].as_str();
        match (method, message.get("id")) {
            // To drop its answer is how the server is shown that it is not needed.
            (Some("notifications/cancelled"), None) => requests.cancel(&message["params"]["requestId"]),
            // Other notifications change nothing on a server without sessions, and it sends no requests to be answered.
            (_, None) | (None, _) => {}
            (Some(_), Some(id)) => {
                let (bridge, id, answers) = (self.clone(), id.clone(), answers.clone());
                requests.begin(&id.clone(), async move {
                    if let Err(error) = bridge.forward(message, &id, &answers).await {
                        let _ = answers.send(json!({"jsonrpc": "2.0", "id": id, "error": error})).await;
                    }
                });
            }
        }
    }

    /// Sends a request, and the messages of its answer to the client. The error is one that the server has not sent as the
    /// answer itself.
    async fn forward(&self, message: Value, id: &Value, answers: &mpsc::Sender<Value>) -> Result<(), Value> {
        let request = self.http.post(&self.url).headers(self.headers(&message)).json(&message);
        let response = request.send().await.map_err(lost)?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("text/event-stream") {
            let status = response.status();
            let text = response.text().await.map_err(lost)?;
            let answer: Value = serde_json::from_str(&text).unwrap_or_default();
            if answer["id"] == *id {
                self.pass(answer, &message, answers).await;
                return Ok(());
            }
            return match &answer["error"] {
                error if error["code"].is_i64() => Err(error.clone()),
                error => {
                    let reason = error["message"].as_str().unwrap_or(&text);
                    Err(json!({"code": INTERNAL_ERROR, "message": format!("the server answered {status}: {reason}")}))
                }
            };
        }
        let bytes = StreamReader::new(response.bytes_stream().map_err(io::Error::other));
        let mut lines = FramedRead::new(bytes, LinesCodec::new_with_max_length(MAX_LINE));
        let mut is_answered = false;
        while let Some(Ok(line)) = lines.next().await {
            let Some(data) = line.strip_prefix("data:") else { continue };
            let Ok(answer) = serde_json::from_str::<Value>(data) else { continue };
            is_answered |= answer["id"] == *id;
            self.pass(answer, &message, answers).await;
        }
        match is_answered {
            true => Ok(()),
            false => Err(json!({"code": INTERNAL_ERROR, "message": "the server ended its answer too early"})),
        }
    }

    /// Returns the headers that repeat the body.
    fn headers(&self, message: &Value) -> HeaderMap {
        let agreed = self.version.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let params = &message["params"];
        let version = params["_meta"]["io.modelcontextprotocol/protocolVersion"].as_str().map(str::to_owned);
        let version = version.or(if message["method"] == "initialize" { None } else { agreed });
        let method = message["method"].as_str().map(str::to_owned);
        let name = ["name", "uri"].iter().find_map(|member| params[*member].as_str()).map(str::to_owned);
        let all = [("mcp-protocol-version", version), ("mcp-method", method), ("mcp-name", name)];
        let values = all.into_iter().filter_map(|(name, value)| Some((name, header_value(&value?)?)));
        values.map(|(name, value)| (reqwest::header::HeaderName::from_static(name), value)).collect()
    }

    /// Passes a message on to the client.
    async fn pass(&self, mut answer: Value, request: &Value, answers: &mpsc::Sender<Value>) {
        if request["method"] == "initialize"
            && let Some(version) = answer["result"]["protocolVersion"].as_str()
        {
            *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Some(version.to_owned());
        }
        if !self.with_images {
            omit_images(&mut answer);
        }
        let _ = answers.send(answer).await;
    }
}

/// The requests that are not answered.
#[derive(Debug, Default)]
struct Requests {
    tasks: JoinSet<()>,
    by_id: HashMap<String, AbortHandle>,
}

impl Requests {
    fn begin(&mut self, id: &Value, request: impl Future<Output = ()> + Send + 'static) {
        self.by_id.retain(|_, task| !task.is_finished());
        let task = self.tasks.spawn(request);
        self.by_id.insert(id.to_string(), task);
    }

    fn cancel(&mut self, id: &Value) {
        if let Some(task) = self.by_id.remove(&id.to_string()) {
            task.abort();
        }
    }
}

/// Returns the error of a request that the server has not answered.
fn lost(err: reqwest::Error) -> Value {
    let reason = with_causes(&err.without_url());
    json!({"code": INTERNAL_ERROR, "message": format!("the server at ONCEBOX_URL: {reason}")})
}

/// Returns the value of a header, encoded if a header cannot have it as it is.
fn header_value(value: &str) -> Option<HeaderValue> {
    let is_plain = value.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        && value.trim() == value
        && !value.starts_with("=?base64?");
    match is_plain {
        true => HeaderValue::from_str(value).ok(),
        false => HeaderValue::from_str(&format!("=?base64?{}?=", STANDARD.encode(value))).ok(),
    }
}

/// Removes the images of a result.
fn omit_images(answer: &mut Value) {
    let Some(content) = answer.pointer_mut("/result/content").and_then(Value::as_array_mut) else { return };
    let before = content.len();
    content.retain(|block| block["type"] != "image");
    let omitted = before - content.len();
    if omitted > 0 {
        let text = format!("images: {omitted}, as this client gets none");
        content.push(json!({"type": "text", "text": text}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_header_cannot_have_is_encoded() {
        let value = |text: &str| header_value(text).map(|value| value.to_str().expect("ASCII").to_owned());
        assert_eq!(value("run_code").as_deref(), Some("run_code"));
        assert_eq!(value("é").as_deref(), Some("=?base64?w6k=?="));
        assert_eq!(value("a\nb").as_deref(), Some("=?base64?YQpi?="));
        assert_eq!(value(" a").as_deref(), Some("=?base64?IGE=?="));
        assert_eq!(value("=?base64?YQ==?=").as_deref(), Some("=?base64?PT9iYXNlNjQ/WVE9PT89?="));
    }

    #[test]
    fn images_are_removed_from_results_only() {
        let mut answer = json!({"result": {"content": [{"type": "text", "text": "1"}, {"type": "image", "data": ""}]}});
        omit_images(&mut answer);
        let content = answer["result"]["content"].as_array().expect("a list");
        assert!(content.len() == 2 && content.iter().all(|block| block["type"] == "text"), "{answer}");
        let mut error = json!({"error": {"code": 1}});
        omit_images(&mut error);
        assert_eq!(error, json!({"error": {"code": 1}}));
    }
}
