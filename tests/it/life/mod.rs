//! The long life of one kept sandbox: kinds of requests, each made again and again, with every answer compared.
//!
//! Each trial makes the requests of one kind in its own sandbox, as often as its count requires; all trials together
//! take about two minutes. `make soak` runs all kinds at once in one sandbox, for an hour: see
//! `tests/soak/long_life.rs`.

mod code;
mod commands;
mod directories;
mod downloads;
mod input;
pub(crate) mod kept;
mod pauses;
mod ports;
mod refusals;
mod terminals;
mod uploads;

use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::{StreamExt, stream};
use libtest_mimic::Trial;
use serde_json::json;

use crate::support::{Server, trial};
pub(crate) use kept::Kept;

/// The time limit of one action, on a slow machine.
const ACTION_TIMEOUT: Duration = Duration::from_secs(180);

/// A kind of request.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Makes one request of the kind, or a few, and panics if an answer is wrong. The number distinguishes it from the
    /// others.
    action: for<'a> fn(&'a Kept, u64) -> LocalBoxFuture<'a, ()>,
    /// The number of actions in a trial, and the number of those at a time.
    count: u64,
    at_once: usize,
    /// The time that the soak waits between two actions.
    #[allow(dead_code, reason = "trials do not wait")]
    pub(crate) rest: Duration,
    /// Whether no other request may run meanwhile, as with pauses.
    alone: bool,
    /// The template of a trial's sandbox.
    template: &'static str,
}

const BASE: &str = "base";
/// This template has one processor, the others have two.
const LITTLE: &str = "python";
const INTERPRETER: &str = "code-interpreter-v1";

macro_rules! kinds {
    ($($template:ident $module:ident::$action:ident: $count:literal, $at_once:literal at once, $rest_ms:literal ms;)*) => {
        [$(Kind {
            name: concat!(stringify!($module), "_", stringify!($action)),
            action: |kept, number| Box::pin($module::$action(kept, number)),
            count: $count,
            at_once: $at_once,
            rest: Duration::from_millis($rest_ms),
            alone: matches!(stringify!($module).as_bytes(), b"pauses"),
            template: $template,
        }),*]
    };
}

/// All kinds. The rest is long after an action with much work, which leaves time for the others.
pub(crate) static KINDS: [Kind; 35] = kinds! {
    BASE uploads::of_an_empty_piece: 300, 4 at once, 0 ms;
    BASE uploads::of_many_pieces: 10, 2 at once, 100 ms;
    BASE uploads::of_every_size: 24, 2 at once, 500 ms;
    BASE uploads::compressed: 20, 2 at once, 200 ms;
    BASE uploads::byte_by_byte: 10, 2 at once, 200 ms;
    BASE uploads::broken_off: 300, 4 at once, 0 ms;
    BASE downloads::of_tiny_files: 300, 4 at once, 0 ms;
    BASE downloads::of_a_large_file: 4, 2 at once, 5000 ms;
    BASE downloads::of_ranges: 100, 4 at once, 20 ms;
    BASE downloads::broken_off: 1500, 16 at once, 0 ms;
    BASE commands::finished: 40, 2 at once, 20 ms;
    BASE commands::unread: 40, 40 at once, 0 ms;
    BASE commands::abandoned: 200, 4 at once, 50 ms;
    BASE commands::left_by_readers: 20, 1 at once, 500 ms;
    BASE commands::listed_with_large_environments: 1, 1 at once, 60_000 ms;
    BASE input::of_nothing: 150, 1 at once, 0 ms;
    BASE input::of_bytes: 20, 2 at once, 50 ms;
    BASE input::streamed: 20, 2 at once, 50 ms;
    BASE input::broken_off: 150, 2 at once, 50 ms;
    BASE terminals::typed_into_and_resized: 8, 2 at once, 500 ms;
    LITTLE pauses::right_after_resumptions: 40, 1 at once, 15_000 ms;
    BASE pauses::of_many_commands_that_spin: 4, 1 at once, 300_000 ms;
    BASE pauses::of_open_streams: 4, 1 at once, 40_000 ms;
    BASE ports::answers_in_tiny_pieces: 20, 2 at once, 200 ms;
    BASE ports::left_by_clients: 300, 4 at once, 50 ms;
    BASE ports::unread_streams: 6, 2 at once, 1000 ms;
    BASE directories::watched_as_a_stream: 2, 1 at once, 3000 ms;
    BASE directories::watched_by_asking: 4, 2 at once, 3000 ms;
    BASE directories::watched_with_more_events_than_8_mib: 1, 1 at once, 60_000 ms;
    BASE directories::listed_and_removed: 2, 1 at once, 10_000 ms;
    BASE refusals::of_what_makes_no_sense: 12, 2 at once, 200 ms;
    BASE refusals::of_long_paths: 6, 1 at once, 5000 ms;
    INTERPRETER code::finished: 40, 2 at once, 20 ms;
    INTERPRETER code::interrupted: 60, 1 at once, 50 ms;
    INTERPRETER code::in_contexts_of_its_own: 3, 1 at once, 10_000 ms;
};

impl Kind {
    /// Performs one action. Waits while the sandbox is paused.
    ///
    /// # Panics
    ///
    /// If an answer is wrong, or takes too long.
    pub(crate) async fn once(&self, kept: &Kept, number: u64) {
        let (_alone, _awake);
        match self.alone {
            true => _alone = kept.awake.write().await,
            false => _awake = kept.awake.read().await,
        }
        tokio::time::timeout(ACTION_TIMEOUT, (self.action)(kept, number)).await.expect("something is held up");
    }

    /// Performs all actions of a trial, in a new sandbox, which must survive them.
    async fn enough(&self, server: &'static Server) {
        let kept = Kept::create(server, json!({"templateID": self.template, "timeout": 900})).await;
        let all = stream::iter(0..self.count);
        all.for_each_concurrent(self.at_once, |number| self.once(&kept, number)).await;
        assert!(kept.lives().await, "the sandbox is gone after {} requests", kept.requests());
        assert_eq!(kept.shell("echo alive").await, "alive\n");
        kept.kill().await;
    }
}

/// One trial for each kind.
pub(crate) fn trials() -> Vec<Trial> {
    let trials = KINDS.iter().map(|kind| trial("life", kind.name, || kind.enough(crate::e2b::server())));
    trials.collect()
}
