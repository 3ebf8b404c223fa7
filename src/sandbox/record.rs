//! Records of runs: what is kept of a run when it is over. They hold no code and no output, and no names of files,
//! variables or arguments.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use hmac::{Hmac, Mac};
use serde::{Serialize, Serializer};
use sha2::Sha256;

use super::error::SandboxError;
use super::owner::Owner;
use crate::protocol::{End, Event, LimitHit, OutcomeKind, ProcessEnd, ProcessEvent, Usage};

/// The number of records that are kept in memory for each owner.
pub const RECENT: usize = 200;

/// Where a run comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The id of the request that began it.
    pub run_id: String,
    /// The part of the API by which it came in.
    pub door: &'static str,
    /// The address of the client, if it came in by network.
    pub client: Option<IpAddr>,
}

/// What is kept of one run: a single run, an execution in a context, or a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct RunRecord {
    /// When it ended.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub at: SystemTime,
    /// [`Origin::run_id`].
    pub run_id: String,
    /// Whose it was.
    #[serde(skip)]
    pub owner: Owner,
    /// [`Origin::door`].
    pub door: &'static str,
    /// [`Origin::client`].
    #[serde(skip)]
    pub client: Option<IpAddr>,
    /// The name of its sandbox's template.
    pub template: String,
    /// The id of its sandbox, if that is a kept one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// How it ended. `None` if nobody has waited for the end, as with a command that goes on when its client hangs up.
    pub outcome: Option<OutcomeKind>,
    /// The name of the limit that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Of a single run: the time from the request to a ready sandbox, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// Of a single run: whether its sandbox was launched before the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm: Option<bool>,
    /// The time from its start to its end, milliseconds.
    pub wall_ms: u64,
    /// [`Usage::cpu_ms`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// [`Usage::peak_memory_bytes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// The size of what it printed and returned, bytes.
    pub output_bytes: u64,
    /// The size of its code, bytes. `None` for a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code_bytes: Option<u64>,
    /// HMAC-SHA-256 of its code in hexadecimal digits, under a secret of the server: equal code has equal hashes, and short
    /// code cannot be guessed from them. `None` for a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code_hash: Option<String>,
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

/// Learns of each run when it is over.
pub trait Observer: fmt::Debug + Send + Sync {
    /// Called once for each run. It must not block.
    fn run_ended(&self, record: &RunRecord);

    /// Called when a run or a kept sandbox is refused, though the request for it is right.
    fn refused(&self, _reason: Refusal) {}
}

/// Why a run or a kept sandbox is refused, though the request for it is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// [`SandboxError::Busy`].
    Busy,
    /// [`SandboxError::Full`].
    Full,
    /// [`SandboxError::TooOften`].
    TooOften,
    /// [`SandboxError::CpuUsedUp`].
    UsedUp,
    /// [`SandboxError::ShuttingDown`].
    ShuttingDown,
}

impl Refusal {
    /// Its name: the code of the error in the native API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Full => "full",
            Self::TooOften => "too_often",
            Self::UsedUp => "used_up",
            Self::ShuttingDown => "shutting_down",
        }
    }

    fn of(err: &SandboxError) -> Option<Self> {
        match err {
            SandboxError::Busy { .. } => Some(Self::Busy),
            SandboxError::Full { .. } => Some(Self::Full),
            SandboxError::TooOften { .. } => Some(Self::TooOften),
            SandboxError::CpuUsedUp { .. } => Some(Self::UsedUp),
            SandboxError::ShuttingDown => Some(Self::ShuttingDown),
            SandboxError::UnknownLanguage { .. }
            | SandboxError::TooLong { .. }
            | SandboxError::TemplateForbidden { .. }
            | SandboxError::NetworkForbidden { .. }
            | SandboxError::OtherRequest { .. }
            | SandboxError::File { .. }
            | SandboxError::Launch(_)
            | SandboxError::Lost(_) => None,
        }
    }
}

/// The key of the hashes of code.
#[derive(Clone)]
pub struct HashSecret([u8; 32]);

impl HashSecret {
    /// A secret that has these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A secret that nobody knows, so that hashes can be compared during the life of this process only.
    pub fn random() -> Self {
        Self(rand::random())
    }

    fn hash(&self, code: &str) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        let digest = mac.chain_update(code).finalize().into_bytes();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for HashSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The newest records of each owner, and those who learn of every record.
#[derive(Debug)]
pub struct Records {
    secret: HashSecret,
    observers: Vec<Arc<dyn Observer>>,
    recent: Mutex<HashMap<Owner, VecDeque<Arc<RunRecord>>>>,
}

impl Records {
    /// No records yet.
    pub fn new(secret: HashSecret, observers: Vec<Arc<dyn Observer>>) -> Self {
        Self { secret, observers, recent: Mutex::default() }
    }

