//! What tests are written with: a server, runs on it, and the engine beside it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libtest_mimic::Trial;
use serde_json::{Value, json};

/// Lists the test functions of a module as its `trials()`.
macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
            vec![$($crate::support::trial(module_path!(), stringify!($name), $name)),*]
        }
    };
}

/// One test: an async function that panics when something is not as it should be.
pub(crate) fn trial<F>(module: &str, name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    let module = module.rsplit("::").next().unwrap_or(module);
    Trial::test(format!("{module}::{name}"), move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.expect("a runtime").block_on(test());
        Ok(())
    })
}

/// A running `oncebox serve` with an owner of its own.
pub(crate) struct Server {
    /// Its address, with the scheme.
    pub(crate) url: String,
    /// Its owner label.
    pub(crate) owner: String,
    pub(crate) http: reqwest::Client,
    child: Mutex<Option<Child>>,
}

static SHARED: OnceLock<Server> = OnceLock::new();

/// The server that tests share. Its templates are the default ones, fewer of them warm.
pub(crate) fn server() -> &'static Server {
    SHARED.get_or_init(|| Server::start(&[]))
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
            .filter(|name| name.contains(&prefix))
            .map(str::to_owned)
            .collect();
    if !left.is_empty() {
        eprintln!("left on the engine after the tests: {left:?}");
    }
    left.is_empty()
}

fn owner_prefix() -> String {
    format!("test-{}-", std::process::id())
}

/// What a docker command prints.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().expect("the docker command");
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Server {
    /// Starts one with these variables over the defaults, and waits until it is ready.
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        let server = Self::start_unready(variables);
        let deadline = Instant::now() + Duration::from_secs(120);
        while !server.is_ready() {
            assert!(Instant::now() < deadline, "the server did not become ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// Starts one and waits until it listens.
    pub(crate) fn start_unready(variables: &[(&str, &str)]) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let owner = format!("{}{}", owner_prefix(), STARTED.fetch_add(1, Ordering::Relaxed));
        let mut command = oncebox();
        command
            .arg("serve")
            .env("ONCEBOX_LISTEN", "127.0.0.1:0")
            .env("ONCEBOX_OWNER", &owner)
            .env("ONCEBOX_TEMPLATES__PYTHON__WARM", "2")
            .env("ONCEBOX_TEMPLATES__NODE__WARM", "1")
            .env("ONCEBOX_TEMPLATES__TS__WARM", "1")
            .envs(variables.iter().copied())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("oncebox serve");
        let mut log = BufReader::new(child.stderr.take().expect("its log"));
        let url = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).expect("its log") > 0, "oncebox serve ended before it listened");
            if let Some((_, url)) = line.split_once("listening on ") {
                break url.split_whitespace().next().expect("an address").to_owned();
            }
        };
        // Repeated, so that a failing test shows it, and read, so that the server never waits for us.
        std::thread::spawn(move || log.lines().map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        // A connection ends with the runtime of the test that opened it, and so is not kept for another test.
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().expect("a client");
        Self { url, owner, http, child: Mutex::new(Some(child)) }
    }

    fn is_ready(&self) -> bool {
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

    /// Runs code that is expected to be accepted, and gives the answer.
    pub(crate) async fn run(&self, language: &str, code: &str) -> Value {
        self.run_with(json!({"language": language, "code": code})).await
    }

    /// The same with the whole request.
    pub(crate) async fn run_with(&self, request: Value) -> Value {
        let (status, answer) = self.post("/v1/run", &request).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Posts JSON; the status and the JSON of the answer.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.http.post(format!("{}{path}", self.url)).json(body).send().await.expect("an answer");
        (response.status().as_u16(), response.json().await.expect("a JSON answer"))
    }

    /// Gets JSON.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.http.get(format!("{}{path}", self.url)).send().await.expect("an answer");
        (response.status().as_u16(), response.json().await.expect("a JSON answer"))
    }

    /// The names of this server's containers on the engine.
    pub(crate) fn containers(&self) -> Vec<String> {
        let label = format!("label=oncebox.owner={}", self.owner);
        docker(&["ps", "-a", "--filter", &label, "--format", "{{.Names}}"]).lines().map(str::to_owned).collect()
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.lock().expect("the child").as_ref().expect("it runs").id()
    }

    /// Ends it as an operator would. False if it did not end well within a minute.
    pub(crate) fn stop(&self) -> bool {
        let Some(mut child) = self.child.lock().expect("the child").take() else { return true };
        let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        let deadline = Instant::now() + Duration::from_secs(60);
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

    /// Ends it as the kernel would.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child.lock().expect("the child").take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = self.stop();
        assert!(stopped || std::thread::panicking(), "the server did not end well");
    }
}

/// The program, with the configuration of the repository.
pub(crate) fn oncebox() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncebox"));
    command.arg("--config").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/config"));
    command
}

/// Everything that a run wrote to its standard output.
pub(crate) fn stdout(answer: &Value) -> String {
    joined(&answer["logs"]["stdout"])
}

/// Everything that a run wrote to its standard error.
pub(crate) fn stderr(answer: &Value) -> String {
    joined(&answer["logs"]["stderr"])
}

/// Runs code on the shared server and checks what must hold of every answer.
pub(crate) async fn run(language: &str, code: &str) -> Value {
    run_with(json!({"language": language, "code": code})).await
}

/// The same with the whole request.
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

/// The bytes of an output that is not text: base64 without line breaks.
pub(crate) fn decoded(data: &Value) -> Vec<u8> {
    let text = data.as_str().expect("base64 is text");
    STANDARD.decode(text).unwrap_or_else(|err| panic!("not base64: {err}: {text:.200}"))
}

/// Width and height of the PNG in an output.
pub(crate) fn png_size(output: &Value) -> (u32, u32) {
    let image = decoded(&output["image/png"]);
    assert!(image.starts_with(b"\x89PNG\r\n\x1a\n"), "not a PNG: {output}");
    let number = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().expect("four bytes"));
    (number(16), number(20))
}

fn joined(pieces: &Value) -> String {
    pieces.as_array().expect("a list").iter().map(|piece| piece.as_str().expect("text")).collect()
}
