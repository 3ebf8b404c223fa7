//! The tools of the tests: a server, runs on it, and access to the engine.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

#[path = "panics.rs"]
pub(crate) mod panics;
#[path = "times.rs"]
pub(crate) mod times;

/// Lists the test functions of a module as its `trials()`. Those after `rare:` only run in `make test-all`: they take
/// long, and what they find has seldom been news.
macro_rules! trials {
    ($($name:ident),* $(,)? $(; rare: $($rare:ident),* $(,)?)?) => {
        pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
            vec![
                $($crate::support::trial(module_path!(), stringify!($name), $name),)*
                $($($crate::support::trial(module_path!(), stringify!($rare), $rare).with_ignored_flag(true),)*)?
            ]
        }
    };
}

/// A test: an async function that panics if it fails.
pub(crate) fn trial<F>(module: &str, name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    let module = module.rsplit("::").next().unwrap_or(module);
    let name = format!("{module}::{name}");
    Trial::test(name.clone(), move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        times::timed(name, || panics::caught(|| runtime.expect("a runtime").block_on(test())))
    })
}

/// The factor by which tests wait longer on a slow machine: `PATIENCE` in the environment. With it, the shared server
/// keeps nothing warm.
fn patience() -> Option<u32> {
    std::env::var("PATIENCE").ok().map(|factor| factor.parse().expect("PATIENCE is a number"))
}

/// The time after this duration, which is longer on a slow machine.
fn deadline(usual: Duration) -> Instant {
    Instant::now() + usual * patience().unwrap_or(1)
}

