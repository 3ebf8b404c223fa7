//! The part of `docs/soak.md` about the life of one sandbox.

use std::fmt;

use crate::long_life::{Life, LifeSample};
use crate::machine::machine;
use crate::report::{left, median};
use crate::sample::Usage;

/// The first line of this part. The part before it is about the runs.
pub(crate) const TITLE: &str = "# The long life of one sandbox\n";

/// A figure is flat if the median of the last quarter exceeds that of the second by at most this: a part, plus a
/// constant. The first quarter is ignored: caches fill, and each kind runs for the first time.
const MORE: f64 = 1.1;
const MORE_KIB: u64 = 4096;
const MORE_FILES: u64 = 32;
const MORE_THREADS: u64 = 8;

/// Fewer samples do not show whether a figure is flat.
const FEWEST: usize = 16;

/// A figure: its name, the divisor for its unit, the constant by which it may grow, and its value in a sample.
type Figure = (&'static str, u64, u64, fn(&LifeSample) -> Option<u64>);

const FIGURES: [Figure; 6] = [
    ("server, VmRSS, MiB", 1024, MORE_KIB, |sample| Some(sample.server.rss_kib)),
    ("server, open files", 1, MORE_FILES, |sample| Some(sample.server.files)),
    ("server, threads", 1, MORE_THREADS, |sample| Some(sample.server.threads)),
    ("agent, VmRSS, MiB", 1024, MORE_KIB, |sample| Some(sample.agent?.rss_kib)),
    ("agent, open files", 1, MORE_FILES, |sample| Some(sample.agent?.files)),
    ("agent, threads", 1, MORE_THREADS, |sample| Some(sample.agent?.threads)),
];

impl Life<'_> {
    /// Whether the plan was completed without a failure.
    pub(crate) fn is_good(&self) -> bool {
        let flat = FIGURES.iter().all(|figure| self.quarters(figure).is_some_and(|(.., flat)| flat));
        self.wrong.is_empty() && self.lost.is_none() && self.clean && flat && self.requests >= self.plan.requests
    }

    /// The medians of the second and of the last quarter, and whether the figure is flat. `None` if there are too few
    /// samples.
    fn quarters(&self, (_, _, more, of): &Figure) -> Option<(u64, u64, bool)> {
        let values: Vec<u64> = self.samples.iter().filter_map(of).collect();
        if values.len() < FEWEST {
            return None;
        }
        let quarter = values.len() / 4;
        let (second, last) = (median(&values[quarter..2 * quarter]), median(&values[values.len() - quarter..]));
        let bound = (second as f64 * MORE) as u64;
        Some((second, last, last <= bound.max(second + more)))
    }
}

impl fmt::Display for Life<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, done, requests, wrong, lost, samples, took, .. } = self;
        writeln!(f, "{TITLE}\n{}\n", machine())?;
        let rate = *requests as f64 / took.as_secs_f64();
        writeln!(
            f,
            "{requests} requests to one kept sandbox in {} s, {rate:.0} a second; all kinds at once, and a pause every few \
             seconds. At least {} s and {} requests were planned. **Wrong answers: {}. Links lost: {}.**\n",
            took.as_secs(),
            plan.seconds,
            plan.requests,
            wrong.len(),
            u8::from(lost.is_some())
        )?;
        if !plan.only.contains(&String::new()) {
            writeln!(f, "Only kinds with one of these in their name took part: `{}`.\n", plan.only.join("`, `"))?;
        }
        if let Some(lost) = lost {
            writeln!(f, "The sandbox was lost {lost}\n")?;
        }
        writeln!(f, "| kind | times |\n| --- | ---: |")?;
        for (kind, count) in done {
            writeln!(f, "| {} | {count} |", kind.replace('_', " "))?;
        }
        for wrong in self.quoted() {
            writeln!(f, "\n- {wrong}")?;
        }
        writeln!(f, "\n## What server and agent use meanwhile\n")?;
        writeln!(f, "| | requests | s | server | agent |\n| --- | ---: | ---: | --- | --- |")?;
        let middle = samples.len() / 2;
        for (name, sample) in [("start", samples.first()), ("middle", samples.get(middle)), ("end", samples.last())] {
            let Some(LifeSample { requests, at, server, agent }) = sample else { continue };
            let agent = agent.map_or("not seen".to_owned(), |usage: Usage| usage.to_string());
            writeln!(f, "| {name} | {requests} | {} | {server} | {agent} |", at.as_secs())?;
        }
        writeln!(
            f,
            "\nMedians of the second and of the last quarter of {} samples. Flat is at most 10 % more, or {} MiB, {MORE_FILES} \
             files or {MORE_THREADS} threads; a figure that was not read does not count as flat.\n",
            samples.len(),
            MORE_KIB >> 10
        )?;
        writeln!(f, "| | second | last | |\n| --- | ---: | ---: | --- |")?;
        for figure in &FIGURES {
            let (name, unit, ..) = figure;
            let shown = |value: u64| match unit {
                1 => value.to_string(),
                unit => format!("{:.1}", value as f64 / *unit as f64),
            };
            match self.quarters(figure) {
                Some((second, last, flat)) => {
                    let verdict = if flat { "flat" } else { "**not flat**" };
                    writeln!(f, "| {name} | {} | {} | {verdict} |", shown(second), shown(last))?;
                }
                None => writeln!(f, "| {name} | | | **not seen**, or too seldom to tell |")?,
            }
        }
        left(f, self.clean, 0)
    }
}
