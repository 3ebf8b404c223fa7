//! Hosts with fewer resources or features than others.

use crate::daemon::Daemon;
use crate::support::{Server, eventually, oncebox, stdout};

trials![a_host_with_one_processor_runs_templates_that_ask_for_more];

async fn a_host_with_one_processor_runs_templates_that_ask_for_more() {
    let daemon = Daemon::start_on_one_processor();
    let processors = daemon.docker(&["info", "--format", "{{.NCPU}}"]);
    assert_eq!(processors, "1\n", "the daemon has more, so that nothing is tested");
    let engine = ("DOCKER_HOST", daemon.address());
    let asked = ("ONCEBOX_TEMPLATES__NODE__CPU_MILLIS", "2500");
    let server = Server::start_cold(&[(engine.0, &engine.1), asked]);
    assert_eq!(stdout(&server.run("js", "console.log('here')").await), "here\n");
    let finding = "the engine's host has 1 processor, and templates ask for more: ";
    eventually("the log names the template", async || {
        let lines = server.logged(finding);
        lines.len() == 1 && lines[0].contains("`js` (2.5)")
    })
    .await;

    let output = oncebox().arg("doctor").env(engine.0, &engine.1).env(asked.0, asked.1).output().expect("oncebox");
    let said = String::from_utf8(output.stdout).expect("text");
    let line = said.lines().find(|line| line.starts_with(&format!("warn processors: {finding}")));
    assert!(line.is_some_and(|line| line.contains("`js` (2.5)")), "{said}");
}
