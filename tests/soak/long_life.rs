//! The long life of one kept sandbox: one worker for each kind of `tests/it/life`, all at once, for an hour or more.

use std::collections::BTreeMap;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::join_all;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::life::{KINDS, Kept, Kind};
use crate::sample::{Usage, usage};
use crate::support::{Server, docker, nothing_is_left};
use crate::{Plan, message_of, number};

/// The number of wrong answers that the report quotes. All are counted.
const MAX_QUOTED: usize = 50;

/// The most samples, and the shortest time between two of them.
const SAMPLES: u64 = 240;
const SAMPLE_EVERY: Duration = Duration::from_secs(2);

/// The plan for one sandbox.
#[derive(Debug)]
pub(crate) struct LifePlan {
    /// The least time that it lives. After twice this time the part ends, even if it is incomplete.
    pub(crate) seconds: u64,
    /// The least number of requests that it answers.
    pub(crate) requests: u64,
    /// Only kinds whose names contain one of these take part.
    pub(crate) only: Vec<String>,
}

impl LifePlan {
    pub(crate) fn from_env() -> Self {
        Self {
            seconds: number("SOAK_LIFE_SECONDS").unwrap_or(3600),
            requests: number("SOAK_LIFE_REQUESTS").unwrap_or(100_000),
            only: std::env::var("SOAK_LIFE_ONLY").map_or_else(|_| vec![String::new()], split),
        }
    }
}

fn split(names: String) -> Vec<String> {
    names.split(',').map(str::to_owned).collect()
}

/// The usage of server and agent after a number of requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LifeSample {
    pub(crate) requests: u64,
    pub(crate) at: Duration,
    pub(crate) server: Usage,
    /// `None` if the agent does not run on this machine, or if its usage cannot be read.
    pub(crate) agent: Option<Usage>,
}

/// The result of this part.
pub(crate) struct Life<'a> {
    pub(crate) plan: &'a LifePlan,
    /// The number of times that each kind was done.
    pub(crate) done: BTreeMap<&'static str, u64>,
    pub(crate) requests: u64,
    pub(crate) wrong: Vec<String>,
    /// The time and the reason of the loss of the sandbox, which ends the part.
    pub(crate) lost: Option<String>,
    pub(crate) samples: Vec<LifeSample>,
    pub(crate) took: Duration,
    /// Whether the engine has nothing left of the server.
    pub(crate) clean: bool,
}

/// State that the workers share.
struct Work {
    kept: Kept,
    began: Instant,
    over: CancellationToken,
    tally: Mutex<Tally>,
}

#[derive(Default)]
struct Tally {
    done: BTreeMap<&'static str, u64>,
    wrong: Vec<String>,
    lost: Option<String>,
}

/// Creates a kept sandbox on a server of its own, and works with it.
pub(crate) async fn live(plan: &Plan) -> Life<'_> {
    let plan = &plan.life;
    // The server lives as long as this program; it is stopped below.
    let server: &'static Server = Box::leak(Box::new(Server::start_cold(&[("ONCEBOX_LOG", "warn,oncebox::cli=info")])));
    let kept = Kept::create(server, json!({"templateID": "code-interpreter-v1", "timeout": 86_400})).await;
    let agent = agent(server);
    let work = Work { kept, began: Instant::now(), over: CancellationToken::new(), tally: Mutex::default() };
    let kinds = KINDS.iter().filter(|kind| plan.only.iter().any(|part| kind.name.contains(part)));
    let workers = join_all(kinds.map(|kind| work.repeat(kind)));
    let (_, samples) = tokio::join!(workers, work.watch(plan, server.pid(), agent));
    let (took, requests) = (work.began.elapsed(), work.kept.requests());
    let Tally { done, wrong, lost } = std::mem::take(&mut *work.tally());
    assert!(server.stop(), "the server ends well");
    Life { plan, done, requests, wrong, lost, samples, took, clean: nothing_is_left() }
}

/// The first process of the only sandbox, if it runs on this machine.
fn agent(server: &Server) -> Option<u32> {
    let sandboxes = server.sandboxes();
    let [sandbox] = sandboxes.as_slice() else { panic!("one sandbox, not {sandboxes:?}") };
    let pid = docker(&["inspect", "--format", "{{.State.Pid}}", sandbox]).trim().parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (name.trim() == "agent").then_some(pid)
}

impl Work {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no one panics with it")
    }

    /// Does one kind again and again.
    async fn repeat(&self, kind: &Kind) {
        for number in 0.. {
            let done = AssertUnwindSafe(kind.once(&self.kept, number)).catch_unwind().await;
            let wrong = done.err().map(|panic| format!("{}, number {number}: {:.800}", kind.name, message_of(&*panic)));
            let lives = wrong.is_none() || self.lives().await;
            self.note(kind.name, wrong, lives);
            if self.over.is_cancelled() {
                break;
            }
            // The pause lets other kinds work, also after actions that do not wait.
            tokio::task::yield_now().await;
            self.over.run_until_cancelled(tokio::time::sleep(kind.rest)).await;
        }
    }

    /// Counts an action and records its failure. Failures after the loss of the sandbox are not recorded, as they are
    /// expected.
    fn note(&self, kind: &'static str, wrong: Option<String>, lives: bool) {
        let (at, mut tally) = (self.began.elapsed().as_secs(), self.tally());
        *tally.done.entry(kind).or_default() += 1;
        let Some(wrong) = wrong.filter(|_| tally.lost.is_none()) else { return };
        eprintln!("after {at} s, {wrong}");
        if !lives {
            tally.lost = Some(format!("after {at} s, seen by {wrong}"));
            self.over.cancel();
        }
        tally.wrong.push(wrong);
    }

    /// Whether the sandbox exists. It may be paused.
    async fn lives(&self) -> bool {
        let _awake = self.kept.awake.read().await;
        AssertUnwindSafe(self.kept.lives()).catch_unwind().await.unwrap_or(false)
    }

    /// Takes samples until the plan is complete.
    async fn watch(&self, plan: &LifePlan, server: u32, agent: Option<u32>) -> Vec<LifeSample> {
        let every = SAMPLE_EVERY.max(Duration::from_secs(plan.seconds / SAMPLES));
        let (least, most) = (Duration::from_secs(plan.seconds), Duration::from_secs(2 * plan.seconds));
        let mut samples = Vec::new();
        while !self.over.is_cancelled() {
            let (at, requests) = (self.began.elapsed(), self.kept.requests());
            if at >= least && (requests >= plan.requests || at >= most) {
                self.over.cancel();
            }
            let server = usage(server).expect("the server runs");
            // `None` if the sandbox has just been lost.
            let sample = LifeSample { requests, at, server, agent: agent.and_then(usage) };
            eprintln!("{} s, {} wrong: {sample}", at.as_secs(), self.tally().wrong.len());
            samples.push(sample);
            self.over.run_until_cancelled(tokio::time::sleep(every)).await;
        }
        samples
    }
}

impl std::fmt::Display for LifeSample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let agent = self.agent.map_or("not seen".to_owned(), |usage| usage.to_string());
        write!(f, "{} requests; server {}; agent {agent}", self.requests, self.server)
    }
}

impl Life<'_> {
    /// The wrong answers that the report quotes.
    pub(crate) fn quoted(&self) -> &[String] {
        &self.wrong[..self.wrong.len().min(MAX_QUOTED)]
    }
}
