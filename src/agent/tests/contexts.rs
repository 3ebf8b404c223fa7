use std::path::Path;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::agent::execution;
use crate::agent::runner::{Runner, Start};
use crate::agent::sys::Processes;
use crate::protocol::{End, Event, Execute, Limits, OutcomeKind, StartContext};

/// A runner that executes shell code and keeps its variables.
const RUNNER: &str = r#"
exec 3<"$RUNNER_IN" 4>"$RUNNER_OUT"
unset RUNNER_IN RUNNER_OUT
echo '{"ready":{}}' >&4
result() { echo '{"result":{"data":{},"main":false}}' >&4; }
ending() { echo '{"ending":{}}' >&4; }
failed() { echo '{"ending":{"error":{"name":"Failure","value":"","traceback":""}}}' >&4; }
trap : INT
while :; do
  read -r line <&3 || continue # interrupted
  code=$(printf '%s' "$line" | sed 's/.*"code":"\([^"]*\)".*/\1/')
  eval "$code"
  echo '{"done":{}}' >&4
done
"#;

fn install(languages: &Path) {
    for (name, keep_writes_apart) in [("shell", false), ("piecemeal", true)] {
        let language = languages.join(name);
        std::fs::create_dir(&language).expect("a directory");
        let runner = language.join("runner.sh");
        std::fs::write(&runner, RUNNER).expect("a runner");
        let manifest =
            serde_json::json!({"name": name, "command": ["/bin/sh", runner], "keep_writes_apart": keep_writes_apart});
        std::fs::write(language.join("language.json"), manifest.to_string()).expect("a manifest");
    }
}

async fn start() -> (Sandbox, String) {
    let sandbox = Sandbox::start_with(install).await;
    let context = soon(sandbox.link.start_context(&shell())).await.expect("a context");
    (sandbox, context.id)
}

fn shell() -> StartContext {
    StartContext { language: "shell".into(), ..StartContext::default() }
}

fn code(context: &str, code: &str) -> Execute {
    let limits = Limits { output_bytes: 1 << 20, ..Limits::default() };
    Execute { context: context.into(), code: code.into(), limits, ..Execute::default() }
}

async fn run(sandbox: &Sandbox, execute: &Execute) -> (String, End) {
    let events = all(sandbox.link.execute(execute).await.expect("an execution")).await;
    let mut stdout = String::new();
    for event in events {
        match event {
            Event::Stdout { text } => stdout.push_str(&text),
            Event::End(end) => return (stdout, end),
            Event::Stderr { .. } | Event::Output(_) => {}
        }
    }
    panic!("no end after {stdout:?}");
}

/// Runs code that must succeed, and returns its output.
async fn prints(sandbox: &Sandbox, context: &str, text: &str) -> String {
    let (stdout, end) = run(sandbox, &code(context, text)).await;
    assert_eq!(end.outcome.kind, OutcomeKind::Ok, "{end:?}");
    stdout
}

#[tokio::test]
async fn a_program_may_end_with_its_process_or_not_in_time() {
    let (sandbox, context) = start().await;
    let (stdout, end) = run(&sandbox, &code(&context, "printf main; ending; printf late; exit 0")).await;
    assert_eq!((stdout.as_str(), end.outcome.kind), ("mainlate", OutcomeKind::Ok), "{end:?}");
    let (stdout, end) = run(&sandbox, &code(&context, "failed; printf late; exit 0")).await;
    assert_eq!((stdout.as_str(), end.outcome.kind), ("late", OutcomeKind::Exception), "{end:?}");
    let mut hangs = code(&context, "failed; printf late; exec sleep 60");
    hangs.limits.timeout_ms = 300;
    let (stdout, end) = run(&sandbox, &hangs).await;
    assert_eq!((stdout.as_str(), end.outcome.kind), ("late", OutcomeKind::Exception), "{end:?}");
    assert_eq!(end.exception.expect("an exception").name, "Failure");
}

