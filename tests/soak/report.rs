//! `docs/soak.md` and `docs/kills.md`.

use std::fmt;
use std::time::Duration;

use crate::Plan;
use crate::kills::Round;
use crate::machine::machine;
use crate::mix::Tally;
use crate::sample::{Sample, Usage};

/// The most rows of the table of samples.
const ROWS: usize = 20;

/// The part of the samples at the beginning that is ignored: caches fill, and allocators keep memory.
const WARM_UP: f64 = 0.1;

/// A figure is flat if the median of the last quarter exceeds that of the first by at most this: a part, plus a
/// constant.
const MORE: f64 = 1.1;
const MORE_KIB: u64 = 4096;
const MORE_COUNT: u64 = 8;

/// Fewer samples do not show whether a figure is flat, so a figure that must be flat then fails.
const FEWEST: usize = 12;

/// A part that its time limit ended succeeds with at least this many, or with all if fewer were planned.
const FEWEST_RUNS: usize = 2000;
const FEWEST_KILLS: usize = 50;

/// The promised time, from the start of its successor on, after which nothing of a killed server is left.
const PROMISED: Duration = Duration::from_secs(5);

/// The result of the runs.
pub(crate) struct Runs<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) tally: Tally,
    pub(crate) samples: Vec<Sample>,
    pub(crate) took: Duration,
    /// Whether the engine has nothing left of the server.
    pub(crate) clean: bool,
}

/// The result of the kills.
pub(crate) struct Kills<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) rounds: Vec<Round>,
    /// The failures of the other rounds.
    pub(crate) failed: Vec<String>,
    pub(crate) took: Duration,
    /// Whether the engine has nothing left of any of the servers.
    pub(crate) clean: bool,
}

/// A figure: its name, the divisor for its unit, the constant by which it may grow, its value in a sample, and whether
/// it must be flat. The engine's open files need not be flat, because other users of the engine open files too.
type Figure = (&'static str, u64, u64, fn(&Sample) -> Option<u64>, bool);

const FIGURES: [Figure; 7] = [
    ("server, VmRSS, MiB", 1024, MORE_KIB, |sample| Some(sample.server.rss_kib), true),
    ("server, open files", 1, MORE_COUNT, |sample| Some(sample.server.files), true),
    ("server, threads", 1, MORE_COUNT, |sample| Some(sample.server.threads), true),
    ("dockerd, VmRSS, MiB", 1024, MORE_KIB, |sample| sample.dockerd.map(|usage| usage.rss_kib), true),
    ("dockerd, open files", 1, MORE_COUNT, |sample| sample.dockerd.map(|usage| usage.files), false),
    ("containerd, VmRSS, MiB", 1024, MORE_KIB, |sample| sample.containerd.map(|usage| usage.rss_kib), false),
    ("containerd, open files", 1, MORE_COUNT, |sample| sample.containerd.map(|usage| usage.files), false),
];

impl Runs<'_> {
    /// Whether the plan was completed without a failure.
    pub(crate) fn is_good(&self) -> bool {
        let figures = FIGURES.iter().filter(|(.., must)| *must);
        let flat = figures.map(|figure| self.quarters(figure)).all(|quarters| quarters.is_some_and(|(.., flat)| flat));
        let done = enough(self.tally.total(), self.plan.runs, FEWEST_RUNS, self.plan.ends_after(self.took));
        self.tally.wrong.is_empty() && self.clean && flat && done
    }

    /// The medians of the first and of the last quarter, and whether the figure is flat; `None` if there are too few
    /// samples.
    fn quarters(&self, (_, _, more, of, _): &Figure) -> Option<(u64, u64, bool)> {
        let warm = &self.samples[(self.samples.len() as f64 * WARM_UP).ceil() as usize..];
        let values: Vec<u64> = warm.iter().filter_map(of).collect();
        if values.len() < FEWEST {
            return None;
        }
        let quarter = values.len() / 4;
        let (first, last) = (median(&values[..quarter]), median(&values[values.len() - quarter..]));
        let bound = (first as f64 * MORE) as u64;
        Some((first, last, last <= bound.max(first + more)))
    }
}

