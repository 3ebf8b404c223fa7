//! A hostile sandbox: root inside writes to its agent's standard output, which is the link to the server, or damages
//! the agent. That breaks only its own sandbox. The server, its memory and all other requests are unaffected, and
//! clients that wait for the broken sandbox soon get an error.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use libtest_mimic::Trial;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::attacker::frame;
use crate::e2b::{ENVD, Sandbox, Stream, answer, envelope, server};
use crate::support::eventually;

/// The time in which a client of a broken sandbox must get an answer: twice the silence that a link allows, and a
/// little more.
const BOUND: Duration = Duration::from_secs(60);

/// The bytes that attacks may add to the server's memory: four of them run at once, and other classes use the same
/// server.
const GROWTH: u64 = 128 << 20;

/// The expected fate of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The sandbox is lost, which proves that the attack took effect.
    Lost,
    /// The sandbox may survive. The attack took effect if it ended with status 0, or if the sandbox is lost.
    Either,
    /// The sandbox survives, because the attack is refused.
    Held,
}

use Fate::{Either, Held, Lost};

/// Bytes that an attack writes to the link, once.
type Garbage = fn() -> Vec<u8>;

/// Repeats frames for every odd stream number that may be open.
fn every(make: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..200).flat_map(|at| make(at * 2 + 1)).collect()
}

/// `:status: 200` in HPACK.
const OK: &[u8] = &[0x88];

const WRITTEN: [(&str, Fate, Garbage); 27] = [
    ("random bytes", Lost, || (0..100_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()),
    ("zeros", Either, || vec![0; 1 << 20]),
    ("bytes of all ones", Lost, || vec![0xff; 1 << 20]),
    ("text", Lost, || b"Traceback (most recent call last):\n".repeat(1000)),
    ("an answer of HTTP/1", Lost, || b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged".to_vec()),
    ("the events of a run", Lost, || b"{\"stdout\": {\"text\": \"forged\"}}\n{\"end\": {}}\n".to_vec()),
    ("a client's preface", Lost, || crate::attacker::PREFACE.to_vec()),
    ("a GOAWAY", Either, || frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0])),
    ("a GOAWAY with an error for all streams", Either, || frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 2])),
    ("a thousand GOAWAYs that name later and later streams", Lost, || {
        (1..1000_u32).flat_map(|at| frame(7, 0, 0, &[&at.to_be_bytes()[..], &[0; 4]].concat())).collect()
    }),
    ("a window that runs over", Lost, || frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(2)),
    ("windows of no stream", Lost, || every(|id| frame(8, 0, id + 100_000, &[0, 0, 1, 0]))),
    ("a window of nothing", Lost, || frame(8, 0, 0, &[0; 4])),
    ("settings that are not allowed", Lost, || frame(4, 0, 0, &[0, 5, 0, 0, 0, 1])),
    ("settings of a part of six bytes", Lost, || frame(4, 0, 0, &[0; 5])),
    ("10,000 settings", Either, || frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]).repeat(10_000)),
    ("10,000 confirmations of settings", Lost, || frame(4, 1, 0, &[]).repeat(10_000)),
    ("10,000 pings", Either, || frame(6, 0, 0, &[7; 8]).repeat(10_000)),
    ("a ping of no stream's", Lost, || frame(6, 0, 5, &[7; 8])),
    ("resets of every stream", Either, || every(|id| frame(3, 0, id, &[0, 0, 0, 2]))),
    ("a push", Lost, || frame(5, 4, 1, &[&[0, 0, 0, 2], OK].concat())),
    ("forged answers for every stream", Lost, || {
        every(|id| [frame(1, 4, id, OK), frame(0, 1, id, b"{\"forged\": true}\n")].concat())
    }),
    ("forged data for every stream", Lost, || every(|id| frame(0, 1, id, b"{\"forged\": true}\n"))),
    ("forged ends of every stream", Lost, || every(|id| frame(0, 1, id, b""))),
    ("headers that go on for ever", Lost, || {
        [frame(1, 0, 1, OK), frame(9, 0, 1, &[0x40, 1, b'x', 1, b'y'].repeat(3000)).repeat(500)].concat()
    }),
    ("a table of headers that is too large", Lost, || frame(1, 4, 1, &[0x3f, 0xe1, 0xff, 0xff, 0xff, 0x0f])),
    ("a frame of 16 megabytes", Lost, || frame(0, 0, 1, &vec![b'x'; (1 << 24) - 1])),
];

