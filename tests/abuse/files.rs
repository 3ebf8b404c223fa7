//! Files go in and out of a sandbox, and no path, link or device leads to the host: reads return the container's own
//! files, and writes appear nowhere else. A file on the host has content that nobody inside may see.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use libtest_mimic::Trial;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

use crate::e2b::{Answer, KEY, Sandbox, answer, in_time, request, server};
use crate::support::eventually;

/// The content of the file on the host.
const CANARY: &str = "canary-7d1c93e2f5";

/// The time in which every request for a file must be answered, or at least begin to be.
const BOUND: Duration = Duration::from_secs(20);

/// Held while a test writes through a link and reads it again, because the links lead to the same place.
static LINKS: Mutex<()> = Mutex::const_new(());

/// Creates a file on the host, in its own directory, which is removed with it.
fn canary() -> &'static PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("oncebox-canary-{}", std::process::id()));
        std::fs::write(&path, CANARY).expect("a file on the host");
        path
    })
}

/// Removes the file on the host, if a test has created it.
pub(crate) fn stop() -> bool {
    let _ = std::fs::remove_file(std::env::temp_dir().join(format!("oncebox-canary-{}", std::process::id())));
    true
}

/// A sandbox with traps in `/tmp/traps`: links that lead out, devices, FIFOs, invalid names.
async fn trapped() -> &'static Sandbox {
    static TRAPPED: OnceCell<Sandbox> = OnceCell::const_new();
    TRAPPED
        .get_or_init(|| async {
            let sandbox = Sandbox::create(json!({"templateID": "base", "timeout": 7200})).await;
            let canary = canary().display();
            let pid = server().pid();
            sandbox
                .shell(&format!(
                    "mkdir /tmp/traps; cd /tmp/traps; echo own > own; \
                     ln -s {canary} to-canary; ln -s /etc/shadow to-shadow; ln -s /proc/self/environ to-environ; \
                     ln -s /proc/{pid}/environ to-server; ln -s ../../../../../../{canary} up-to-canary; \
                     ln -s loop loop; ln -s b a; ln -s a b; ln -s / root; ln -s /proc/1/root to-init; \
                     ln -s /proc/1/cwd/{canary} through-init; ln -s /dev/zero to-zero; ln -s /var/run/docker.sock to-docker; \
                     mkfifo fifo; truncate -s 1T /dev/shm/sparse; ln -s /dev/shm/sparse to-sparse; \
                     python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('/tmp/traps/socket')\"; \
                     touch $'new\\nline' $'not\\xffutf8' \"$(printf '%0255d' 0)\"; \
                     for i in $(seq 100); do mkdir -p d/d/d/d/d/d/d/d/d/d && cd d/d/d/d/d/d/d/d/d/d || break; done; true"
                ))
                .await;
            sandbox
        })
        .await
}

/// Paths that try to lead outside, nowhere, or on without end. Tests download, stat and list them.
const PATHS: [(&str, &str); 36] = [
    ("the canary's own path", "CANARY"),
    ("a path with dots", "../../../../../../../../CANARY"),
    ("an absolute path with dots", "/home/user/../../../../../../CANARY"),
    ("a path below another account's home", "~root/../CANARY"),
    ("a link to the host's file", "/tmp/traps/to-canary"),
    ("a link with dots", "/tmp/traps/up-to-canary"),
    ("a link to passwords", "/tmp/traps/to-shadow"),
    ("passwords", "/etc/shadow"),
    ("a link to an environment", "/tmp/traps/to-environ"),
    ("an environment", "/proc/self/environ"),
    ("a link to the server's environment", "/tmp/traps/to-server"),
    ("the agent's root", "/proc/1/root/CANARY"),
    ("a link to the agent's root", "/tmp/traps/to-init/CANARY"),
    ("a link through the agent's directory", "/tmp/traps/through-init"),
    ("the agent's open files", "/proc/1/fd/0"),
    ("the agent's memory", "/proc/1/mem"),
    ("a link to itself", "/tmp/traps/loop"),
    ("two links to each other", "/tmp/traps/a"),
    ("the root by links", "/tmp/traps/root/tmp/traps/root/tmp/traps/root/CANARY"),
    ("an endless device", "/dev/zero"),
    ("a link to an endless device", "/tmp/traps/to-zero"),
    ("the host's memory", "/dev/mem"),
    ("the host's disk", "/dev/sda"),
    ("the kernel's memory", "/proc/kcore"),
    ("the kernel's messages", "/proc/kmsg"),
    ("a terminal", "/dev/tty"),
    ("a standard input", "/dev/stdin"),
    ("a FIFO that nobody writes to", "/tmp/traps/fifo"),
    ("a socket", "/tmp/traps/socket"),
    ("the engine's socket", "/tmp/traps/to-docker"),
    ("a file of a terabyte with nothing in it", "/tmp/traps/to-sparse"),
    ("a name with a line's end", "/tmp/traps/new\nline"),
    ("a name with a NUL", "/tmp/traps/own\0CANARY"),
    ("a URL", "file:///CANARY"),
    ("a path of many slashes", "////////tmp//..//..//CANARY"),
    ("a path that is encoded twice", "%2e%2e%2f%2e%2e%2fCANARY"),
];

