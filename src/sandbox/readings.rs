//! What a kept sandbox used, reading by reading.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::protocol::Metrics;

/// Readings that are kept: six hours.
const KEPT: usize = 6 * 60 * 60 / 5;

/// What a sandbox used at a time.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// When.
    pub at: SystemTime,
    /// What.
    pub metrics: Metrics,
}

/// The readings of one sandbox, and what the engine last said of its disk.
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

    pub(super) fn keep(&self, metrics: Metrics) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == KEPT {
            all.pop_front();
        }
        all.push_back(Reading { at: SystemTime::now(), metrics });
    }

    pub(super) fn set_written_bytes(&self, bytes: u64) {
        self.written_bytes.store(bytes, Ordering::Relaxed);
    }

    /// What is written to the disk, bytes, where the engine is asked for that.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }
}
