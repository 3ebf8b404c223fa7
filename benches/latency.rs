//! `make bench`: how long a trivial run takes, as an HTTP client sees it, beside `docker run --rm` of the same image and
//! the bare engine's create, start and remove. All in one session: only ratios between its rows mean anything elsewhere.

#![allow(clippy::print_stdout, reason = "a table on stdout is what it is for")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A language: what requests call it, a trivial piece of code, its image, and the same code by the image's own command.
struct Case {
    language: &'static str,
    code: &'static str,
    image: &'static str,
    command: &'static [&'static str],
}

const CASES: [Case; 5] = [
    Case { language: "python", code: "1 + 1", image: "oncebox/python", command: &["python3", "-c", "print(1 + 1)"] },
    Case { language: "js", code: "1 + 1", image: "oncebox/node", command: &["node", "-p", "1 + 1"] },
    Case { language: "ts", code: "1 + 1", image: "oncebox/ts", command: &["node", "-p", "1 + 1"] },
    Case { language: "r", code: "1 + 1", image: "oncebox/r", command: &["Rscript", "-e", "1 + 1"] },
    Case {
        language: "java",
        code: "1 + 1",
        image: "oncebox/jshell",
        command: &["sh", "-c", "echo 'System.out.println(1 + 1);' | jshell -s -"],
    },
];

const WARM_RUNS: usize = 50;
const COLD_RUNS: usize = 10;
const DOCKER_RUNS: usize = 10;

#[tokio::main]
async fn main() -> Result<()> {
    // `cargo test --benches` only asks whether it starts.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let server = Server::start()?;
    println!("{} cores, Docker {}\n", std::thread::available_parallelism()?, docker_version().await?);
    println!("{:<34} {:>6} {:>10} {:>10}", "", "runs", "p50 ms", "p99 ms");
    for case in CASES {
        let warm = server.warm(&case).await?;
        row(&format!("{}, warm", case.language), &warm);
        row(&format!("{}, cold", case.language), &server.cold(&case).await?);
        row(&format!("docker run --rm {}", case.image), &docker_run(&case)?);
        println!();
    }
    row("engine: create + start + remove", &bare_engine().await?);
    Ok(())
}

fn row(name: &str, times: &[Duration]) {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = |part: f64| sorted[((sorted.len() - 1) as f64 * part).round() as usize].as_secs_f64() * 1000.0;
    println!("{name:<34} {:>6} {:>10.1} {:>10.1}", sorted.len(), at(0.5), at(0.99));
}

struct Server {
    child: Child,
    url: String,
    http: reqwest::Client,
}

impl Server {
    fn start() -> Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_oncebox"))
            .args(["--config", concat!(env!("CARGO_MANIFEST_DIR"), "/config"), "serve"])
            .envs(BTreeMap::from([("ONCEBOX_LISTEN", "127.0.0.1:0"), ("ONCEBOX_OWNER", "bench")]))
            .stderr(Stdio::piped())
            .spawn()?;
        let mut log = BufReader::new(child.stderr.take().ok_or("no log")?).lines();
        let line = log.find(|line| line.as_ref().is_ok_and(|line| line.contains("listening on ")));
        let line = line.ok_or("the server ended before it listened")??;
        let url = line.split("listening on ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let url = url.ok_or("no address")?.to_owned();
        std::thread::spawn(move || log.for_each(drop));
        Ok(Self { child, url, http: reqwest::Client::new() })
    }

    /// Runs that find a sandbox waiting, one after the other, each once the pool is full again.
    async fn warm(&self, case: &Case) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        while times.len() < WARM_RUNS {
            self.wait_until_full().await?;
            let (time, answer) = self.run(json!({"language": case.language, "code": case.code})).await?;
            if answer["sandbox"]["warm"] != true {
                return Err(format!("not warm: {answer}").into());
            }
            times.push(time);
        }
        Ok(times)
    }

    /// Runs for which a container is started, because they ask for other limits than those that wait.
    async fn cold(&self, case: &Case) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        while times.len() < COLD_RUNS {
            self.wait_until_full().await?;
            let request = json!({"language": case.language, "code": case.code, "limits": {"processes": 200}});
            times.push(self.run(request).await?.0);
        }
        Ok(times)
    }

    async fn run(&self, request: Value) -> Result<(Duration, Value)> {
        let started = Instant::now();
        let response = self.http.post(format!("{}/v1/run", self.url)).json(&request).send().await?;
        let answer: Value = response.json().await?;
        let time = started.elapsed();
        if answer["results"][0].as_str().is_none_or(|text| !text.contains('2')) {
            return Err(format!("a wrong answer: {answer}").into());
        }
        Ok((time, answer))
    }

    async fn wait_until_full(&self) -> Result<()> {
        loop {
            let status: Value = self.http.get(format!("{}/v1/status", self.url)).send().await?.json().await?;
            let full = |shelf: &Value| shelf["idle"] == shelf["warm"];
            if status["running"] == 0 && status["pool"].as_array().is_some_and(|pool| pool.iter().all(full)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn docker_run(case: &Case) -> Result<Vec<Duration>> {
    let (program, arguments) = case.command.split_first().ok_or("no command")?;
    let mut times = Vec::new();
    while times.len() < DOCKER_RUNS {
        let started = Instant::now();
        let output = Command::new("docker")
            .args(["run", "--rm", "--entrypoint", program, case.image])
            .args(arguments)
            .output()?;
        times.push(started.elapsed());
        if !String::from_utf8_lossy(&output.stdout).contains('2') {
            return Err(format!("docker run {}: {}", case.image, String::from_utf8_lossy(&output.stderr)).into());
        }
    }
    Ok(times)
}

async fn docker_version() -> Result<String> {
    Ok(Docker::connect_with_defaults()?.version().await?.version.unwrap_or_default())
}

/// What the engine needs for a container that does nothing, with no network of its own.
async fn bare_engine() -> Result<Vec<Duration>> {
    let docker = Docker::connect_with_defaults()?;
    let name = "oncebox-bench-bare";
    let mut times = Vec::new();
    while times.len() < DOCKER_RUNS {
        let body = ContainerCreateBody {
            image: Some("oncebox/agent".to_owned()),
            entrypoint: Some(vec!["/oncebox-agent".to_owned(), "hold".to_owned()]),
            open_stdin: Some(true),
            host_config: Some(HostConfig { network_mode: Some("none".to_owned()), ..HostConfig::default() }),
            ..ContainerCreateBody::default()
        };
        let started = Instant::now();
        docker.create_container(Some(CreateContainerOptionsBuilder::default().name(name).build()), body).await?;
        docker.start_container(name, None).await?;
        docker.remove_container(name, Some(RemoveContainerOptionsBuilder::default().force(true).build())).await?;
        times.push(started.elapsed());
    }
    Ok(times)
}
