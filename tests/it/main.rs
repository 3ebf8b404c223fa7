//! Tests of the whole server through its public APIs: the real program, the real engine, real images.
//!
//! This suite has its own harness, because the server that most tests share must be stopped after the last of them, and
//! must leave nothing behind.

#[macro_use]
#[allow(dead_code, reason = "it serves tests without containers too")]
mod support;

mod actions;
mod cli;
mod daemon;
mod doctor;
mod documents;
mod e2b;
mod e2b_control;
mod e2b_debug;
mod e2b_execute;
mod e2b_files;
mod e2b_machine;
mod e2b_ports;
mod e2b_process;
mod ends;
mod faults;
mod figures;
mod hosts;
mod interrupts;
mod isolation;
mod java;
mod java_failures;
mod java_notebooks;
mod java_programs;
mod javascript;
mod kept;
mod kills;
mod lan;
mod languages;
mod last_line;
mod life;
mod lifecycle;
mod load;
mod mix;
mod names;
mod network;
mod oci_runtime;
mod programs;
mod proxy;
mod python;
mod r;
#[allow(dead_code, reason = "it serves tests without containers too")]
mod repository;
mod restart;
mod run;
mod stream;
mod typescript;
mod whole_files;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most tests mostly wait.
    arguments.test_threads.get_or_insert(4);
    let trials = [
        run::trials(),
        documents::trials(),
        languages::trials(),
        last_line::trials(),
        python::trials(),
        figures::trials(),
        programs::trials(),
        javascript::trials(),
        typescript::trials(),
        whole_files::trials(),
        r::trials(),
        java::trials(),
        java_programs::trials(),
        java_failures::trials(),
        java_notebooks::trials(),
        ends::trials(),
        faults::trials(),
        life::trials(),
        load::trials(),
        restart::trials(),
        cli::trials(),
        hosts::trials(),
        isolation::trials(),
        kept::trials(),
        lifecycle::trials(),
        names::trials(),
        network::trials(),
        oci_runtime::trials(),
        doctor::trials(),
        stream::trials(),
        e2b_control::trials(),
        e2b_machine::trials(),
        e2b_debug::trials(),
        e2b_execute::trials(),
        e2b_process::trials(),
        e2b_files::trials(),
        e2b_ports::trials(),
        interrupts::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    support::times::print();
    let clean = support::stop_shared() & e2b::stop() && support::nothing_is_left();
    if clean { conclusion.exit_code() } else { ExitCode::FAILURE }
}
