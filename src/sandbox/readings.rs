//! The resource usage of a kept sandbox over time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::protocol::Metrics;

/// The time between two readings.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

/// The most readings of one sandbox: six hours, one every five seconds.
const MAX_READINGS: usize = 6 * 60 * 60 / 5;

/// The resource usage of a sandbox at one time.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// The time of the reading.
    pub at: SystemTime,
    /// The usage.
    pub metrics: Metrics,
}

/// The readings of one sandbox, and its disk usage as the engine measured it last.
#[derive(Debug, Default)]
pub(super) struct Readings {
    all: Mutex<VecDeque<Reading>>,
    written_bytes: AtomicU64,
}

impl Readings {
    /// The readings, oldest first.
    pub(super) fn all(&self) -> Vec<Reading> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    pub(super) fn add(&self, metrics: Metrics) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == MAX_READINGS {
            all.pop_front();
        }
        all.push_back(Reading { at: SystemTime::now(), metrics });
    }

    pub(super) fn set_written_bytes(&self, bytes: u64) {
        self.written_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The bytes written to the disk at the last measurement; 0 if the engine does not measure this sandbox.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }
}
