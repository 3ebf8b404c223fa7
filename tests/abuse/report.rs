//! The report, as a page: on standard output, and in the file that `ABUSE_REPORT` names.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::machine::machine;
use crate::neighbours::{Latencies, Measured};

/// The number of cases of a class, and the number of those that held.
#[derive(Debug, Default)]
pub(crate) struct Class {
    pub(crate) tried: usize,
    pub(crate) held: usize,
}

pub(crate) struct Report<'a> {
    pub(crate) classes: &'a BTreeMap<&'static str, Class>,
    /// The number of attempts from inside that are not known to succeed anywhere, and the number of all attempts.
    pub(crate) without_control: (usize, usize),
    pub(crate) neighbours: Option<Measured>,
}

impl Report<'_> {
    /// Prints the report, and writes it to the file that `ABUSE_REPORT` names.
    #[allow(clippy::print_stdout, reason = "it is the result")]
    pub(crate) fn publish(&self) {
        println!("{self}");
        if let Some(path) = std::env::var_os("ABUSE_REPORT") {
            std::fs::write(path, self.to_string()).expect("the report is written");
        }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# What was tried, and what held\n\nWritten by `make abuse`; `tests/abuse/` says how.\n")?;
        writeln!(f, "{}\n", machine())?;
        writeln!(f, "| class | tried | held |\n| --- | ---: | ---: |")?;
        for (name, Class { tried, held }) in self.classes {
            writeln!(f, "| {name} | {tried} | {held} |")?;
        }
        let sum = |of: fn(&Class) -> usize| self.classes.values().map(of).sum::<usize>();
        writeln!(f, "| all | {} | {} |\n", sum(|class| class.tried), sum(|class| class.held))?;
        let (without, all) = self.without_control;
        writeln!(
            f,
            "Of {all} attempts from inside, {} have a control: they succeed where a template is weakened on purpose, or elsewhere. \
             {without} have none; each says why.",
            all - without
        )?;
        self.neighbours.as_ref().map_or(Ok(()), |measured| neighbours(f, measured))
    }
}

fn neighbours(f: &mut fmt::Formatter<'_>, Measured { runs, alone, beside }: &Measured) -> fmt::Result {
    writeln!(f, "\n## Neighbours\n\nA client asks {runs} times for `1+1` in Python, alone and beside each abuser.\n")?;
    writeln!(f, "| | median, ms | × alone | worst, ms | × alone |\n| --- | ---: | ---: | ---: | ---: |")?;
    for (name, found) in [("nobody", *alone)].iter().chain(beside) {
        let Latencies { median, worst } = found;
        let times = |one: &Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64().max(0.001);
        writeln!(
            f,
            "| {name} | {} | {:.1} | {} | {:.1} |",
            median.as_millis(),
            times(median, alone.median),
            worst.as_millis(),
            times(worst, alone.worst)
        )?;
    }
    Ok(())
}
