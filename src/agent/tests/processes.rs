use bytes::Bytes;
use futures::{Stream, StreamExt};

use super::*;
use crate::protocol::{ProcessEnd, ProcessEvent, ProcessSelector, StartProcess, TerminalSize};

fn shell(script: &str) -> StartProcess {
    StartProcess { command: "/bin/sh".into(), args: vec!["-c".into(), script.into()], ..StartProcess::default() }
}

fn exited(code: i32) -> ProcessEnd {
    ProcessEnd { exit_code: Some(code), signal: None, timed_out: false }
}

fn killed(signal: i32, timed_out: bool) -> ProcessEnd {
    ProcessEnd { exit_code: None, signal: Some(signal), timed_out }
}

/// Collects a process's id, its output on stdout or the terminal, its output on stderr, and its end.
async fn outcome(events: impl Stream<Item = Result<ProcessEvent, LinkError>>) -> (u32, String, String, ProcessEnd) {
    let events = all(events).await;
    let Some(ProcessEvent::Started { pid }) = events.first() else { panic!("no start: {events:?}") };
    let Some(ProcessEvent::Ended(end)) = events.last() else { panic!("no end: {events:?}") };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    for event in &events {
        match event {
            ProcessEvent::Stdout { data } | ProcessEvent::Pty { data } => stdout.extend_from_slice(data),
            ProcessEvent::Stderr { data } => stderr.extend_from_slice(data),
            ProcessEvent::Started { .. } | ProcessEvent::Ended(_) => {}
        }
    }
    (*pid, String::from_utf8(stdout).expect("text"), String::from_utf8(stderr).expect("text"), *end)
}

/// Reads the id of a process from the first event of its stream.
async fn pid(events: &mut (impl Stream<Item = Result<ProcessEvent, LinkError>> + Unpin)) -> ProcessSelector {
    match soon(events.next()).await {
        Some(Ok(ProcessEvent::Started { pid })) => ProcessSelector::Pid(pid),
        other => panic!("no start: {other:?}"),
    }
}

/// Waits until a stream's output contains `text`.
async fn until(events: &mut (impl Stream<Item = Result<ProcessEvent, LinkError>> + Unpin), text: &str) {
    let mut seen = String::new();
    while !seen.contains(text) {
        match soon(events.next()).await {
            Some(Ok(ProcessEvent::Stdout { data } | ProcessEvent::Pty { data })) => {
                seen.push_str(&String::from_utf8_lossy(&data));
            }
            other => panic!("no {text:?} but {other:?} after {seen:?}"),
        }
    }
}

async fn write(sandbox: &Sandbox, process: &ProcessSelector, text: &'static str) -> Result<(), LinkError> {
    soon(sandbox.link.write_stdin(process, Bytes::from_static(text.as_bytes()))).await
}

#[tokio::test]
async fn a_command_has_its_output_and_its_exit_code() {
    let sandbox = Sandbox::start().await;
    let events = sandbox.link.start_process(&shell("echo out; echo err >&2; exit 3")).await.expect("a process");
    let (pid, stdout, stderr, end) = outcome(events).await;
    assert!(pid > 1);
    assert_eq!((stdout.as_str(), stderr.as_str(), end), ("out\n", "err\n", exited(3)));
}

#[tokio::test]
async fn a_command_starts_in_the_home_and_its_own_variables_override_the_others() {
    let sandbox = Sandbox::start().await;
    let environment = [("A", "sandbox"), ("B", "sandbox")].map(|(name, value)| (name.into(), value.into())).into();
    sandbox.link.set_environment(&environment).await.expect("it is set");
    let mut request = shell("pwd; echo $HOME $USER $LOGNAME $A $B; cat; pwd -P");
    request.env = [("B".to_owned(), "own".to_owned())].into();
    let (_, stdout, ..) = outcome(sandbox.link.start_process(&request).await.expect("a process")).await;
    let home = sandbox.home();
    assert_eq!(stdout, format!("{home}\n{home} tester tester sandbox own\n{home}\n"));
    request = StartProcess { cwd: Some("/usr/../tmp".into()), ..shell("pwd") };
    assert_eq!(outcome(sandbox.link.start_process(&request).await.expect("a process")).await.1, "/tmp\n");
}