    /// The newest records of an owner, the newest first.
    pub(super) fn recent(&self, owner: Owner) -> Vec<Arc<RunRecord>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.get(&owner).map(|records| records.iter().rev().cloned().collect()).unwrap_or_default()
    }

    /// A run or a kept sandbox could not begin.
    pub(super) fn failed(&self, err: &SandboxError) {
        if let Some(reason) = Refusal::of(err) {
            self.observers.iter().for_each(|observer| observer.refused(reason));
        }
    }

    fn add(&self, record: RunRecord) {
        for observer in &self.observers {
            observer.run_ended(&record);
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let records = recent.entry(record.owner).or_default();
        if records.len() == RECENT {
            records.pop_front();
        }
        records.push_back(Arc::new(record));
    }
}

/// A run that goes on. If it is dropped before its end is known, its record is that of a run that was cancelled.
#[derive(Debug)]
pub(super) struct Recording {
    records: Arc<Records>,
    /// `None` when the record is made.
    record: Option<RunRecord>,
    started: Instant,
    if_dropped: Option<OutcomeKind>,
}

impl Recording {
    /// A run of this owner begins now.
    pub(super) fn start(records: &Arc<Records>, owner: Owner, origin: Origin, template: &str) -> Self {
        let record = RunRecord {
            at: SystemTime::UNIX_EPOCH,
            run_id: origin.run_id,
            owner,
            door: origin.door,
            client: origin.client,
            template: template.to_owned(),
            sandbox_id: None,
            outcome: None,
            limit: None,
            wait_ms: None,
            warm: None,
            wall_ms: 0,
            cpu_ms: None,
            peak_memory_bytes: None,
            output_bytes: 0,
            code_bytes: None,
            code_hash: None,
        };
        let if_dropped = Some(OutcomeKind::Cancelled);
        Self { records: Arc::clone(records), record: Some(record), started: Instant::now(), if_dropped }
    }

    /// It is one in this kept sandbox.
    pub(super) fn in_sandbox(mut self, id: &str) -> Self {
        self.update(|record| record.sandbox_id = Some(id.to_owned()));
        self
    }

    /// It has a sandbox of its own, for which it waited.
    pub(super) fn in_own_sandbox(mut self, wait_ms: u64, warm: bool) -> Self {
        self.update(|record| (record.wait_ms, record.warm) = (Some(wait_ms), Some(warm)));
        self
    }

    /// It runs this code.
    pub(super) fn of_code(mut self, code: &str) -> Self {
        let hash = self.records.secret.hash(code);
        self.update(|record| (record.code_bytes, record.code_hash) = (Some(code.len() as u64), Some(hash)));
        self
    }

    /// It goes on if it is dropped, so that its outcome is not known.
    pub(super) fn going_on_if_dropped(mut self) -> Self {
        self.if_dropped = None;
        self
    }

    /// It has not begun: there is no record of it.
    pub(super) fn forget(mut self) {
        self.record = None;
    }

    /// It has printed or returned this many bytes more.
    pub(super) fn output(&mut self, bytes: u64) {
        self.update(|record| record.output_bytes += bytes);
    }

