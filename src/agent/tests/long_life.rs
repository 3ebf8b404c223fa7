//! Requests that add up over the days of a link's life. None may end the link by one of h2's limits against hostile
//! peers, which count over a connection's life.

use bytes::Bytes;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::protocol::{MoveQuery, ProcessEvent, ProcessSelector, ReadQuery, StartProcess, TerminalSize, WriteQuery};

/// Checks that the link still serves requests, by a small write and a read.
async fn assert_alive(sandbox: &Sandbox) {
    soon(sandbox.link.write_file("well", Bytes::from_static(b"well"))).await.expect("it is written");
    let query = ReadQuery { path: "well".to_owned(), ..ReadQuery::default() };
    let content = soon(sandbox.link.read_file(&query)).await.expect("it is read");
    assert_eq!(all(content.bytes).await.concat(), b"well");
}

fn shell(script: &str) -> StartProcess {
    let args = vec!["-c".into(), script.into()];
    StartProcess { command: "/bin/sh".into(), args, stdin: true, ..StartProcess::default() }
}

/// Starts a command and reads the event of its start.
async fn begun(
    sandbox: &Sandbox,
    query: &StartProcess,
) -> (ProcessSelector, impl Stream<Item = Result<ProcessEvent, LinkError>> + Unpin + use<>) {
    let mut events = soon(sandbox.link.start_process(query)).await.expect("a process");
    match soon(events.next()).await {
        Some(Ok(ProcessEvent::Started { pid })) => (ProcessSelector::Pid(pid), events),
        other => panic!("no start: {other:?}"),
    }
}

#[tokio::test]
async fn uploads_that_end_with_an_empty_piece() {
    let sandbox = Sandbox::start().await;
    let query = WriteQuery { path: "empty".to_owned(), ..WriteQuery::default() };
    for pieces in [&["", ""][..], &["x", "", "y", ""]].into_iter().cycle().take(600) {
        let pieces = futures::stream::iter(pieces.iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from(*piece))));
        soon(sandbox.link.write_file_from(&query, pieces)).await.expect("it is written");
    }
    assert_alive(&sandbox).await;
}

#[tokio::test]
async fn uploads_that_break_off_or_are_refused() {
    let sandbox = Sandbox::start().await;
    for round in 0..2000 {
        let path = if round % 2 == 0 { "broken" } else { "refused/" };
        let query = WriteQuery { path: path.to_owned(), ..WriteQuery::default() };
        let pieces = (0..5).map(|_| Ok(Bytes::from_static(b"small"))).chain([Err(std::io::Error::other("gone"))]);
        assert!(soon(sandbox.link.write_file_from(&query, futures::stream::iter(pieces))).await.is_err());
    }
    assert_alive(&sandbox).await;
}

#[tokio::test]
async fn small_pieces_without_a_reader() {
    let sandbox = Sandbox::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let mut unread = Vec::new();
    for _ in 0..8 {
        unread.push(soon(sandbox.link.connect(port)).await.expect("a connection"));
        let (mut inside, _) = listener.accept().await.expect("a connection");
        inside.set_nodelay(true).expect("a socket");
        // One byte at a time; the agent runs after each.
        for _ in 0..20_000 {
            inside.write_all(b"x").await.expect("the kernel has room");
            tokio::task::yield_now().await;
        }
    }
    assert_alive(&sandbox).await;
    // A late reader still gets everything.
    let mut read = vec![0; 20_000];
    soon(unread[0].read_exact(&mut read)).await.expect("all of it");
    assert_eq!(read, vec![b'x'; 20_000]);
}

#[tokio::test]
async fn empty_input() {
    let sandbox = Sandbox::start().await;
    let (process, mut events) = begun(&sandbox, &shell("exec cat")).await;
    for _ in 0..300 {
        soon(sandbox.link.write_stdin(&process, Bytes::new())).await.expect("nothing is written");
    }
    soon(sandbox.link.write_stdin(&process, Bytes::from_static(b"hello"))).await.expect("it is written");
    match soon(events.next()).await {
        Some(Ok(ProcessEvent::Stdout { data })) => assert_eq!(data, "hello"),
        other => panic!("no output: {other:?}"),
    }
    let terminal = StartProcess { pty: Some(TerminalSize { cols: 80, rows: 24 }), ..shell("exec cat") };
    let (process, _events) = begun(&sandbox, &terminal).await;
    for _ in 0..300 {
        soon(sandbox.link.write_terminal(&process, Bytes::new())).await.expect("nothing is typed");
    }
    assert_alive(&sandbox).await;
}

#[tokio::test]
async fn requests_that_are_dropped_before_their_answer() {
    let sandbox = Sandbox::start().await;
    let query = ReadQuery { path: "well".to_owned(), ..ReadQuery::default() };
    for round in 0..6_000_u32 {
        let mut read = std::pin::pin!(sandbox.link.read_file(&query));
        // Dropped after a different number of polls in each round.
        for _ in 0..round % 7 {
            if futures::poll!(&mut read).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    assert_alive(&sandbox).await;
}

#[tokio::test]
async fn requests_that_are_dropped_while_the_agent_does_not_run() {
    let sandbox = Sandbox::start().await;
    // The agent does not run in between, because it is a task of the same thread.
    for _ in 0..20_000 {
        let mut read = Box::pin(sandbox.link.metrics());
        let _ = futures::poll!(&mut read);
    }
    assert_alive(&sandbox).await;
}

#[tokio::test]
async fn names_that_are_too_long() {
    let sandbox = Sandbox::start().await;
    for bytes in [4_000, 5_000, 20_000, 70_000, 5_000_000] {
        for letter in ["a", "/", "\u{1f980}"] {
            let path = letter.repeat(bytes / letter.len());
            let query = ReadQuery { path: path.clone(), ..ReadQuery::default() };
            refusal(soon(sandbox.link.read_file(&query)).await.map(|_| ()));
            let moved = MoveQuery { from: path.clone(), to: path, user: None };
            refusal(soon(sandbox.link.move_path(&moved)).await.map(|_| ()));
        }
    }
    assert_alive(&sandbox).await;
}

#[tokio::test]
async fn lists_that_are_long() {
    let sandbox = Sandbox::start().await;
    let env = [("LARGE".to_owned(), "x".repeat(100_000))].into();
    let query = StartProcess { env, ..shell("exec sleep 600") };
    let mut processes = Vec::new();
    for _ in 0..100 {
        processes.push(begun(&sandbox, &query).await);
    }
    let listed = all(soon(sandbox.link.processes()).await.expect("a list")).await;
    assert_eq!((listed.len(), listed[99].env["LARGE"].len()), (100, 100_000));
}