/// Waits until a condition holds; panics with `what` after half a minute.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = deadline(Duration::from_secs(30));
    while !holds().await {
        assert!(Instant::now() < deadline, "did not come true in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A running `oncebox serve` with its own owner.
pub(crate) struct Server {
    /// The address, with the scheme.
    pub(crate) url: String,
    /// The address for TLS, if the server listens for it.
    pub(crate) tls_url: Option<String>,
    /// The owner label.
    pub(crate) owner: String,
    pub(crate) http: reqwest::Client,
    child: Mutex<Option<Child>>,
    log: Arc<Mutex<Vec<String>>>,
}

static SHARED: OnceLock<Server> = OnceLock::new();

/// The server that tests share. It has the default templates, with fewer warm sandboxes.
pub(crate) fn server() -> &'static Server {
    SHARED.get_or_init(|| match patience() {
        Some(_) => Server::start_cold(&[]),
        None => Server::start(&[]),
    })
}

/// Stops the shared server, if a test has started it. False if it did not end well.
pub(crate) fn stop_shared() -> bool {
    SHARED.get().is_none_or(Server::stop)
}

/// Whether the engine has nothing left of any server of these tests.
pub(crate) fn nothing_is_left() -> bool {
    let prefix = owner_prefix();
    let left: Vec<_> =
        [docker(&["ps", "-a", "--format", "{{.Names}}"]), docker(&["network", "ls", "--format", "{{.Name}}"])]
            .iter()
            .flat_map(|names| names.lines())
            .filter(|name| name.contains(&prefix) && !is_miscounted(name))
            .map(str::to_owned)
            .collect();
    if !left.is_empty() {
        eprintln!("left on the engine after the tests: {left:?}");
    }
    left.is_empty()
}

/// Whether a network is one that nobody can remove: the daemon lists no container on it, but claims that it is in use.
/// Docker 20.10 has been seen to miscount like that, until it is restarted. Removes a network that can be removed.
pub(crate) fn is_miscounted(network: &str) -> bool {
    let inspect = ["network", "inspect", "--format", "{{len .Containers}}", network];
    let output = |arguments: &[&str]| Command::new("docker").args(arguments).output().expect("the docker command");
    let refusal =
        || String::from_utf8_lossy(&output(&["network", "rm", network]).stderr).contains("has active endpoints");
    let is_miscounted = output(&inspect).stdout == b"0\n" && refusal();
    if is_miscounted {
        eprintln!("the daemon has lost count of the endpoints of {network}");
    }
    is_miscounted
}

fn owner_prefix() -> String {
    format!("test-{}-", std::process::id())
}

/// The output of a docker command.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().expect("the docker command");
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Server {
    /// Starts a server with these variables over the defaults, and waits until it is ready.
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        Self::start_unready(variables).until_ready()
    }

    /// Starts a server for which a file of the machine has this content. Needs root.
    pub(crate) fn start_with(path: &str, content: &str, variables: &[(&str, &str)]) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(&file, content).expect("a file");
        let script = "mount --bind \"$CONTENT\" \"$FILE\" && exec \"$0\" \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(oncebox().get_program());
        command.env("CONTENT", file.path()).env("FILE", path);
        command.envs(oncebox().get_envs().filter_map(|(name, value)| Some((name, value?))));
        let cold = cold(variables);
        let cold: Vec<_> = cold.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Self::spawn(command, &cold).expect("it listens").until_ready()
    }

    fn until_ready(self) -> Self {
        let server = self;
        let deadline = deadline(Duration::from_secs(120));
        while !server.is_ready() {
            assert!(Instant::now() < deadline, "the server did not become ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// Starts a server and waits until it listens.
    pub(crate) fn start_unready(variables: &[(&str, &str)]) -> Self {
        Self::spawn(oncebox(), variables).expect("it listens")
    }

    /// Starts a server without warm sandboxes, except those that the variables set; returns the last line of its log if
    /// it ended instead.
    pub(crate) fn try_start_cold(variables: &[(&str, &str)]) -> Result<Self, String> {
        let cold = cold(variables);
        let cold: Vec<_> = cold.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Self::spawn(oncebox(), &cold).map(Self::until_ready)
    }

    fn spawn(mut command: Command, variables: &[(&str, &str)]) -> Result<Self, String> {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let owner = format!("{}{}", owner_prefix(), STARTED.fetch_add(1, Ordering::Relaxed));
        command
            .arg("serve")
            .env("ONCEBOX_LISTEN", "127.0.0.1:0")
            .env("ONCEBOX_OWNER", &owner)
            .env("ONCEBOX_TEMPLATES__PYTHON__WARM", "2")
            .env("ONCEBOX_TEMPLATES__NODE__WARM", "1")
            .env("ONCEBOX_TEMPLATES__TS__WARM", "1")
            .env("ONCEBOX_TEMPLATES__FULL__WARM", "0")
            .env("ONCEBOX_TEMPLATES__BASE__WARM", "0")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("oncebox serve");
        let mut log = BufReader::new(child.stderr.take().expect("its log"));
        let mut tls_url = None;
        let mut last = String::new();
        let url = loop {
            let mut line = String::new();
            let read = log.read_line(&mut line).expect("its log");
            if read == 0 {
                let _ = child.wait();
                return Err(last);
            }
            last.clone_from(&line);
            if let Some((_, url)) = line.split_once("listening on ") {
                let url = url.split_whitespace().next().expect("an address").to_owned();
                match url.starts_with("https:") {
                    true => tls_url = Some(url),
                    false => break url,
                }
            }
        };
        // Printed, so that a failing test shows the log, and read, so that the server never blocks.
        let kept = Arc::<Mutex<Vec<String>>>::default();
        let lines = Arc::clone(&kept);
        std::thread::spawn(move || {
            log.lines().map_while(Result::ok).for_each(|line| {
                // Stored first, because printing may block.
                lines.lock().expect("the log").push(line.clone());
                eprintln!("{line}");
            });
        });
        // Connections are not kept: each test has its own runtime, and a connection ends with the runtime that opened
        // it.
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().expect("a client");
        Ok(Self { url, tls_url, owner, http, child: Mutex::new(Some(child)), log: kept })
    }

    /// Starts a server without warm sandboxes, except those that the variables set. It starts quickly, and does nothing
    /// on its engine by itself.
    pub(crate) fn start_cold(variables: &[(&str, &str)]) -> Self {
        Self::try_start_cold(variables).expect("it listens")
    }

    /// Whether the server reports that it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        let address = self.url.trim_start_matches("http://");
        std::net::TcpStream::connect(address).is_ok_and(|mut stream| {
            use std::io::{Read, Write};
            let mut answer = String::new();
            let request = "GET /readyz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).is_ok()
                && stream.read_to_string(&mut answer).is_ok()
                && answer.starts_with("HTTP/1.1 200")
        })
    }

    /// Runs code that must be accepted; returns the answer.
    pub(crate) async fn run(&self, language: &str, code: &str) -> Value {
        self.run_with(json!({"language": language, "code": code})).await
    }

    /// Sends a whole run request that must be accepted; returns the answer.
    pub(crate) async fn run_with(&self, request: Value) -> Value {
        let (status, answer) = self.post("/v1/run", &request).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Posts JSON; returns the status and the JSON of the answer.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.http.post(format!("{}{path}", self.url)).json(body).send().await.expect("an answer");
        (response.status().as_u16(), response.json().await.expect("a JSON answer"))
    }

    /// Requests a run without waiting for the answer; aborting the task hangs up.
    pub(crate) fn begin(&self, request: Value) -> JoinHandle<(u16, Value)> {
        let response = self.http.post(format!("{}/v1/run", self.url)).json(&request).send();
        tokio::spawn(async move {
            let response = response.await.expect("an answer");
            (response.status().as_u16(), response.json().await.expect("a JSON answer"))
        })
    }

    /// Runs code; returns the events as they arrive.
    pub(crate) async fn stream(&self, request: Value) -> Events {
        let post = self.http.post(format!("{}/v1/run", self.url)).header("accept", "text/event-stream");
        let response = post.json(&request).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { response, text: String::new() }
    }

    /// Waits until this many runs are running and this many requests are queued.
    pub(crate) async fn until_busy(&self, running: u64, queued: u64) {
        eventually(&format!("{running} runs and {queued} in the queue"), async || {
            let (_, status) = self.get("/v1/status").await;
            status["running"] == running && status["queued"] == queued
        })
        .await;
    }

    /// Gets JSON; returns the status and the answer.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.http.get(format!("{}{path}", self.url)).send().await.expect("an answer");
        (response.status().as_u16(), response.json().await.expect("a JSON answer"))
    }

    /// The names of this server's containers on the engine.
    pub(crate) fn containers(&self) -> Vec<String> {
        // A container that reports the host's addresses, before the first network is created, is ignored: it is removed
        // later by itself.
        self.containers_but(&[" addresses"])
    }

    /// The names of the containers that run code; the others hold networks.
    pub(crate) fn sandboxes(&self) -> Vec<String> {
        self.containers_but(&[" addresses", " hold"])
    }

    fn containers_but(&self, commands: &[&str]) -> Vec<String> {
        let label = format!("label=oncebox.owner={}", self.owner);
        let listed = docker(&["ps", "-a", "--no-trunc", "--filter", &label, "--format", "{{.Names}} {{.Command}}"]);
        let others = listed.lines().filter(|line| !commands.iter().any(|command| line.contains(command)));
        others.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    }

    /// The lines of the log, since the server listens, that contain this text.
    pub(crate) fn logged(&self, what: &str) -> Vec<String> {
        self.log.lock().expect("the log").iter().filter(|line| line.contains(what)).cloned().collect()
    }

    /// The PID of the server.
    pub(crate) fn pid(&self) -> u32 {
        self.child.lock().expect("the child").as_ref().expect("it runs").id()
    }

    /// The current memory of the server's process.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The peak memory of the server's process.
    pub(crate) fn peak_memory_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("its memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Stops the server as an operator does. False if it did not end well within a minute.
    pub(crate) fn stop(&self) -> bool {
        let Some(mut child) = self.child.lock().expect("the child").take() else { return true };
        let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        let deadline = deadline(Duration::from_secs(60));
        while Instant::now() < deadline {
            if let Ok(Some(status)) = child.try_wait() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    /// Kills the server as the kernel does.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child.lock().expect("the child").take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The variables of a server without warm sandboxes, except those that these variables set.
fn cold(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    let cold = ["PYTHON", "NODE", "TS", "R", "JSHELL"];
    let cold = cold.map(|file| (format!("ONCEBOX_TEMPLATES__{file}__WARM"), "0".to_owned()));
    let own = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    cold.into_iter().chain(own).collect()
}

/// A server-sent event.
#[derive(Debug)]
pub(crate) struct ServerEvent {
    pub(crate) name: String,
    pub(crate) data: Value,
    /// The time of its arrival.
    pub(crate) at: Instant,
}

/// The events of one run. Dropping them hangs up.
#[derive(Debug)]
pub(crate) struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    /// The next event; `None` if the server has closed the stream.
    pub(crate) async fn next(&mut self) -> Option<ServerEvent> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                // A comment, which keeps the connection alive.
                if event.starts_with(':') {
                    continue;
                }
                let (name, data) = event.split_once('\n').expect("two lines");
                return Some(ServerEvent {
                    name: name.strip_prefix("event: ").expect("a name").to_owned(),
                    data: serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON"),
                    at: Instant::now(),
                });
            }
            let chunk = self.response.chunk().await.expect("the stream goes on")?;
            self.text.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = self.stop();
        assert!(stopped || std::thread::panicking(), "the server did not end well");
    }
}

/// The languages of the engine without containers, if tests use that engine.
static PROCESS_ENGINE: OnceLock<PathBuf> = OnceLock::new();

/// Makes every server of this process use the engine without containers, with the languages in this directory.
pub(crate) fn use_process_engine(languages: &Path) {
    PROCESS_ENGINE.set(languages.to_owned()).expect("it is chosen once");
}

/// The program, with the repository's configuration.
pub(crate) fn oncebox() -> Command {
    let keys = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config/keys.toml"));
    assert!(!keys.exists(), "the servers of tests would need a key of config/keys.toml: move it away");
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncebox"));
    command.env("ONCEBOX_CONFIG", concat!(env!("CARGO_MANIFEST_DIR"), "/config"));
    if let Some(languages) = PROCESS_ENGINE.get() {
        let engine = [("ONCEBOX_ENGINE", "process"), ("ONCEBOX_UNSAFE_PROCESS_ENGINE", "1")];
        command.envs(engine).env("ONCEBOX_LANGUAGES", languages);
    }
    command
}

/// The error of `oncebox serve`, which must not start with these variables and this configuration directory.
pub(crate) fn refuses_to_start(variables: &[(&str, &str)], directory: Option<&Path>) -> String {
    let mut command = oncebox();
    if let Some(directory) = directory {
        command.arg("--config").arg(directory);
    }
    command
        .arg("serve")
        .env("ONCEBOX_LISTEN", "127.0.0.1:0")
        .env("ONCEBOX_OWNER", format!("{}refused", owner_prefix()));
    let mut child = command.envs(variables.iter().copied()).stderr(Stdio::piped()).spawn().expect("oncebox serve");
    let deadline = deadline(Duration::from_secs(40));
    while child.try_wait().expect("a status").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("it started with {variables:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(1), "{variables:?}");
    String::from_utf8(output.stderr).expect("text")
}

/// The whole standard output of a run.
pub(crate) fn stdout(answer: &Value) -> String {
    joined(&answer["logs"]["stdout"])
}

/// The whole standard error of a run.
pub(crate) fn stderr(answer: &Value) -> String {
    joined(&answer["logs"]["stderr"])
}

/// Runs code on the shared server and checks the properties that every answer has.
pub(crate) async fn run(language: &str, code: &str) -> Value {
    run_with(json!({"language": language, "code": code})).await
}

/// Sends a whole run request to the shared server and checks the same.
pub(crate) async fn run_with(request: Value) -> Value {
    let answer = server().run_with(request).await;
    let ok = answer["outcome"]["kind"] == "ok";
    assert_eq!(answer.get("error").is_none(), ok, "`error` is there exactly when the outcome is not ok: {answer}");
    assert!(!ok || answer.get("exception").is_none(), "an exception, and yet ok: {answer}");
    for quiet in ["results", "error", "exception"] {
        assert!(!answer[quiet].to_string().contains("\\u001b"), "an escape sequence in {quiet}: {answer}");
    }
    let outputs = answer["outputs"].as_array().expect("a list");
    let texts: Vec<_> = outputs.iter().filter_map(|output| output.get("text/plain")).collect();
    assert_eq!(json!(texts), answer["results"], "`results` are the texts of `outputs`");
    for (mime, data) in outputs.iter().flat_map(|output| output.as_object().expect("an object")) {
        if mime.starts_with("image/") && mime != "image/svg+xml" {
            assert!(decoded(data).len() > 8, "an empty {mime}");
        }
    }
    answer
}

/// The bytes of a binary output: Base64 without line breaks.
pub(crate) fn decoded(data: &Value) -> Vec<u8> {
    let text = data.as_str().expect("base64 is text");
    STANDARD.decode(text).unwrap_or_else(|err| panic!("not base64: {err}: {text:.200}"))
}

/// The width and height of the PNG in an output.
pub(crate) fn png_size(output: &Value) -> (u32, u32) {
    let image = decoded(&output["image/png"]);
    assert!(image.starts_with(b"\x89PNG\r\n\x1a\n"), "not a PNG: {output}");
    let number = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().expect("four bytes"));
    (number(16), number(20))
}

fn joined(pieces: &Value) -> String {
    pieces.as_array().expect("a list").iter().map(|piece| piece.as_str().expect("text")).collect()
}
