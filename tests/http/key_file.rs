//! A file of keys, changed by `oncebox keys` as an operator does.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tempfile::TempDir;

use crate::e2b::{Answer, answer};
use crate::support::{Server, eventually, oncebox};

/// A file of keys in a directory of its own.
#[derive(Debug)]
pub(crate) struct KeyFile {
    directory: TempDir,
}

impl KeyFile {
    /// A file with a key for each of these lists of arguments of `oncebox keys add`; returns the keys too.
    pub(crate) fn with<const N: usize>(keys: [&[&str]; N]) -> (Self, [String; N]) {
        let file = Self { directory: tempfile::tempdir().expect("a directory") };
        let keys = keys.map(|arguments| file.add(arguments));
        (file, keys)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("keys.toml")
    }

    /// Starts a server without warm sandboxes that reads the file.
    pub(crate) fn serve(&self, variables: &[(&str, &str)]) -> Server {
        let path = self.path();
        let own = ("ONCEBOX_KEYS", path.to_str().expect("text"));
        Server::start_cold(&variables.iter().copied().chain([own]).collect::<Vec<_>>())
    }

    /// Runs `oncebox keys`; returns what it prints, or the error.
    pub(crate) fn keys(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = oncebox();
        let output =
            command.arg("keys").args(arguments).env("ONCEBOX_KEYS", self.path()).output().expect("oncebox keys");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// Adds a key; returns it.
    pub(crate) fn add(&self, arguments: &[&str]) -> String {
        let arguments: Vec<_> = std::iter::once("add").chain(arguments.iter().copied()).collect();
        self.keys(&arguments).expect("it is added").trim_end().to_owned()
    }

    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.path()).expect("the file")
    }

    /// Replaces the content of the file, in place, as an editor may do.
    pub(crate) fn write(&self, text: &str) {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(self.path());
        file.expect("the file").write_all(text.as_bytes()).expect("the file");
    }
}

/// A request with this key.
pub(crate) fn with_key(server: &Server, key: &str, method: Method, path: &str) -> RequestBuilder {
    server.http.request(method, format!("{}{path}", server.url)).header("x-api-key", key)
}

/// The answer to a request with this key; the body is JSON, if there is one.
pub(crate) async fn send(server: &Server, key: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
    let request = with_key(server, key, method, path);
    answer(match body {
        Some(body) => request.json(&body),
        None => request,
    })
    .await
}

/// Whether the server accepts a key.
pub(crate) async fn is_accepted(server: &Server, key: &str) -> bool {
    let status = send(server, key, Method::GET, "/v1/languages", None).await.status;
    assert!([200, 401].contains(&status), "{status}");
    status == 200
}

/// Waits until the server accepts a key.
pub(crate) async fn until_accepted(server: &Server, key: &str) {
    eventually("the key is accepted", async || is_accepted(server, key).await).await;
}

/// Waits until the server refuses a key.
pub(crate) async fn until_refused(server: &Server, key: &str) {
    eventually("the key is refused", async || !is_accepted(server, key).await).await;
}