    /// An event of its code, of which the last one is its end.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Stdout { text } | Event::Stderr { text } => self.output(text.len() as u64),
            Event::Output(output) => self.output(output.data.values().map(|data| data.get().len() as u64).sum()),
            Event::End(End { outcome, usage, .. }) => self.end(Some(outcome.kind), outcome.limit.as_ref(), *usage),
        }
    }

    /// An event of its process, of which the last one is its end.
    pub(super) fn process_event(&mut self, event: &ProcessEvent) {
        match event {
            ProcessEvent::Started { .. } => {}
            ProcessEvent::Stdout { data } | ProcessEvent::Stderr { data } | ProcessEvent::Pty { data } => {
                self.output(data.len() as u64);
            }
            ProcessEvent::Ended(end) => self.end_without_report(match end {
                ProcessEnd { timed_out: true, .. } => OutcomeKind::Timeout,
                ProcessEnd { exit_code: Some(0), .. } => OutcomeKind::Ok,
                ProcessEnd { exit_code: Some(_), .. } => OutcomeKind::Exit,
                ProcessEnd { exit_code: None, .. } => OutcomeKind::Signal,
            }),
        }
    }

    /// It is over, and nothing is known of what it used.
    pub(super) fn end_without_report(&mut self, outcome: OutcomeKind) {
        let wall_ms = self.started.elapsed().as_millis() as u64;
        self.end(Some(outcome), None, Usage { wall_ms, ..Usage::default() });
    }

    fn update(&mut self, change: impl FnOnce(&mut RunRecord)) {
        if let Some(record) = &mut self.record {
            change(record);
        }
    }

    fn end(&mut self, outcome: Option<OutcomeKind>, limit: Option<&LimitHit>, usage: Usage) {
        let Some(record) = self.record.take() else { return };
        self.records.add(RunRecord {
            at: SystemTime::now(),
            outcome,
            limit: limit.map(|limit| limit.name.clone()),
            wall_ms: usage.wall_ms,
            cpu_ms: usage.cpu_ms,
            peak_memory_bytes: usage.peak_memory_bytes,
            ..record
        });
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let wall_ms = self.started.elapsed().as_millis() as u64;
        self.end(self.if_dropped, None, Usage { wall_ms, ..Usage::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Outcome;

    const OWNER: Owner = Owner::ANYBODY;

    /// Remembers the ids of the runs that it learns of.
    #[derive(Debug, Default)]
    struct Ids(Mutex<Vec<String>>);

    impl Observer for Ids {
        fn run_ended(&self, record: &RunRecord) {
            self.0.lock().expect("it is not poisoned").push(record.run_id.clone());
        }
    }

    fn records() -> (Arc<Records>, Arc<Ids>) {
        let ids = Arc::<Ids>::default();
        (Arc::new(Records::new(HashSecret::new([1; 32]), vec![ids.clone()])), ids)
    }

    fn start(records: &Arc<Records>, owner: Owner, run_id: &str) -> Recording {
        let origin = Origin { run_id: run_id.to_owned(), door: "run", client: None };
        Recording::start(records, owner, origin, "python")
    }

    fn end(kind: OutcomeKind) -> Event {
        let usage = Usage { wall_ms: 3, cpu_ms: Some(2), peak_memory_bytes: Some(1) };
        let limit = Some(LimitHit { name: "timeout_ms".to_owned(), value: 5 });
        Event::End(End {
            outcome: Outcome { kind, message: String::new(), limit },
            exception: None,
            usage,
            lost: false,
        })
    }

    #[test]
    fn a_run_has_one_record_whatever_follows_its_end() {
        let (records, ids) = records();
        let mut recording = start(&records, OWNER, "a").of_code("1 + 1").in_own_sandbox(7, true);
        recording.event(&Event::Stdout { text: "äb".to_owned() });
        recording.event(&end(OutcomeKind::Timeout));
        recording.event(&end(OutcomeKind::Ok));
        recording.end_without_report(OutcomeKind::Infrastructure);
        drop(recording);
        let [record] = &records.recent(OWNER)[..] else { panic!("one record") };
        assert_eq!((record.outcome, record.limit.as_deref()), (Some(OutcomeKind::Timeout), Some("timeout_ms")));
        assert_eq!((record.output_bytes, record.code_bytes, record.wall_ms), (3, Some(5), 3));
        assert_eq!((record.wait_ms, record.warm, record.cpu_ms), (Some(7), Some(true), Some(2)));
        assert_eq!(*ids.0.lock().expect("it is not poisoned"), ["a"]);
    }

    #[test]
    fn a_run_that_is_dropped_was_cancelled_unless_it_goes_on() {
        let (records, _) = records();
        drop(start(&records, OWNER, "code"));
        drop(start(&records, OWNER, "command").going_on_if_dropped());
        let outcomes: Vec<_> = records.recent(OWNER).iter().map(|record| record.outcome).collect();
        assert_eq!(outcomes, [None, Some(OutcomeKind::Cancelled)]);
    }

    #[test]
    fn each_owner_has_its_newest_records() {
        let (records, ids) = records();
        let other = Owner::random();
        drop(start(&records, other, "other"));
        for number in 0..RECENT + 3 {
            drop(start(&records, OWNER, &number.to_string()));
        }
        let recent = records.recent(OWNER);
        assert_eq!(recent.len(), RECENT);
        assert_eq!((&*recent[0].run_id, &*recent[RECENT - 1].run_id), ("202", "3"));
        assert_eq!(records.recent(other).len(), 1);
        assert_eq!(records.recent(Owner::random()), []);
        assert_eq!(ids.0.lock().expect("it is not poisoned").len(), RECENT + 4);
    }

    #[test]
    fn hashes_of_code_depend_on_the_code_and_on_the_secret() {
        let hash = |secret: [u8; 32], code| HashSecret::new(secret).hash(code);
        assert_eq!(hash([1; 32], "x"), hash([1; 32], "x"));
        assert_ne!(hash([1; 32], "x"), hash([1; 32], "y"));
        assert_ne!(hash([1; 32], "x"), hash([2; 32], "x"));
        // Test case 2 of RFC 4231, whose key is shorter and is filled up with zeros.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hash(key, "what do ya want for nothing?"), expected);
    }
}