#[tokio::test]
async fn a_context_starts_in_its_cwd_with_its_environment() {
    let (sandbox, plain) = start().await;
    let request = StartContext { cwd: Some("/usr".into()), env: [("A".into(), "own".into())].into(), ..shell() };
    let context = sandbox.link.start_context(&request).await.expect("a context");
    assert_eq!((context.language.as_str(), context.cwd.as_str()), ("shell", "/usr"));
    assert_eq!(prints(&sandbox, &context.id, "pwd; echo $A").await, "/usr\nown\n");
    assert_eq!(prints(&sandbox, &plain, "pwd; echo $HOME").await, format!("{0}\n{0}\n", sandbox.home()));
    let ids: Vec<_> = sandbox.link.contexts().await.expect("a list").into_iter().map(|context| context.id).collect();
    assert_eq!(ids, [plain, context.id]);
    let lazy = sandbox.link.start_context(&StartContext { lazy: true, ..shell() }).await.expect("a context");
    assert_eq!(prints(&sandbox, &lazy.id, "x=1; pwd").await, format!("{}\n", sandbox.home()));
    assert_eq!(prints(&sandbox, &lazy.id, "echo $x").await, "1\n");
    for (cwd, reason) in [("/no/such", "does not exist"), ("/etc/passwd", "is not a directory")] {
        let nowhere = StartContext { cwd: Some(cwd.into()), ..shell() };
        let (code, message) = refusal(sandbox.link.start_context(&nowhere).await);
        assert_eq!((code, message), (Code::InvalidArgument, format!("cwd '{cwd}' {reason}")));
    }
    let unknown = StartContext { language: "latin".into(), ..StartContext::default() };
    let unknown = refusal(sandbox.link.start_context(&unknown).await);
    assert_eq!(unknown, (Code::NotFound, "the image has no language named `latin`".to_owned()));
}

#[tokio::test]
async fn executions_in_one_context_wait_for_each_other() {
    let (sandbox, id) = start().await;
    let first = code(&id, "sleep 0.3; x=1");
    let second = code(&id, "echo $x");
    let (_, (stdout, _)) = tokio::join!(run(&sandbox, &first), run(&sandbox, &second));
    assert_eq!(stdout, "1\n");
}

#[tokio::test]
async fn a_client_that_hangs_up_interrupts_its_code_and_the_next_client_gets_none_of_its_output() {
    let (sandbox, id) = start().await;
    prints(&sandbox, &id, "kept=yes").await;
    let mut events = sandbox.link.execute(&code(&id, "echo begun; sleep 60; echo after")).await.expect("it");
    let first = soon(events.next()).await.expect("one").expect("no error");
    assert!(matches!(&first, Event::Stdout { text } if text == "begun\n"), "{first:?}");
    drop(events);
    assert_eq!(prints(&sandbox, &id, "echo $kept").await, "yes\n");
}

#[tokio::test]
async fn processes_that_code_starts_after_its_interrupt_end_with_it() {
    let (sandbox, id) = start().await;
    // Not started with the shell's `&`, because such a child ignores the signal.
    let late = "late() { perl -e 'fork or exec qw(sh -c), q(while :; do echo late; sleep 0.01; done)'; trap : INT; }; \
                trap late INT; echo begun; sleep 60";
    let mut events = sandbox.link.execute(&code(&id, late)).await.expect("it");
    soon(events.next()).await.expect("it has begun").expect("no error");
    drop(events);
    assert_eq!(prints(&sandbox, &id, "sleep 0.3; echo next").await, "next\n");
}

#[tokio::test]
async fn code_that_ignores_the_interrupt_costs_the_context_its_interpreter() {
    let (sandbox, id) = start().await;
    let mut events = sandbox.link.execute(&code(&id, "kept=no; trap : INT; echo begun; while :; do :; done")).await;
    soon(events.as_mut().expect("it").next()).await.expect("it has begun").expect("no error");
    drop(events);
    assert_eq!(prints(&sandbox, &id, "echo $kept.").await, ".\n");
}

#[tokio::test]
async fn an_interpreter_that_died_is_replaced_on_the_next_use() {
    let (sandbox, id) = start().await;
    let (_, end) = run(&sandbox, &code(&id, "kept=no; exit 3")).await;
    assert_eq!((end.outcome.kind, end.lost), (OutcomeKind::Exit, true));
    assert_eq!(prints(&sandbox, &id, "echo $kept.").await, ".\n");
    // Also if it died while no execution ran.
    let pid = prints(&sandbox, &id, "echo $$").await;
    let pid = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    let gone = async {
        while rustix::process::test_kill_process(pid).is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await
        }
    };
    soon(gone).await;
    assert_eq!(prints(&sandbox, &id, "echo again").await, "again\n");
}

