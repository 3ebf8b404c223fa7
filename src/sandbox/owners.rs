//! What each owner may have, and the processor time that it has used today.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;

use super::allowance::Allowance;
use super::error::SandboxError;
use super::owner::Owner;

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// The allowances of owners, and what they use.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// Owners that are missing here have the default.
    allowances: ArcSwap<HashMap<Owner, Arc<Allowance>>>,
    /// For each owner, a day and the processor time that was used on it.
    cpu: Mutex<HashMap<Owner, (u64, Duration)>>,
}

impl Owners {
    /// Replaces all allowances.
    pub(super) fn set_allowances(&self, allowances: HashMap<Owner, Arc<Allowance>>) {
        self.allowances.store(Arc::new(allowances));
    }

    /// What an owner may have.
    pub(super) fn allowance(&self, owner: Owner) -> Arc<Allowance> {
        self.allowances.load().get(&owner).cloned().unwrap_or_default()
    }

    /// Counts processor time that an owner has used.
    pub(super) fn count_cpu(&self, owner: Owner, time: Duration) {
        self.count_cpu_on(today(), owner, time);
    }

    /// Checks that an owner has not used up its processor time of the day.
    pub(super) fn check_cpu(&self, owner: Owner) -> Result<(), SandboxError> {
        self.check_cpu_on(today(), owner)
    }

    fn count_cpu_on(&self, today: u64, owner: Owner, time: Duration) {
        let mut cpu = self.lock();
        let (day, used) = cpu.entry(owner).or_default();
        if *day != today {
            (*day, *used) = (today, Duration::ZERO);
        }
        *used += time;
    }

    fn check_cpu_on(&self, today: u64, owner: Owner) -> Result<(), SandboxError> {
        let Some(limit) = self.allowance(owner).limits.cpu_seconds_per_day else { return Ok(()) };
        let used = self.lock().get(&owner).filter(|(day, _)| *day == today).map_or(Duration::ZERO, |(_, used)| *used);
        match used < Duration::from_secs(limit.get()) {
            true => Ok(()),
            false => Err(SandboxError::CpuUsedUp { cpu_seconds_per_day: limit.get() }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Owner, (u64, Duration)>> {
        self.cpu.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of the day, which begins at 00:00 UTC.
fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / SECONDS_PER_DAY
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::sandbox::allowance::OwnerLimits;

    #[test]
    fn processor_time_is_counted_for_each_owner_and_day() {
        let (a, b) = (Owner([1; 8]), Owner([2; 8]));
        let limits = OwnerLimits { cpu_seconds_per_day: NonZeroU64::new(10), ..OwnerLimits::default() };
        let owners = Owners::default();
        owners.set_allowances(HashMap::from([(a, Arc::new(Allowance { limits, ..Allowance::default() }))]));
        for owner in [a, b] {
            owners.count_cpu_on(1, owner, Duration::from_secs(9));
            assert!(owners.check_cpu_on(1, owner).is_ok());
            owners.count_cpu_on(1, owner, Duration::from_secs(1));
        }
        let err = owners.check_cpu_on(1, a).expect_err("used up");
        assert!(matches!(err, SandboxError::CpuUsedUp { cpu_seconds_per_day: 10 }), "{err}");
        assert!(owners.check_cpu_on(1, b).is_ok(), "it has no limit");
        assert!(owners.check_cpu_on(2, a).is_ok(), "it is another day");
        owners.count_cpu_on(2, a, Duration::from_secs(9));
        assert!(owners.check_cpu_on(2, a).is_ok());
    }
}
