//! The times of tests: each suite prints its slowest tests at its end, and `scripts/test` collects those of all suites.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The number of tests that a suite prints.
const SHOWN: usize = 20;

static TIMES: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// Runs a test and records its time.
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