impl fmt::Display for Runs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, tally, samples, took, clean } = self;
        let (total, wrong) = (tally.total(), tally.wrong.len());
        let rate = total as f64 / took.as_secs_f64();
        writeln!(f, "# A long run\n\nWritten by `make soak`; `tests/soak/` says how.\n")?;
        writeln!(f, "{}\n", machine())?;
        writeln!(
            f,
            "{total} of {} runs, {} at a time, in {} s: {rate:.1} a second. Seed {}. **{wrong} had another end than expected.**\n",
            plan.runs,
            plan.clients,
            took.as_secs(),
            plan.seed
        )?;
        fewer(f, total, plan.runs, FEWEST_RUNS, plan.ends_after(*took))?;
        writeln!(f, "| expected end | runs |\n| --- | ---: |")?;
        for (kind, count) in &tally.done {
            writeln!(f, "| {kind} | {count} |")?;
        }
        for wrong in &tally.wrong {
            writeln!(f, "\n- {wrong}")?;
        }
        writeln!(f, "\n## What is used while they go on\n")?;
        writeln!(
            f,
            "The engine's figures are those of its whole daemon, other users included. VmRSS in MiB, open files, threads.\n"
        )?;
        writeln!(f, "| runs | s | server | dockerd | containerd |\n| ---: | ---: | --- | --- | --- |")?;
        let step = samples.len().div_ceil(ROWS).max(1);
        let last = samples.len().saturating_sub(1);
        for (_, sample) in samples.iter().enumerate().filter(|(index, _)| index % step == 0 || *index == last) {
            let cell = |usage: Option<Usage>| usage.map_or("not seen".to_owned(), |usage| usage.to_string());
            let (server, dockerd, containerd) = (sample.server, cell(sample.dockerd), cell(sample.containerd));
            writeln!(f, "| {} | {} | {server} | {dockerd} | {containerd} |", sample.runs, sample.at.as_secs())?;
        }
        writeln!(
            f,
            "\nMedians of the first and of the last quarter of {} samples, the first tenth left out. Flat is at most 10 % more, \
             or 4 MiB, or 8 files or threads; a figure that was not read does not count as flat.\n",
            samples.len()
        )?;
        writeln!(f, "| | first | last | | must be flat |\n| --- | ---: | ---: | --- | --- |")?;
        for figure in &FIGURES {
            let (name, unit, .., must) = figure;
            let must = if *must { "yes" } else { "no" };
            match self.quarters(figure) {
                Some((first, last, flat)) => {
                    let verdict = if flat { "flat" } else { "**not flat**" };
                    let shown = |value: u64| match unit {
                        1 => value.to_string(),
                        unit => format!("{:.1}", value as f64 / *unit as f64),
                    };
                    writeln!(f, "| {name} | {} | {} | {verdict} | {must} |", shown(first), shown(last))?;
                }
                None => writeln!(f, "| {name} | | | **not seen**, or too seldom to tell | {must} |")?,
            }
        }
        left(f, *clean, 0)
    }
}

impl Kills<'_> {
    /// Whether the plan was completed without a failure.
    pub(crate) fn is_good(&self) -> bool {
        let done = enough(self.rounds.len(), self.plan.kills, FEWEST_KILLS, self.plan.ends_after(self.took));
        let seldom = self.miscounted() <= 1 + self.rounds.len() / 50;
        self.failed.is_empty()
            && self.clean
            && self.late() == 0
            && seldom
            && done
            && self.answers() >= self.rounds.len()
    }

    /// Rounds in which no client got an answer: the server was not under load.
    fn answers(&self) -> usize {
        self.rounds.iter().map(|round| round.answers).sum()
    }

    /// Rounds in which something was left for longer than promised.
    fn late(&self) -> usize {
        self.measured().filter(|round| round.started + round.clean > PROMISED).count()
    }

    /// Rounds after which the daemon itself cannot remove a network.
    fn miscounted(&self) -> usize {
        self.rounds.iter().filter(|round| round.miscounted).count()
    }

    /// Rounds that show how long something was left: all others.
    fn measured(&self) -> impl Iterator<Item = &Round> {
        self.rounds.iter().filter(|round| !round.miscounted)
    }
}

