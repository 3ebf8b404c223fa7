//! Measures the container's current resource usage.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::cgroup;
use super::users::User;
use crate::protocol::Metrics;

/// A meter that keeps its last reading, to compute a rate from a counter.
#[derive(Debug)]
pub(crate) struct Meter {
    /// The time and the processor time in microseconds of the last reading.
    last: Mutex<(Instant, u64)>,
}

impl Meter {
    /// Creates a meter. The first rate covers the time since this call.
    pub(crate) fn new() -> Self {
        Self { last: Mutex::new((Instant::now(), cgroup::read().cpu_us)) }
    }

    /// Reads all metrics. The disk is the one of `user`'s home.
    pub(crate) fn read(&self, user: &User) -> Metrics {
        let usage = cgroup::usage();
        let (now, cpu_us) = (Instant::now(), cgroup::read().cpu_us);
        let (before, cpu_us_before) =
            std::mem::replace(&mut *self.last.lock().unwrap_or_else(PoisonError::into_inner), (now, cpu_us));
        let elapsed_us = now.duration_since(before).as_micros().max(1) as f64;
        let used_us = cpu_us.saturating_sub(cpu_us_before) as f64;
        let (disk_total_bytes, disk_used_bytes) = rustix::fs::statvfs(&user.home)
            .map_or((0, 0), |fs| (fs.f_blocks * fs.f_frsize, fs.f_blocks.saturating_sub(fs.f_bfree) * fs.f_frsize));
        Metrics {
            cpu_count: usage.cores.ceil() as u32,
            cpu_used_percent: (100.0 * used_us / elapsed_us / usage.cores * 100.0).round() / 100.0,
            memory_total_bytes: usage.memory_limit_bytes,
            memory_used_bytes: usage.memory_bytes.saturating_sub(usage.cache_bytes),
            memory_cache_bytes: usage.cache_bytes,
            disk_total_bytes,
            disk_used_bytes,
        }
    }
}