#[tokio::test]
async fn a_restart_ends_running_and_waiting_executions_and_forgets_the_variables() {
    let (sandbox, id) = start().await;
    let mut running = sandbox.link.execute(&code(&id, "kept=no; echo begun; sleep 60")).await.expect("it");
    soon(running.next()).await.expect("it has begun").expect("no error");
    let waiting = sandbox.link.execute(&code(&id, "echo never")).await.expect("it");
    assert_eq!(soon(sandbox.link.restart_context(&id)).await.expect("restarted").id, id);
    for events in [all(running).await, all(waiting).await] {
        let [Event::End(end)] = &events[..] else { panic!("more than an end: {events:?}") };
        assert_eq!((end.outcome.kind, end.lost), (OutcomeKind::Restarted, true));
    }
    assert_eq!(prints(&sandbox, &id, "echo $kept.").await, ".\n");
}

#[tokio::test]
async fn a_removed_context_is_gone() {
    let (sandbox, id) = start().await;
    let mut running = sandbox.link.execute(&code(&id, "echo begun; sleep 60")).await.expect("it");
    soon(running.next()).await.expect("it has begun").expect("no error");
    sandbox.link.remove_context(&id).await.expect("removed");
    assert!(matches!(&all(running).await[..], [Event::End(end)] if end.outcome.kind == OutcomeKind::Restarted));
    assert_eq!(refusal(sandbox.link.execute(&code(&id, ":")).await).0, Code::NotFound);
    assert_eq!(refusal(sandbox.link.restart_context(&id).await).0, Code::NotFound);
    assert!(sandbox.link.contexts().await.expect("a list").is_empty());
}

#[tokio::test]
async fn an_interrupt_ends_the_code_and_keeps_the_variables() {
    let (sandbox, id) = start().await;
    // The child prints `begun`: an interrupt before its start would reach only the shell, which goes on.
    let text = "kept=yes; sh -c 'echo begun; exec sleep 60'";
    let mut running = sandbox.link.execute(&code(&id, text)).await.expect("it");
    soon(running.next()).await.expect("it has begun").expect("no error");
    sandbox.link.interrupt_context(&id).await.expect("interrupted");
    assert!(matches!(&all(running).await[..], [Event::End(end)] if !end.lost));
    assert_eq!(prints(&sandbox, &id, "echo $kept").await, "yes\n");
}

#[tokio::test]
async fn a_time_limit_ends_the_code_and_no_limit_does_not() {
    let (sandbox, id) = start().await;
    let mut limited = code(&id, "sleep 60");
    limited.limits.timeout_ms = 200;
    let (_, end) = run(&sandbox, &limited).await;
    assert_eq!((end.outcome.kind, end.lost), (OutcomeKind::Timeout, true));
    assert_eq!(prints(&sandbox, &id, "sleep 0.3; echo done").await, "done\n");
}

#[tokio::test]
async fn the_sandboxs_environment_reaches_contexts_that_are_older() {
    let sandbox = Sandbox::start_with(install).await;
    let context = sandbox.link.start_context(&shell()).await.expect("a context");
    let environment = [("A".to_owned(), "late".to_owned())].into();
    sandbox.link.set_environment(&environment).await.expect("it is set");
    // This runner ignores the request's `env`, but a new runner starts with the environment.
    sandbox.link.restart_context(&context.id).await.expect("restarted");
    assert_eq!(prints(&sandbox, &context.id, "echo $A").await, "late\n");
    assert!(sandbox.languages.path().join("fifos").exists());
}