impl fmt::Display for Kills<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, rounds, failed, took, clean } = self;
        let total = rounds.len() + failed.len();
        writeln!(f, "# Kill after kill\n\nWritten by `make soak`; `tests/soak/` says how.\n")?;
        writeln!(f, "{}\n", machine())?;
        writeln!(
            f,
            "{total} of {} rounds in {} s: a server of its own under load is killed (SIGKILL) at a random moment, also while it \
             warms up, and started again beside another owner's server. Seed {}. **{} left something, left a client waiting, or \
             disturbed the other. After {} something was left for more than {} s from the start of the successor.**\n",
            plan.kills,
            took.as_secs(),
            plan.seed,
            failed.len(),
            self.late(),
            PROMISED.as_secs()
        )?;
        fewer(f, total, plan.kills, FEWEST_KILLS, plan.ends_after(*took))?;
        let sum = |of: fn(&Round) -> usize| rounds.iter().map(of).sum::<usize>();
        let (answers, errors, containers) = (self.answers(), sum(|round| round.errors), sum(|round| round.containers));
        writeln!(
            f,
            "In all, {answers} right answers and {errors} clear errors before the kills, and {containers} containers at them.\n"
        )?;
        let miscounted = self.miscounted();
        if miscounted > 0 {
            writeln!(
                f,
                "After {miscounted} the daemon had lost count of a network's endpoints: it lists none, and refuses to remove the \
                 network, for anybody, until it is restarted. The successor uses it again; the times are those of the others.\n"
            )?;
        }
        writeln!(f, "| ms | median | longest |\n| --- | ---: | ---: |")?;
        type Time = fn(&Round) -> Duration;
        let figures: [(&str, Time); 3] = [
            ("from the start of the successor until it listens", |round| round.started),
            ("then, until nothing is left", |round| round.clean),
            ("both", |round| round.started + round.clean),
        ];
        for (name, of) in figures {
            let values: Vec<u64> = self.measured().map(|round| of(round).as_millis() as u64).collect();
            writeln!(f, "| {name} | {} | {} |", median(&values), values.iter().max().copied().unwrap_or_default())?;
        }
        for failure in failed {
            writeln!(f, "\n- {failure}")?;
        }
        left(f, *clean, miscounted)
    }
}

/// Whether the plan was completed, or as much of it as is required when the time limit ends it.
fn enough(done: usize, planned: usize, fewest: usize, ended: bool) -> bool {
    done >= planned || ended && done >= fewest
}

/// Writes a note if less was done than planned.
fn fewer(f: &mut fmt::Formatter<'_>, done: usize, planned: usize, fewest: usize, ended: bool) -> fmt::Result {
    match done < planned {
        true if enough(done, planned, fewest, ended) => {
            writeln!(
                f,
                "`SOAK_SECONDS` ended it early, after the {fewest} that it must reach; nothing is said of the rest.\n"
            )
        }
        true if ended => {
            writeln!(f, "**`SOAK_SECONDS` ended it before the {} that it must reach.**\n", fewest.min(planned))
        }
        true => writeln!(f, "**It ended early; nothing is said of the rest.**\n"),
        false => Ok(()),
    }
}

/// Writes what the engine has left.
pub(crate) fn left(f: &mut fmt::Formatter<'_>, clean: bool, miscounted: usize) -> fmt::Result {
    let left = if clean { "Nothing is" } else { "**Something is**" };
    let but = if miscounted > 0 { ", but those of which the daemon has lost count" } else { "" };
    writeln!(f, "\n{left} left on the engine at the end: no container and no network of any of these servers{but}.")
}

/// The median, or 0 if there are no values.
pub(crate) fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