/// Names under which a test uploads a file.
const NAMES: [(&str, &str); 12] = [
    ("with dots", "../../../../../../tmp/NEW"),
    ("with many dots", "../../../../../../../../../../../../../../../../../../tmp/NEW"),
    ("that is absolute", "/tmp/NEW"),
    ("below a link out", "/tmp/traps/root/tmp/NEW"),
    ("below the agent's root", "/proc/1/root/tmp/NEW"),
    ("below the agent's directory", "/proc/1/cwd/tmp/NEW"),
    ("that is a link out", "/tmp/traps/to-canary"),
    ("that is a link up and out", "/tmp/traps/up-to-canary"),
    ("with a line's end", "/tmp/a\nNEW"),
    ("with back-slashes", "..\\..\\tmp\\NEW"),
    ("that is a URL", "file:///tmp/NEW"),
    ("of 255 letters", "/tmp/255/NEW"),
];

pub(crate) fn trials() -> Vec<Trial> {
    let read = PATHS.into_iter().map(|(what, path)| {
        case(&format!("{what} is read, listed and looked at inside only"), move || leads_not_out(path))
    });
    let written = NAMES.into_iter().map(|(what, name)| {
        case(&format!("a file put in under a name {what} appears on no host"), move || appears_inside(name))
    });
    read.chain(written)
        .chain([
            case("names that are not UTF-8 and paths 1,000 deep are listed and harm nothing", strange_names_are_listed),
            case("a directory swapped for a link while it is read leads nowhere else", swapped_while_read),
            case("parts of an upload with names that lead out stay inside", parts_stay_inside),
            case("files of a run with names that lead out start nothing outside", runs_files_stay_inside),
            case("moving and removing by links touches the links alone", links_alone_are_moved),
        ])
        .collect()
}

fn case<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial {
    crate::case("files", name, test)
}

/// Checks that an answer contains nothing from the host.
#[track_caller]
fn is_own(bytes: &[u8], what: &str) {
    let text = String::from_utf8_lossy(bytes);
    for secret in [CANARY, "ONCEBOX_API_KEYS", KEY] {
        assert!(!text.contains(secret), "{what}: {text:.300}");
    }
    assert_eq!(std::fs::read_to_string(canary()).expect("it lies there"), CANARY, "{what}");
}

fn filled(path: &str) -> String {
    path.replace("CANARY", canary().to_str().expect("text").trim_start_matches('/'))
        .replace("/home/user/../../../../../..//", "/")
}

/// The first bytes of a downloaded file; does not wait for the end of an endless file.
async fn beginning(sandbox: &Sandbox, path: &str) -> (u16, Vec<u8>) {
    let read = sandbox.envd(Method::GET, "/files").query(&[("path", path), ("username", "root")]);
    let mut response = read.send().await.expect("an answer");
    let mut content = Vec::new();
    // A device such as a terminal has the head of an answer, and then no content yet.
    while let Ok(Ok(Some(piece))) = tokio::time::timeout(Duration::from_secs(2), response.chunk()).await {
        content.extend_from_slice(&piece);
        if content.len() > 4 << 20 {
            break;
        }
    }
    (response.status().as_u16(), content)
}

async fn leads_not_out(path: &'static str) {
    let sandbox = trapped().await;
    let path = filled(path);
    let before = server().memory_bytes();
    let (status, content) =
        tokio::time::timeout(BOUND, beginning(sandbox, &path)).await.expect("a download is not held for ever");
    is_own(&content, &path);
    assert!(status < 500, "{path:?}: {status} {}", String::from_utf8_lossy(&content));
    for method in ["Stat", "ListDir"] {
        let method = format!("filesystem.Filesystem/{method}");
        let call = sandbox.call(&method, json!({"path": path}));
        let found = tokio::time::timeout(BOUND, call).await.expect("a call is not held for ever");
        is_own(&found.body, &path);
        assert!(found.status < 500, "{method} {path:?}: {} {}", found.status, found.text());
    }
    // Others use the server meanwhile. Memory that their requests hold is given back, but not at once.
    eventually("its memory is what it was", async || server().memory_bytes().saturating_sub(before) < 64 << 20).await;
    is_inside(sandbox).await;
}

