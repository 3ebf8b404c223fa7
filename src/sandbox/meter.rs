//! Counts the processor time of sandboxes for their owners. What cannot be known counts as the most that it can be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::owner::Owner;
use super::owners::Owners;
use crate::protocol::Metrics;

/// Counts the processor time of one run. If the meter is dropped before the time is known, all the time that the run
/// could have used counts: else a client that hangs up before the end would pay nothing.
#[derive(Debug)]
pub(super) struct RunMeter {
    owners: Arc<Owners>,
    owner: Owner,
    cpu_millis: u64,
    started: Instant,
    is_counted: bool,
}

impl RunMeter {
    /// The run begins now, in a container with this share of processors.
    pub(super) fn start(owners: Arc<Owners>, owner: Owner, cpu_millis: u64) -> Self {
        Self { owners, owner, cpu_millis, started: Instant::now(), is_counted: false }
    }

    /// Counts what the agent reports at the end.
    pub(super) fn end(&mut self, cpu_ms: Option<u64>) {
        if !std::mem::replace(&mut self.is_counted, true) {
            let most = most(self.started.elapsed(), self.cpu_millis);
            let used = cpu_ms.map_or(most, |used| Duration::from_millis(used).min(most));
            self.owners.count_cpu(self.owner, used);
        }
    }
}

impl Drop for RunMeter {
    fn drop(&mut self) {
        self.end(None);
    }
}

/// Counts the processor time of a kept sandbox, from one reading of its metrics to the next.
#[derive(Debug)]
pub(super) struct KeptMeter {
    owners: Arc<Owners>,
    owner: Owner,
    cpu_millis: u64,
    last: Instant,
}

impl KeptMeter {
    /// The sandbox begins now, with this share of processors.
    pub(super) fn start(owners: Arc<Owners>, owner: Owner, cpu_millis: u64) -> Self {
        Self { owners, owner, cpu_millis, last: Instant::now() }
    }

    /// Counts the time since the last reading.
    pub(super) fn read(&mut self, metrics: &Metrics) {
        let elapsed = std::mem::replace(&mut self.last, Instant::now()).elapsed();
        // The percentage is of the processors that the sandbox has, which may be fewer than it may use.
        let millis = self.cpu_millis.min(u64::from(metrics.cpu_count) * 1000);
        let share = (metrics.cpu_used_percent / 100.0).clamp(0.0, 1.0);
        self.owners.count_cpu(self.owner, most(elapsed, millis).mul_f64(share));
    }

    /// Counts the time since the last reading as if all of it were used, up to `longest`.
    pub(super) fn give_up(&mut self, longest: Duration) {
        let elapsed = std::mem::replace(&mut self.last, Instant::now()).elapsed();
        self.owners.count_cpu(self.owner, most(elapsed.min(longest), self.cpu_millis));
    }
}

/// The most processor time that is used in `elapsed`.
fn most(elapsed: Duration, cpu_millis: u64) -> Duration {
    elapsed.mul_f64(cpu_millis as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::num::NonZeroU64;

    use super::*;
    use crate::sandbox::allowance::{Allowance, OwnerLimits};

    const OWNER: Owner = Owner::ANYBODY;

    /// Owners of whom one may use a second.
    fn owners() -> Arc<Owners> {
        let limits = OwnerLimits { cpu_seconds_per_day: NonZeroU64::new(1), ..OwnerLimits::default() };
        let owners = Owners::default();
        owners.set_allowances(HashMap::from([(OWNER, Arc::new(Allowance { limits, ..Allowance::default() }))]));
        Arc::new(owners)
    }

    fn ago(seconds: u64) -> Instant {
        Instant::now().checked_sub(Duration::from_secs(seconds)).expect("the machine runs for longer")
    }

    #[test]
    fn a_run_counts_what_is_reported_and_no_more_than_it_can_have_used() {
        for (seconds, reported, is_used_up) in
            [(2, Some(999), false), (2, Some(1000), true), (2, None, true), (0, Some(u64::MAX), false)]
        {
            let owners = owners();
            let mut meter = RunMeter::start(Arc::clone(&owners), OWNER, 1000);
            meter.started = ago(seconds);
            meter.end(reported);
            drop(meter);
            assert_eq!(owners.check_cpu(OWNER).is_err(), is_used_up, "{seconds} {reported:?}");
        }
    }

    #[test]
    fn a_run_that_is_dropped_counts_as_if_it_had_used_all() {
        let owners = owners();
        let mut meter = RunMeter::start(Arc::clone(&owners), OWNER, 1000);
        meter.started = ago(1);
        drop(meter);
        assert!(owners.check_cpu(OWNER).is_err());
    }

    #[test]
    fn a_kept_sandbox_counts_its_share_from_reading_to_reading() {
        let metrics = |cpu_used_percent| Metrics { cpu_count: 2, cpu_used_percent, ..Metrics::default() };
        for (percent, is_used_up) in [(0.0, false), (20.0, false), (30.0, true), (f64::INFINITY, true)] {
            let owners = owners();
            let mut meter = KeptMeter { last: ago(2), ..KeptMeter::start(Arc::clone(&owners), OWNER, 2000) };
            meter.read(&metrics(percent));
            meter.read(&metrics(100.0));
            assert_eq!(owners.check_cpu(OWNER).is_err(), is_used_up, "{percent}");
        }
        let owners = owners();
        let mut meter = KeptMeter { last: ago(100), ..KeptMeter::start(Arc::clone(&owners), OWNER, 1000) };
        meter.give_up(Duration::from_millis(500));
        assert!(owners.check_cpu(OWNER).is_ok());
        meter.last = ago(100);
        meter.give_up(Duration::from_millis(600));
        assert!(owners.check_cpu(OWNER).is_err());
    }
}
