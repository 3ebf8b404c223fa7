//! How long tests take: the slowest ones of a suite are printed at its end, and `scripts/test` puts those of all suites together.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How many of a suite's tests are printed.
const SHOWN: usize = 20;

static TIMES: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// Runs a test and records how long it took.
pub(crate) fn timed<T>(name: String, test: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = test();
    TIMES.lock().expect("the times").push((began.elapsed(), name));
    done
}

/// Prints the slowest tests, `slow SECONDS NAME` each.
pub(crate) fn print() {
    let mut times = TIMES.lock().expect("the times");
    times.sort_unstable_by(|a, b| b.cmp(a));
    for (time, name) in times.iter().take(SHOWN) {
        eprintln!("slow {:6.1} {name}", time.as_secs_f64());
    }
}