/// The control: the same route reads files of the sandbox, and a path that exists both inside and on the host means the
/// file inside.
async fn is_inside(sandbox: &Sandbox) {
    assert_eq!(beginning(sandbox, "/tmp/traps/own").await, (200, b"own\n".to_vec()));
    let (_, release) = beginning(sandbox, "/etc/hostname").await;
    let host = std::fs::read("/etc/hostname").expect("the host's name");
    assert_ne!(release, host, "it is the host's own");
}

async fn upload(sandbox: &Sandbox, path: &str, content: String) -> Answer {
    let write = sandbox.envd(Method::POST, "/files").query(&[("path", path), ("username", "root")]);
    answer(write.header("content-type", "application/octet-stream").body(content)).await
}

/// Checks that an upload has not reached the host, at any place where it would be.
fn is_nowhere_on_the_host(new: &str) {
    let directory = std::env::current_dir().expect("a directory");
    let below = ["/", "/tmp", "/root", "/home", "/home/user", "/etc", "/proc/self/cwd"];
    let places = below.iter().map(PathBuf::from).chain([directory.clone(), directory.join("tmp")]);
    for place in places {
        assert!(!place.join(new).exists(), "{new} is in {}", place.display());
    }
    assert_eq!(std::fs::read_to_string(canary()).expect("it lies there"), CANARY);
}

async fn appears_inside(name: &'static str) {
    let sandbox = trapped().await;
    let mut new = format!("oncebox-new-{:x}", name.len() * 7919 + usize::from(name.as_bytes()[name.len() - 5]));
    if name.contains("255") {
        new += &"x".repeat(255 - new.len());
    }
    let path = name.replace("NEW", &new);
    let _alone = LINKS.lock().await;
    let written = tokio::time::timeout(BOUND, upload(sandbox, &path, new.clone())).await.expect("it is not held");
    is_nowhere_on_the_host(&new);
    is_own(&written.body, name);
    match written.status {
        200 => {
            let (status, content) = beginning(sandbox, &path).await;
            assert_eq!((status, content), (200, new.clone().into_bytes()), "{name}");
        }
        status => assert!((400..500).contains(&status), "{name}: {}", written.text()),
    }
    let made = sandbox.call("filesystem.Filesystem/MakeDir", json!({"path": format!("{path}-directory")})).await;
    assert!(made.status < 500, "{}", made.text());
    is_nowhere_on_the_host(&format!("{new}-directory"));
    // A unique name, because other tests do the same meanwhile.
    static RIGHTLY: AtomicUsize = AtomicUsize::new(0);
    let rightly = format!("/tmp/rightly-{}", RIGHTLY.fetch_add(1, Ordering::Relaxed));
    assert_eq!(upload(sandbox, &rightly, "in".to_owned()).await.status, 200);
    assert_eq!(sandbox.shell(&format!("cat {rightly}")).await, "in");
}

async fn strange_names_are_listed() {
    let sandbox = trapped().await;
    let list = json!({"path": "/tmp/traps", "depth": 1});
    let listed = sandbox.call("filesystem.Filesystem/ListDir", list).await;
    let names: Vec<Value> = listed.json()["entries"].as_array().expect("a list").clone();
    let has = |name: &str| names.iter().any(|entry| entry["name"] == name);
    assert!(has("new\nline") && has(&"0".repeat(255)) && has("fifo") && has("to-canary"), "{}", listed.text());
    is_own(&listed.body, "a list");
    for depth in [1000_u32, u32::MAX] {
        let deep = json!({"path": "/tmp/traps/d", "depth": depth});
        let call = sandbox.call("filesystem.Filesystem/ListDir", deep);
        let listed = tokio::time::timeout(BOUND, call).await.expect("it ends");
        assert!(listed.status < 500, "{} {:.300}", listed.status, listed.text());
    }
    let deep = "d/".repeat(2000);
    let (status, _) = beginning(sandbox, &format!("/tmp/traps/{deep}x")).await;
    assert!((400..500).contains(&status));
    is_inside(sandbox).await;
}