/// Other attacks of root on the agent. Each command ends with status 0 if it succeeded.
const DONE: [(&str, Fate, &str); 14] = [
    ("writes zeros to the link for ever", Either, "timeout 3 cat /dev/zero > /proc/1/fd/1; [ $? = 124 ]"),
    ("writes noise to the link for ever", Lost, "timeout 3 cat /dev/urandom > /proc/1/fd/1"),
    (
        "writes to the agent's log for ever, without a line's end",
        Either,
        "timeout 3 cat /dev/zero > /proc/1/fd/2; [ $? = 124 ]",
    ),
    ("writes lines to the agent's log for ever", Either, "timeout 3 yes forged > /proc/1/fd/2; [ $? = 124 ]"),
    ("kills everything there is", Either, "kill -9 -1 && kill -STOP 1 && kill -9 1"),
    ("removes the agent's files", Either, "rm -r /opt/oncebox /run/oncebox"),
    (
        "puts other files in the agent's place",
        Either,
        "mv /opt/oncebox/agent /tmp/a && cp /bin/false /opt/oncebox/agent",
    ),
    ("writes to every FIFO of an interpreter", Either, FIFOS),
    ("allows the agent no more files", Either, "prlimit --pid 1 --nofile=1:1"),
    ("allows the agent no more memory", Either, "prlimit --pid 1 --as=1:1"),
    (
        "fills the shared memory",
        Either,
        "timeout 9 cat /dev/zero > /dev/shm/full; [ \"$(stat -f -c %a /dev/shm)\" = 0 ]",
    ),
    ("overwrites the agent's memory", Either, OVERWRITE),
    ("reads what the server sends", Either, "timeout 3 cat /proc/1/fd/0 > /dev/null; [ $? = 124 ]"),
    // Seccomp denies tracing; nothing else is known to prevent it.
    ("traces the agent", Held, TRACE),
];

/// Writes to the runners' FIFOs, of which there must be some.
const FIFOS: &str = "found=$(find /run/oncebox -type p) && [ -n \"$found\" ] && (for one in $found; do \
                     timeout 1 bash -c \"echo '{}' > $one\"; case $? in 0 | 124) ;; *) exit 1 ;; esac; done)";

const OVERWRITE: &str = r#"python3 -c "
written = 0
for line in open('/proc/1/maps'):
    span, rights = line.split()[:2]
    if 'w' in rights:
        first, last = (int(end, 16) for end in span.split('-'))
        try:
            memory = open('/proc/1/mem', 'r+b', 0)
            memory.seek(first)
            written += memory.write(bytes(last - first))
        except OSError:
            pass
raise SystemExit(0 if written else 1)
""#;

/// Stops the agent, if possible, for longer than a link may be silent.
const TRACE: &str = r#"python3 -c "
import ctypes, time
ptrace = ctypes.CDLL(None).ptrace
if ptrace(0x4206, 1, 0, 0) != 0 or ptrace(0x4207, 1, 0, 0) != 0:
    raise SystemExit(1)
time.sleep(90)
""#;

pub(crate) fn trials() -> Vec<Trial> {
    let written = WRITTEN.into_iter().map(|(what, fate, garbage)| {
        case(&format!("{what} on the link: that sandbox's loss and nobody else's"), move || async move {
            let garbage = BASE64_STANDARD.encode(garbage());
            attack("base64 -d /tmp/attack > /proc/1/fd/1", garbage, fate).await;
        })
    });
    let done = DONE.into_iter().map(|(what, fate, command)| {
        case(&format!("root {what}: that sandbox's loss and nobody else's"), move || {
            attack(command, String::new(), fate)
        })
    });
    written.chain(done).collect()
}

fn case<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial {
    crate::case("replies", name, test)
}

/// A sandbox of another client.
async fn bystander() -> &'static Sandbox {
    static BYSTANDER: OnceCell<Sandbox> = OnceCell::const_new();
    BYSTANDER.get_or_init(|| Sandbox::create(json!({"templateID": "base", "timeout": 7200}))).await
}

/// Starts a command as root.
async fn as_root(sandbox: &Sandbox, command: &str) -> Option<Stream> {
    let call = json!({"process": {"cmd": "/bin/bash", "args": ["-c", command]}, "stdin": false}).to_string();
    let start = sandbox.envd(Method::POST, "/process.Process/Start").basic_auth("root", Some(""));
    let start = start.header("content-type", "application/connect+json").body(envelope(0, call.as_bytes()));
    let response = start.send().await.ok()?;
    (response.status() == 200).then(|| Stream::new(response))
}