#[tokio::test]
async fn a_command_that_cannot_start_is_refused_with_the_reason() {
    let sandbox = Sandbox::start().await;
    let start = async |request: StartProcess| refusal(sandbox.link.start_process(&request).await);
    let nowhere = StartProcess { cwd: Some("/no/such".into()), ..shell("true") };
    assert_eq!(start(nowhere).await, (Code::InvalidArgument, "cwd '/no/such' does not exist".into()));
    let nobody = StartProcess { user: Some("x".into()), ..shell("true") };
    assert_eq!(start(nobody).await, (Code::Unauthenticated, "invalid username: 'x'".into()));
    let nothing = StartProcess { command: "/no/such/program".into(), ..StartProcess::default() };
    assert_eq!(start(nothing).await.0, Code::InvalidArgument);
    let process = ProcessSelector::Pid(4_000_000);
    let unknown = refusal(sandbox.link.signal_process(&process, 15).await);
    assert_eq!(unknown, (Code::NotFound, "process with pid 4000000 not found".into()));
}

#[tokio::test]
async fn a_process_outlives_its_stream_and_can_be_followed_again_by_pid_or_tag() {
    let sandbox = Sandbox::start().await;
    let request = StartProcess { stdin: true, tag: Some("mine".into()), ..shell("echo early; read x; echo got $x") };
    let mut events = sandbox.link.start_process(&request).await.expect("a process");
    let process = pid(&mut events).await;
    until(&mut events, "early").await;
    drop(events);
    let listed = all(sandbox.link.processes().await.expect("a list")).await;
    assert_eq!((listed.len(), listed[0].tag.as_deref(), listed[0].args.clone()), (1, Some("mine"), request.args));
    let by_tag = ProcessSelector::Tag("mine".into());
    let first = sandbox.link.attach_process(&process).await.expect("the process");
    let second = sandbox.link.attach_process(&by_tag).await.expect("the process");
    write(&sandbox, &by_tag, "it\n").await.expect("written");
    for events in [outcome(first).await, outcome(second).await] {
        // Only the output since the subscription.
        assert_eq!(
            (ProcessSelector::Pid(events.0), events.1.as_str(), events.3),
            (process.clone(), "got it\n", exited(0))
        );
    }
    // The end can still be fetched, but the process is gone.
    assert_eq!(outcome(sandbox.link.attach_process(&by_tag).await.expect("its end")).await.3, exited(0));
    assert!(all(sandbox.link.processes().await.expect("a list")).await.is_empty());
    assert_eq!(refusal(write(&sandbox, &process, "more").await).0, Code::NotFound);
}

#[tokio::test]
async fn stdin_is_read_until_it_is_closed() {
    let sandbox = Sandbox::start().await;
    let mut events = sandbox.link.start_process(&StartProcess { stdin: true, ..shell("cat") }).await.expect("cat");
    let process = pid(&mut events).await;
    write(&sandbox, &process, "one ").await.expect("written");
    write(&sandbox, &process, "two").await.expect("written");
    until(&mut events, "one two").await;
    sandbox.link.close_stdin(&process).await.expect("closed");
    let rest = all(events).await;
    assert_eq!(rest, [ProcessEvent::Ended(exited(0))]);

    let mut events = sandbox.link.start_process(&StartProcess { stdin: true, ..shell("sleep 60") }).await.expect("it");
    let process = pid(&mut events).await;
    sandbox.link.close_stdin(&process).await.expect("closed");
    assert_eq!(refusal(write(&sandbox, &process, "x").await).0, Code::FailedPrecondition);
}

#[tokio::test]
async fn a_signal_ends_the_process_and_its_stream_even_if_a_child_holds_the_pipes() {
    let sandbox = Sandbox::start().await;
    for signal in [15, 9] {
        let mut events = sandbox.link.start_process(&shell("sleep 60 & echo ready; wait")).await.expect("a process");
        let process = pid(&mut events).await;
        until(&mut events, "ready").await;
        sandbox.link.signal_process(&process, signal).await.expect("sent");
        assert_eq!(all(events).await.last(), Some(&ProcessEvent::Ended(killed(signal, false))));
    }
}

#[tokio::test]
async fn without_a_signal_a_child_that_holds_the_pipes_keeps_the_stream_open() {
    let sandbox = Sandbox::start().await;
    let events = sandbox.link.start_process(&shell("(sleep 0.5; echo late) & exit 4")).await.expect("a process");
    let (_, stdout, _, end) = outcome(events).await;
    assert_eq!((stdout.as_str(), end), ("late\n", exited(4)));
}