#[tokio::test]
async fn each_write_is_an_event_if_the_language_asks_for_it() {
    let sandbox = Sandbox::start_with(install).await;
    let request = StartContext { language: "piecemeal".into(), ..StartContext::default() };
    let context = soon(sandbox.link.start_context(&request)).await.expect("a context").id;
    let execute = code(&context, "echo a; seq 2; echo b");
    let events = all(sandbox.link.execute(&execute).await.expect("an execution")).await;
    let texts = events.iter().filter_map(|event| match event {
        Event::Stdout { text } => Some(text.as_str()),
        _ => None,
    });
    assert_eq!(texts.collect::<Vec<_>>(), ["a\n", "1\n2\n", "b\n"]);
    // No output is lost, neither of many small writes nor of large ones.
    let flood = prints(&sandbox, &context, "seq 5000 | while read -r n; do echo $n; done").await;
    assert!(flood == (1..=5000).map(|n| format!("{n}\n")).collect::<String>());
    let large = prints(&sandbox, &context, "echo begin; yes abcdefghi | head -c 300000 | tr -d ghi; echo end").await;
    assert!(large == format!("begin\n{}end\n", "abcdef\n".repeat(30_000)));
}

#[test]
fn output_between_a_result_and_the_end_is_not_lost_by_a_slow_agent() {
    // The runtime polls for events rarely and a busy task delays it, as on an overloaded machine.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().event_interval(4).build().expect("a runtime");
    runtime.block_on(async {
        let (sandbox, id) = start().await;
        let busy = tokio::spawn(std::future::poll_fn(|context| {
            std::thread::sleep(Duration::from_millis(4));
            context.waker().wake_by_ref();
            std::task::Poll::<()>::Pending
        }));
        for _ in 0..20 {
            assert_eq!(prints(&sandbox, &id, "result; sleep 0.002; echo after").await, "after\n");
            let (stdout, end) = run(&sandbox, &code(&id, "result; sleep 0.002; echo last; exit 3")).await;
            assert_eq!((stdout.as_str(), end.outcome.kind), ("last\n", OutcomeKind::Exit));
        }
        busy.abort();
    });
}

#[tokio::test]
async fn a_long_write_is_one_event_even_if_the_agent_finds_it_together_with_the_end() {
    let sandbox = Sandbox::start_with(install).await;
    let request = StartContext { language: "piecemeal".into(), ..StartContext::default() };
    let context = soon(sandbox.link.start_context(&request)).await.expect("a context").id;
    for _ in 0..10 {
        let text = "echo begin; sleep 0.05; dd if=/dev/zero bs=40000 count=1 2>/dev/null";
        let mut events = sandbox.link.execute(&code(&context, text)).await.expect("an execution");
        soon(events.next()).await.expect("it has begun").expect("no error");
        // The agent runs on this thread, and afterwards finds everything that the code did meanwhile.
        std::thread::sleep(Duration::from_millis(200));
        let rest = all(events).await;
        assert!(
            matches!(&rest[..], [Event::Stdout { text }, Event::End(_)] if text.len() == 40_000),
            "{} events",
            rest.len()
        );
    }
}

#[tokio::test]
async fn code_that_ends_as_its_client_hangs_up_keeps_its_interpreter() {
    let home = tempfile::tempdir().expect("a directory");
    install(home.path());
    let user = User { name: "tester".to_owned(), ids: None, home: home.path().to_owned(), confined: true };
    let command = ["/bin/sh".to_owned(), home.path().join("piecemeal/runner.sh").display().to_string()];
    let start = Start { command: &command, cwd: home.path(), environment: vec![], keep_writes_apart: true };
    let processes = Processes::start(&user).expect("a reaper");
    let mut runner = Runner::spawn(&processes, &user, home.path().join("fifos"), start).expect("a runner");
    assert!(soon(runner.ready()).await);
    for _ in 0..20 {
        let (events, mut client) = mpsc::channel(1);
        let (_interrupts, interrupts) = mpsc::channel(1);
        let (execute, abandoned) = (code("", "echo begun; sleep 0.05; echo end"), CancellationToken::new());
        let hangs_up = async {
            client.recv().await.expect("it has begun");
            // The agent runs on this thread, and finds the output, the end and the hang-up together.
            std::thread::sleep(Duration::from_millis(150));
            drop(client);
        };
        let (keeps, ()) = tokio::join!(execution::run(&mut runner, execute, events, interrupts, &abandoned), hangs_up);
        assert!(keeps);
    }
}
