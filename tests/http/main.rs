//! Tests of everything above the engine through the public APIs, on the engine without containers: HTTP, API keys, the
//! queue, dialects and their errors, TLS, the configuration. Also the rules for the source that no compiler checks.
//!
//! Every template has the same language here, regardless of its name: a small Python runner. `make check` runs these
//! tests.

#[macro_use]
#[allow(dead_code, reason = "it serves tests on the real engine too")]
#[path = "../it/support.rs"]
mod support;

mod addresses;
mod api_keys;
mod auth;
mod bad_input;
mod capacity;
mod circles;
mod configuration;
mod contradictions;
mod deploy;
mod docs;
#[allow(dead_code, reason = "it serves tests on the real engine too")]
#[path = "../it/e2b.rs"]
mod e2b;
mod e2b_bad_input;
mod e2b_clients;
mod e2b_members;
mod e2b_network;
mod heads;
mod key_file;
mod keys;
mod limits;
mod mcp;
mod mcp_raw;
mod mcp_stdio;
mod metrics;
mod openapi;
mod protocol;
mod repeat;
#[path = "../it/repository.rs"]
mod repository;
mod runs;
mod scopes;
mod tidy;
mod tls;

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::Arguments;
use serde_json::json;

/// The languages of the templates, by the names in their images.
const LANGUAGES: [&str; 6] = ["python", "javascript", "typescript", "r", "java", "bash"];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most tests mostly wait.
    arguments.test_threads.get_or_insert(4);
    let languages = tempfile::tempdir().expect("a directory");
    write_languages(languages.path());
    support::use_process_engine(languages.path());
    let trials = [
        addresses::trials(),
        api_keys::trials(),
        auth::trials(),
        bad_input::trials(),
        capacity::trials(),
        circles::trials(),
        configuration::trials(),
        contradictions::trials(),
        deploy::trials(),
        docs::trials(),
        e2b_bad_input::trials(),
        e2b_network::trials(),
        heads::trials(),
        keys::trials(),
        limits::trials(),
        mcp::trials(),
        mcp_raw::trials(),
        mcp_stdio::trials(),
        metrics::trials(),
        openapi::trials(),
        e2b_clients::trials(),
        e2b_members::trials(),
        protocol::trials(),
        repeat::trials(),
        runs::trials(),
        scopes::trials(),
        tidy::trials(),
        tls::trials(),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    support::times::print();
    if support::stop_shared() & e2b::stop() { conclusion.exit_code() } else { ExitCode::FAILURE }
}

fn write_languages(directory: &Path) {
    let runner = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http/runner.py");
    for name in LANGUAGES {
        let language = json!({"name": name, "command": ["/usr/bin/env", "python3", "-u", runner]});
        std::fs::create_dir(directory.join(name)).expect("a directory");
        std::fs::write(directory.join(name).join("language.json"), language.to_string()).expect("a file");
    }
}