async fn attack(command: &str, garbage: String, fate: Fate) {
    let bystander = bystander().await;
    let own = Sandbox::create(json!({"templateID": "base", "timeout": 600})).await;
    let write = own.envd(Method::POST, "/files?path=/tmp/attack").header("content-type", "application/octet-stream");
    assert_eq!(answer(write.body(garbage)).await.status, 200);
    // There are FIFOs only while an interpreter is running.
    if command.contains("/run/oncebox") {
        let executed = own.execute(&json!({"code": "6 * 7"})).await;
        assert!(executed.iter().any(|line| line["text"] == "42"), "{executed:?}");
    }
    let before = server().memory_bytes();

    // During the attack, one client waits in the attacked sandbox, and one in another.
    let mut waiting = own.start("sleep 600").await;
    waiting.pid().await;
    let mut elsewhere = bystander.start("sleep 2; echo undisturbed").await;
    elsewhere.pid().await;

    // Even the beginning of the answer may be lost.
    let attacked = async {
        match as_root(&own, &format!("{command}; echo rc $?")).await {
            Some(attacking) => ended(attacking).await,
            None => None,
        }
    };
    let attacked = tokio::time::timeout(BOUND, attacked).await.expect("who attacks is not held for ever");
    let is_lost = tokio::time::timeout(BOUND, is_lost(&own)).await.expect("who asks is not held for ever");
    match fate {
        Lost => assert!(is_lost, "it lives on: {attacked:?}"),
        Either => {
            assert!(is_lost || attacked.as_deref().is_some_and(arrived), "the attack did not arrive: {attacked:?}");
        }
        Held => assert!(!is_lost && attacked.as_deref().is_some_and(|told| !arrived(told)), "{attacked:?}"),
    }
    // A broken link ends the request of the waiting client. Other damage to an agent ends with its sandbox at the
    // latest.
    let mut waiting = Some(waiting);
    if fate == Lost {
        let told = ends_in_time(waiting.take().expect("it waits")).await;
        assert!(told.is_none_or(|told| told.last() != Some(&json!({}))), "a forged end was believed");
    }
    let told = elsewhere.rest().await.expect("another sandbox's stream goes on");
    assert_eq!(crate::e2b::stdout(&told), "undisturbed\n", "{told:?}");
    let others = Instant::now();
    assert_eq!(bystander.shell("echo well").await, "well\n");
    assert!(others.elapsed() < Duration::from_secs(30), "others waited {:?}", others.elapsed());
    // Memory that was held while an attack was read is given back, but not at once.
    eventually("its memory is what it was", async || server().memory_bytes().saturating_sub(before) < GROWTH).await;
    eventually("it is ready", async || server().get("/readyz").await.0 == 200).await;
    let end = own.api(Method::DELETE, "", None).await;
    assert!([204, 404].contains(&end.status), "{}", end.text());
    if let Some(waiting) = waiting {
        ends_in_time(waiting).await;
    }
}

/// The waiting client's request ends in time; returns its messages, if it ended in an orderly way.
async fn ends_in_time(mut waiting: Stream) -> Option<Vec<Value>> {
    tokio::time::timeout(BOUND, waiting.rest()).await.expect("who waits is not held for ever")
}

/// The output of an attack, if it ran to its end.
async fn ended(mut attacking: Stream) -> Option<String> {
    let mut messages = Vec::new();
    while let Ok(Some((_, message))) = attacking.next().await {
        messages.push(message);
        if !messages[messages.len() - 1]["event"]["end"].is_null() {
            return Some(crate::e2b::stdout(&messages));
        }
    }
    None
}

/// Whether the output of an attack shows that it succeeded.
fn arrived(output: &str) -> bool {
    output.ends_with("rc 0\n")
}

/// Whether the sandbox no longer answers correctly.
async fn is_lost(own: &Sandbox) -> bool {
    let call = json!({"process": {"cmd": "/bin/echo", "args": ["alive"]}, "stdin": false}).to_string();
    let start = own.at(ENVD, Method::POST, "/process.Process/Start").header("x-access-token", &own.token);
    let start = start.header("content-type", "application/connect+json").body(envelope(0, call.as_bytes()));
    let Ok(response) = start.send().await else { return true };
    if response.status() != 200 {
        return true;
    }
    match response.text().await {
        Ok(text) => !text.contains(&BASE64_STANDARD.encode("alive\n")),
        Err(_) => true,
    }
}