#[tokio::test]
async fn a_process_is_killed_at_its_timeout() {
    let sandbox = Sandbox::start().await;
    let request = StartProcess { timeout_ms: Some(3000), ..shell("echo begun; exec sleep 60") };
    let (_, stdout, _, end) = outcome(sandbox.link.start_process(&request).await.expect("a process")).await;
    assert_eq!((stdout.as_str(), end), ("begun\n", killed(9, true)));
}

#[tokio::test]
async fn a_slow_reader_delays_its_process_only_and_loses_no_output() {
    let sandbox = Sandbox::start().await;
    let script = "head -c 8000000 /dev/zero";
    let slow = sandbox.link.start_process(&shell(script)).await.expect("a process");
    let fast = sandbox.link.start_process(&shell(script)).await.expect("a process");
    assert_eq!(outcome(fast).await.1.len(), 8_000_000);
    assert_eq!(all(sandbox.link.processes().await.expect("a list")).await.len(), 1);
    assert_eq!(outcome(slow).await.1.len(), 8_000_000);

    let slow = sandbox.link.start_process(&shell(script)).await.expect("a process");
    let mut events = sandbox.link.start_process(&shell(script)).await.expect("a process");
    let process = pid(&mut events).await;
    drop(events);
    // A process without readers runs to its end.
    assert_eq!(outcome(sandbox.link.attach_process(&process).await.expect("it")).await.3, exited(0));
    drop(slow);
}

#[tokio::test]
async fn a_process_can_have_a_real_terminal() {
    let sandbox = Sandbox::start().await;
    let script = "test -t 0 && test -t 1 && stty size </dev/tty; read line; echo got $line; read x; stty size; echo ready; exec sleep 60";
    let request = StartProcess { pty: Some(TerminalSize { cols: 97, rows: 31 }), ..shell(script) };
    let mut events = sandbox.link.start_process(&request).await.expect("a process");
    let process = pid(&mut events).await;
    until(&mut events, "31 97\r\n").await;
    let type_in = |text: &'static str| sandbox.link.write_terminal(&process, Bytes::from_static(text.as_bytes()));
    type_in("hello\n").await.expect("typed");
    until(&mut events, "got hello\r\n").await;
    sandbox.link.resize_terminal(&process, TerminalSize { cols: 40, rows: 20 }).await.expect("resized");
    type_in("\n").await.expect("typed");
    until(&mut events, "20 40\r\nready\r\n").await;
    assert_eq!(refusal(sandbox.link.close_stdin(&process).await).0, Code::FailedPrecondition);
    assert_eq!(refusal(write(&sandbox, &process, "x").await).0, Code::FailedPrecondition);
    // Ctrl-C.
    type_in("\x03").await.expect("typed");
    assert_eq!(all(events).await.last(), Some(&ProcessEvent::Ended(killed(2, false))));
}

#[tokio::test]
async fn the_last_output_on_a_terminal_is_not_lost() {
    let sandbox = Sandbox::start().await;
    let request = StartProcess {
        pty: Some(TerminalSize { cols: 80, rows: 24 }),
        ..shell("head -c 200000 /dev/zero | tr '\\0' x; printf end")
    };
    let (_, stdout, _, end) = outcome(sandbox.link.start_process(&request).await.expect("a process")).await;
    assert_eq!((stdout.len(), end), (200_003, exited(0)));
    assert!(stdout.ends_with("end"));
}

#[tokio::test]
async fn ended_processes_are_reaped_at_once() {
    let sandbox = Sandbox::start().await;
    let (pid, ..) = outcome(sandbox.link.start_process(&shell("true")).await.expect("a process")).await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn the_agent_ends_with_its_server_and_ends_all_processes() {
    let sandbox = Sandbox::start().await;
    let mut events = sandbox.link.start_process(&shell("sleep 60 & echo $!; wait")).await.expect("a process");
    let ProcessSelector::Pid(pid) = pid(&mut events).await else { unreachable!("it is an id") };
    until(&mut events, "\n").await;
    let watch = crate::protocol::WatchQuery::default();
    let _watching = sandbox.link.watch(&watch).await.expect("a watch");
    sandbox.link.create_watcher(&watch).await.expect("a watcher");
    drop(sandbox.link);
    let _ = soon(sandbox.agent).await.expect("no panic");
    let is_alive = || rustix::process::test_kill_process_group(group(pid)).is_ok();
    soon(async {
        while is_alive() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

fn group(pid: u32) -> rustix::process::Pid {
    i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("an id")
}
