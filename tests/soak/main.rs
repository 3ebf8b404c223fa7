//! `make soak`: hours of what `tests/it/load.rs` does for a minute. A mix of runs at full load, each answer compared with what it
//! must be, while memory, open files and threads of the server and of the engine are read; then the server is killed again and
//! again. What came of the one is written to `docs/soak.md`, of the other to `docs/kills.md`.
//!
//! `SOAK_RUNS`, `SOAK_KILLS`, `SOAK_CLIENTS`, `SOAK_SEED` and `SOAK_REPORTS`, the directory, change what is done; `SOAK_SECONDS`
//! ends each of both parts early (9000 if it is not set), which is good once 2,000 runs or 50 kills are done; 0 runs or kills leave
//! a part out, and its report as it is.

#[macro_use]
#[path = "../it/support.rs"]
#[allow(dead_code, unused_macros, reason = "written for the other tests too")]
mod support;
#[path = "../it/deeds.rs"]
mod deeds;
#[path = "../it/kills.rs"]
mod kills;
#[path = "../it/machine.rs"]
mod machine;
#[path = "../it/mix.rs"]
mod mix;
mod report;
mod sample;

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures::FutureExt;
use mix::Tally;
use report::{Kills, Runs};
use sample::Sample;
use support::Server;

/// Between two samples, runs: so few that those which must be reached before the time is up are enough samples too.
const SAMPLE_EVERY: usize = 100;

/// The fewest samples that tell anything: with fewer runs they are taken more often.
const SAMPLES: usize = 20;

/// What is to be done.
#[derive(Debug)]
struct Plan {
    runs: usize,
    kills: usize,
    clients: usize,
    seed: u64,
    /// For the runs, and again for the kills.
    seconds: u64,
}

impl Plan {
    fn from_env() -> Self {
        Self {
            runs: number("SOAK_RUNS").unwrap_or(20_000) as usize,
            kills: number("SOAK_KILLS").unwrap_or(200) as usize,
            clients: number("SOAK_CLIENTS").unwrap_or(24) as usize,
            seed: number("SOAK_SEED").unwrap_or_else(|| u64::from(std::process::id())),
            seconds: number("SOAK_SECONDS").unwrap_or(9000),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.seconds)
    }

    /// Whether a part that took so long was to end then.
    fn ends_after(&self, took: Duration) -> bool {
        took >= Duration::from_secs(self.seconds)
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not `{text}`")))
}

#[tokio::main]
async fn main() -> ExitCode {
    let plan = Plan::from_env();
    eprintln!("{plan:?}");
    let mut good = true;
    if plan.runs > 0 {
        let runs = runs(&plan).await;
        write("soak.md", &runs);
        good &= runs.is_good();
    }
    if plan.kills > 0 {
        let kills = kill_again_and_again(&plan).await;
        write("kills.md", &kills);
        good &= kills.is_good();
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn write(name: &str, report: &impl Display) {
    let directory = std::env::var("SOAK_REPORTS").unwrap_or_else(|_| "docs".to_owned());
    let path = Path::new(&directory).join(name);
    std::fs::write(&path, report.to_string()).expect("the report is written");
    eprintln!("{report}\nwritten to {}", path.display());
}

/// The mix, on a server as the configuration has it.
async fn runs(plan: &Plan) -> Runs<'_> {
    let warm = ["4", "2", "2", "2", "2"];
    let names = ["PYTHON", "NODE", "TS", "R", "JSHELL"].map(|file| format!("ONCEBOX_TEMPLATES__{file}__WARM"));
    let mut variables = vec![("ONCEBOX_LOG", "warn,oncebox::cli=info")];
    variables.extend(names.iter().map(String::as_str).zip(warm));
    let server = Server::start(&variables);
    let every = SAMPLE_EVERY.min(plan.runs / SAMPLES).max(1);
    let began = Instant::now();
    let mut samples = Vec::new();
    let progress = |tally: &Tally| {
        if tally.total().is_multiple_of(every) {
            let sample = Sample::take(tally.total(), began.elapsed(), server.pid());
            let (total, wrong) = (tally.total(), tally.wrong.len());
            let rate = total as f64 / began.elapsed().as_secs_f64();
            eprintln!("{total} runs, {rate:.1}/s, {wrong} wrong; {sample}");
            samples.push(sample);
        }
    };
    let tally = mix::load(&server, plan.seed, plan.runs, plan.clients, plan.deadline(), progress).await;
    let took = began.elapsed();
    assert!(server.stop(), "the server ends well");
    Runs { plan, tally, samples, took, clean: support::nothing_is_left() }
}

/// The kills, each with a seed of its own; what failed is told by it.
async fn kill_again_and_again(plan: &Plan) -> Kills<'_> {
    let bystander = Server::start_cold(&[("ONCEBOX_TEMPLATES__NODE__WARM", "1")]);
    let (began, deadline) = (Instant::now(), plan.deadline());
    let (mut rounds, mut failed) = (Vec::new(), Vec::new());
    for number in 0..plan.kills as u64 {
        if Instant::now() > deadline {
            break;
        }
        let seed = plan.seed.wrapping_mul(1000) + number;
        match std::panic::AssertUnwindSafe(kills::round(seed, &bystander)).catch_unwind().await {
            Ok(round) => {
                eprintln!("kill {}: {round:?}", number + 1);
                rounds.push(round);
            }
            Err(panic) => {
                let said = panic.downcast_ref::<String>().cloned();
                failed.push(said.unwrap_or_else(|| format!("seed {seed} failed")));
            }
        }
    }
    let took = began.elapsed();
    assert!(bystander.stop(), "the server beside them ends well");
    Kills { plan, rounds, failed, took, clean: support::nothing_is_left() }
}