async fn swapped_while_read() {
    let sandbox = trapped().await;
    let canary = canary().display();
    let swap = format!(
        "mkdir -p /tmp/swap/d; echo inside > /tmp/swap/d/f; mkdir -p /tmp/swap/e; ln -sfn / /tmp/swap/e/root; \
         ln -sf {canary} /tmp/swap/l; cd /tmp/swap; end=$((SECONDS+4)); \
         while [ $SECONDS -lt $end ]; do mv d x; ln -s / d; rm d; mv x d; ln -sf {canary} f; ln -sf d/f f; done; echo swapped"
    );
    let mut swapping = sandbox.start(&swap).await;
    swapping.pid().await;
    let mut inside = 0;
    for _ in 0..60 {
        for path in ["/tmp/swap/d/f".to_owned(), "/tmp/swap/f".to_owned(), format!("/tmp/swap/d{canary}")] {
            let (status, content) = beginning(sandbox, &path).await;
            is_own(&content, &path);
            assert!(status < 500, "{path}: {status}");
            inside += u32::from(content == b"inside\n");
        }
        let listed = sandbox.call("filesystem.Filesystem/ListDir", json!({"path": "/tmp/swap", "depth": 3})).await;
        is_own(&listed.body, "a list");
    }
    assert!(inside > 0, "nothing was ever read");
    let told = swapping.rest().await.expect("it ends");
    assert_eq!(crate::e2b::stdout(&told), "swapped\n");
}

async fn parts_stay_inside() {
    let sandbox = trapped().await;
    let _alone = LINKS.lock().await;
    for (name, new) in [
        ("../../../../tmp/oncebox-part-1", "oncebox-part-1"),
        ("/tmp/oncebox-part-2", "oncebox-part-2"),
        ("..\\..\\tmp\\oncebox-part-3", "oncebox-part-3"),
        ("/tmp/traps/root/tmp/oncebox-part-4", "oncebox-part-4"),
        ("/tmp/traps/to-canary", "oncebox-part-5"),
        ("%2e%2e%2ftmp%2foncebox-part-6", "oncebox-part-6"),
    ] {
        let part = format!(
            "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{new}\r\n--b--\r\n"
        );
        let post = sandbox.envd(Method::POST, "/files").header("content-type", "multipart/form-data; boundary=b");
        let written = answer(post.body(part)).await;
        is_nowhere_on_the_host(new);
        assert!(written.status == 200 || (400..500).contains(&written.status), "{name}: {}", written.text());
        if written.status == 200 {
            let path = written.json()[0]["path"].as_str().expect("a path").to_owned();
            assert_eq!(beginning(sandbox, &path).await.1, new.as_bytes(), "{name}");
        }
    }
    is_inside(sandbox).await;
}

async fn runs_files_stay_inside() {
    let new = "oncebox-run-new";
    for (path, may) in [
        (format!("/tmp/{new}"), true),
        (format!("../../tmp/{new}"), true),
        (format!("/proc/1/root/tmp/{new}"), true),
        (format!("../../../../../../etc/{new}"), false),
        (format!("/dev/{new}"), false),
        ("/proc/self/mem".to_owned(), false),
        ("/dev/zero".to_owned(), false),
    ] {
        let run = json!({
            "language": "js", "files": [{"path": path, "content": "put in"}],
            "code": "require('fs').existsSync('/tmp/oncebox-run-new') && require('fs').readFileSync('/tmp/oncebox-run-new', 'utf8')",
        });
        let post = request(Method::POST, "/v1/run").header("x-api-key", KEY).json(&run);
        let ran = in_time(answer(post)).await;
        is_nowhere_on_the_host(new);
        match may {
            true => assert!(ran.text().contains("'put in'"), "{path}: {}", ran.text()),
            false => assert_eq!(ran.status, 400, "{path}: {}", ran.text()),
        }
    }
    // The host's file does not exist inside a run. Links that a run makes are gone with it.
    let code = format!("require('fs').readFileSync('{}', 'utf8')", canary().display());
    let post = request(Method::POST, "/v1/run").header("x-api-key", KEY).json(&json!({"language": "js", "code": code}));
    let ran = answer(post).await;
    assert!(ran.text().contains("ENOENT"), "{}", ran.text());
    is_own(&ran.body, "a run");
}

async fn links_alone_are_moved() {
    let sandbox = trapped().await;
    let canary = canary().display();
    sandbox
        .shell(&format!("mkdir -p /tmp/links/in; cd /tmp/links; echo kept > in/kept; ln -s {canary} out; ln -s in way"))
        .await;
    let moved = json!({"source": "/tmp/links/out", "destination": "/tmp/links/moved"});
    let moved = sandbox.call("filesystem.Filesystem/Move", moved).await;
    assert!(moved.status < 500, "{}", moved.text());
    for path in ["/tmp/links/moved", "/tmp/links/out", "/tmp/links/way"] {
        let removed = sandbox.call("filesystem.Filesystem/Remove", json!({"path": path})).await;
        assert!(removed.status < 500, "{}", removed.text());
    }
    assert_eq!(std::fs::read_to_string(canary.to_string()).expect("it lies there"), CANARY);
    assert_eq!(sandbox.shell("cat /tmp/links/in/kept").await, "kept\n");
}
