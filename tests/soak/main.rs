//! `make soak` does for hours what `tests/it/load.rs` does for a minute. First, a mix of runs at full load: each answer
//! is compared with the expected one, while memory, open files and threads of the server and of the engine are
//! measured. Then one kept sandbox does everything of `tests/it/life` at once, for an hour. Then the server is killed
//! again and again. The reports of the first two are the parts of `docs/soak.md`; the report of the kills is
//! `docs/kills.md`.
//!
//! `SOAK_RUNS`, `SOAK_KILLS`, `SOAK_CLIENTS` and `SOAK_SEED` change the plan, `SOAK_REPORTS` the directory of the
//! reports. `SOAK_SECONDS` (default 9000) ends runs and kills early, which is a success after 2,000 runs or 50 kills.
//! `SOAK_LIFE_SECONDS` (default 3600) and `SOAK_LIFE_REQUESTS` (default 100,000) are the least time that the kept
//! sandbox lives and the least number of requests that it answers; with `SOAK_LIFE_ONLY=pauses,code` only kinds whose
//! names contain one of these take part. 0 runs, kills or seconds of life skip a part and leave its report as it is.

#[macro_use]
#[path = "../it/support.rs"]
#[allow(dead_code, unused_macros, reason = "written for the other tests too")]
mod support;
#[path = "../it/actions.rs"]
mod actions;
#[path = "../it/e2b.rs"]
#[allow(dead_code, reason = "written for the other tests too")]
mod e2b;
#[path = "../it/kills.rs"]
mod kills;
#[path = "../it/life/mod.rs"]
#[allow(dead_code, reason = "its trials are those of the other tests")]
mod life;
mod long_life;
mod long_life_report;
#[path = "../it/machine.rs"]
mod machine;
#[path = "../it/mix.rs"]
mod mix;
mod report;
mod sample;

use std::any::Any;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures::FutureExt;
use long_life::LifePlan;
use mix::Tally;
use report::{Kills, Runs};
use sample::Sample;
use support::Server;

/// The number of runs between two samples. It is small enough that the least number of runs gives enough samples.
const SAMPLE_EVERY: usize = 100;

/// The least number of useful samples: with fewer runs, samples are taken more often.
const SAMPLES: usize = 20;

/// The plan.
#[derive(Debug)]
struct Plan {
    runs: usize,
    kills: usize,
    clients: usize,
    seed: u64,
    /// The time limit of the runs, and again of the kills.
    seconds: u64,
    life: LifePlan,
}

impl Plan {
    fn from_env() -> Self {
        Self {
            runs: number("SOAK_RUNS").unwrap_or(20_000) as usize,
            kills: number("SOAK_KILLS").unwrap_or(200) as usize,
            clients: number("SOAK_CLIENTS").unwrap_or(24) as usize,
            seed: number("SOAK_SEED").unwrap_or_else(|| u64::from(std::process::id())),
            seconds: number("SOAK_SECONDS").unwrap_or(9000),
            life: LifePlan::from_env(),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.seconds)
    }

    /// Whether a part that took this long had reached its time limit.
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
        write("soak.md", |before| {
            let (_, life) = parts(before);
            format!("{runs}{life}")
        });
        good &= runs.is_good();
    }
    if plan.life.seconds > 0 {
        let life = long_life::live(&plan).await;
        write("soak.md", |before| {
            let (runs, _) = parts(before);
            format!("{runs}\n{life}")
        });
        good &= life.is_good();
    }
    if plan.kills > 0 {
        let kills = kill_again_and_again(&plan).await;
        write("kills.md", |_| kills.to_string());
        good &= kills.is_good();
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The two parts of `soak.md`: the runs, and the long life with the empty line before it.
fn parts(report: &str) -> (&str, &str) {
    let at = report.find(&format!("\n{}", long_life_report::TITLE)).unwrap_or(report.len());
    report.split_at(at)
}

/// Replaces a part of the existing report.
fn write(name: &str, report: impl FnOnce(&str) -> String) {
    let directory = std::env::var("SOAK_REPORTS").unwrap_or_else(|_| "docs".to_owned());
    let path = Path::new(&directory).join(name);
    let report = report(&std::fs::read_to_string(&path).unwrap_or_default());
    std::fs::write(&path, &report).expect("the report is written");
    eprintln!("{report}\nwritten to {}", path.display());
}

/// The message of a panic.
fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it failed".to_owned())
}

/// Runs the mix, on a server with the repository's configuration.
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

/// Runs the kills, each with its own seed, by which failures are reported.
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
                let message = message_of(&*panic);
                failed.push(if message.starts_with("seed ") { message } else { format!("seed {seed}: {message}") });
            }
        }
    }
    let took = began.elapsed();
    assert!(bystander.stop(), "the server beside them ends well");
    Kills { plan, rounds, failed, took, clean: support::nothing_is_left() }
}
