//! Attacks by hostile and careless code, from inside a sandbox and from outside on the server's APIs. Each case is
//! something that must not happen; at the end a report lists how many cases of each class held.
//!
//! This suite has its own harness, because some of its servers are weakened on purpose.

#[macro_use]
#[path = "../it/support.rs"]
#[allow(dead_code, unused_macros, reason = "written for the other tests too")]
mod support;
#[path = "../it/e2b.rs"]
#[allow(dead_code, reason = "written for the other tests too")]
mod e2b;
#[path = "../http/key_file.rs"]
#[allow(dead_code, reason = "written for the other tests too")]
mod key_file;
#[path = "../it/lan.rs"]
#[allow(dead_code, reason = "written for the other tests too")]
mod lan;
#[path = "../it/machine.rs"]
mod machine;
#[path = "../it/proxy.rs"]
#[allow(dead_code, reason = "written for the other tests too")]
mod proxy;

mod attacker;
mod ends;
mod files;
mod neighbours;
mod probes;
mod replies;
mod report;
mod requests;
mod shares;
mod slow;
mod tenants;
mod weak;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;

use libtest_mimic::{Arguments, Trial};
use report::{Class, Report};
use tokio::sync::RwLock;

/// For each class, the number of cases and the number of those that held.
static CLASSES: Mutex<BTreeMap<&str, Class>> = Mutex::new(BTreeMap::new());

/// Held shared by most cases, and exclusively by a case that needs the machine for itself.
static TURN: RwLock<()> = RwLock::const_new(());

/// A case of a class: an async function that panics if the forbidden thing has happened.
pub(crate) fn case<F>(class: &'static str, name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    trial(class, name, async move || {
        let _turn = TURN.read().await;
        test().await;
    })
}

/// A case that runs while no other case does.
pub(crate) fn case_alone<F>(class: &'static str, name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    trial(class, name, async move || {
        let _turn = TURN.write().await;
        test().await;
    })
}

fn trial(class: &'static str, name: &str, test: impl AsyncFnOnce() + Send + 'static) -> Trial {
    let name = format!("{class}::{name}");
    Trial::test(name.clone(), move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let test = || support::panics::caught(|| runtime.expect("a runtime").block_on(test()));
        let done = support::times::timed(name, test);
        {
            let mut classes = CLASSES.lock().expect("the counts");
            let class = classes.entry(class).or_default();
            class.tried += 1;
            class.held += usize::from(done.is_ok());
        }
        done
    })
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most cases mostly wait.
    arguments.test_threads.get_or_insert(4);
    let trials = [
        probes::trials(),
        ends::trials(),
        neighbours::trials(),
        tenants::trials(),
        requests::trials(),
        slow::trials(),
        replies::trials(),
        files::trials(),
        shares::trials(),
    ];
    let trials = trials.into_iter().flatten().collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    support::times::print();
    let report = Report {
        classes: &CLASSES.lock().expect("the counts"),
        without_control: probes::without_control(),
        neighbours: neighbours::measured(),
    };
    report.publish();
    let servers = weak::stop() & support::stop_shared() & e2b::stop() & neighbours::stop();
    let stopped = servers & requests::stop() & slow::stop() & files::stop() & shares::stop();
    let clean = stopped && support::nothing_is_left();
    if clean { conclusion.exit_code() } else { ExitCode::FAILURE }
}
