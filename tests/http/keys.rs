//! The file of keys: read again when it changes, and never wider open because of a mistake. Keys begin, rotate and end
//! while the server runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use reqwest::Method;
use serde_json::json;

use crate::e2b::{ENVD, INTERPRETER, Sandbox, Stream, answer, envelope, in_time};
use crate::key_file::{KeyFile, is_accepted, send, until_accepted, until_refused, with_key};
use crate::repository::{files, root};
use crate::support::{Server, eventually, oncebox, refuses_to_start};

trials![
    a_key_is_printed_once_and_opens_the_server,
    the_command_line_names_what_is_wrong,
    a_rotation_under_load_refuses_no_request,
    a_revoked_key_is_refused_and_its_streams_end_at_once,
    the_sandboxes_of_a_revoked_key_live_unless_they_are_to_be_killed,
    an_expired_key_is_refused_and_its_streams_end,
    removing_the_first_key_leaves_the_sandboxes_of_others_theirs,
    a_bad_file_keeps_the_keys_and_is_logged_once_with_its_line_and_field,
    a_signal_reads_the_file_at_once,
    a_file_that_others_can_change_is_refused,
    the_first_key_closes_a_server_and_nothing_opens_it_again,
    a_key_of_the_environment_keeps_its_sandboxes_beside_a_file,
];

/// Code that prints, and then runs until it is stopped.
const ENDLESS: &str = "import time\nprint('begun', flush=True)\ntime.sleep(600)";

async fn a_key_is_printed_once_and_opens_the_server() {
    let (file, [key]) = KeyFile::with([&["letta-prod", "--profile", "letta", "--expires", "90d"]]);
    assert!(key.starts_with("e2b_") && key.len() == 44, "{key}");
    assert!(!file.text().contains(&key[4..]), "the file has the key itself");
    assert_eq!(fs::metadata(file.path()).expect("the file").permissions().mode() & 0o777, 0o600);
    let list = file.keys(&["list"]).expect("a list");
    for part in ["letta-prod", "run,sandboxes", "expires ", &key[..6], &key[40..]] {
        assert!(list.contains(part), "{part}: {list}");
    }
    assert!(!list.contains(&key[4..]), "{list}");
    let server = file.serve(&[]);
    let run = json!({"language": "python", "code": "6 * 7"});
    let run = send(&server, &key, Method::POST, "/v1/run", Some(run)).await;
    assert_eq!((run.status, &run.json()["results"]), (200, &json!(["42"])));
    for other in [&key.to_uppercase(), &key[4..], &format!("{key}0"), &oncebox_new(), ""] {
        assert!(!is_accepted(&server, other).await, "{other}");
    }
    assert_eq!(server.get("/v1/languages").await.0, 401);
    assert!(server.logged(&key[4..]).is_empty());
}

/// A key that is in no file.
fn oncebox_new() -> String {
    let output = oncebox().args(["keys", "new"]).output().expect("oncebox keys new");
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

async fn the_command_line_names_what_is_wrong() {
    let (file, [_]) = KeyFile::with([&["first"]]);
    let before = file.text();
    for (arguments, reason) in [
        (&["add", "first"][..], "`first`"),
        (&["add", "env-1"], "name: "),
        (&["add", " "], "name: "),
        (&["add", "second", "--scope", "everything"], "`everything`"),
        (&["add", "second", "--network", "some"], "`some`"),
        (&["add", "second", "--expires", "soon"], "90d"),
        (&["add", "second", "--max-sandboxes", "0"], "--max-sandboxes"),
        (&["add", "second", "--template", "cobol"], "`cobol`"),
        (&["rotate", "second"], "`second`"),
        (&["revoke", "second"], "`second`"),
    ] {
        let err = file.keys(arguments).expect_err("it is refused");
        assert!(err.contains(reason), "{arguments:?}: {err}");
    }
    assert_eq!(file.text(), before);
    file.write("[[key]]\nname = 1\n");
    let err = file.keys(&["list"]).expect_err("a bad file");
    assert!(err.contains("line 2: key[0].name: "), "{err}");
}

async fn a_rotation_under_load_refuses_no_request() {
    let (file, [key]) = KeyFile::with([&["busy"]]);
    let server = Arc::new(file.serve(&[]));
    let (current, stopped) = (Arc::new(Mutex::new(key)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (server, current, stopped) = (Arc::clone(&server), Arc::clone(&current), Arc::clone(&stopped));
            tokio::spawn(async move {
                let mut requests = 0;
                while !stopped.load(Ordering::Relaxed) {
                    let key = current.lock().expect("the key").clone();
                    assert!(is_accepted(&server, &key).await, "refused after {requests} requests");
                    requests += 1;
                }
                requests
            })
        })
        .collect();
    for _ in 0..3 {
        let new = file.keys(&["rotate", "busy", "--overlap", "1h"]).expect("it is rotated").trim_end().to_owned();
        until_accepted(&server, &new).await;
        // The clients go over to it one after the other.
        let old = std::mem::replace(&mut *current.lock().expect("the key"), new);
        assert!(is_accepted(&server, &old).await, "the old one is valid for a while");
    }
    let last = current.lock().expect("the key").clone();
    stopped.store(true, Ordering::Relaxed);
    let mut requests = 0;
    for client in clients {
        requests += client.await.expect("no request was refused");
    }
    assert!(requests > 100, "{requests} requests are no load");
    // Without an overlap, only the new one is valid.
    let new = file.keys(&["rotate", "busy", "--overlap", "0s"]).expect("it is rotated").trim_end().to_owned();
    until_refused(&server, &last).await;
    assert!(is_accepted(&server, &new).await);
}

/// A sandbox that a key has created on a server.
async fn create(server: &Server, key: &str) -> Sandbox {
    let created = send(server, key, Method::POST, "/v2/sandboxes", Some(json!({"templateID": "base"}))).await;
    assert_eq!(created.status, 201, "{}", created.text());
    Sandbox::from(created.json())
}

/// The ids of the sandboxes that a key sees.
async fn sandboxes(server: &Server, key: &str) -> Vec<String> {
    let list = send(server, key, Method::GET, "/v2/sandboxes", None).await.json();
    let list = list.as_array().unwrap_or_else(|| panic!("{list}"));
    list.iter().map(|sandbox| sandbox["sandboxID"].as_str().expect("an id").to_owned()).collect()
}

/// A request to a port of a sandbox, with its token.
fn at(server: &Server, sandbox: &Sandbox, port: u16, path: &str) -> reqwest::RequestBuilder {
    let post = server.http.post(format!("{}{path}", server.url)).header("x-access-token", &sandbox.token);
    post.header("E2b-Sandbox-Id", &sandbox.id).header("E2b-Sandbox-Port", port)
}

/// Starts a command that waits for input, and waits until it runs.
async fn command(server: &Server, sandbox: &Sandbox) -> Stream {
    let process = json!({"process": {"cmd": "/bin/cat"}, "stdin": true}).to_string();
    let start = at(server, sandbox, ENVD, "/process.Process/Start").header("content-type", "application/connect+json");
    let mut stream = Stream::new(start.body(envelope(0, process.as_bytes())).send().await.expect("an answer"));
    stream.pid().await;
    stream
}

/// Starts code in a sandbox, and waits until it runs.
async fn execution(server: &Server, sandbox: &Sandbox) -> reqwest::Response {
    let execute = at(server, sandbox, INTERPRETER, "/execute").json(&json!({"code": ENDLESS, "language": "python"}));
    let mut response = execute.send().await.expect("an answer");
    let mut text = String::new();
    while !text.contains("begun") {
        let piece = response.chunk().await.expect("it goes on").expect("a piece");
        text.push_str(std::str::from_utf8(&piece).expect("text"));
    }
    response
}

/// Starts a run whose events are streamed, and waits until it runs.
async fn streamed_run(server: &Server, key: &str) -> reqwest::Response {
    let run = json!({"language": "python", "code": ENDLESS, "timeout_ms": 600_000});
    let post = with_key(server, key, Method::POST, "/v1/run").header("accept", "text/event-stream").json(&run);
    let mut response = post.send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert!(response.chunk().await.expect("it goes on").is_some());
    response
}

/// Reads an answer to its end, which must be that it is broken off.
async fn until_broken(mut response: reqwest::Response) {
    in_time(async {
        while response.chunk().await.is_ok_and(|piece| piece.expect("no regular end").len() < usize::MAX) {}
    })
    .await;
}

async fn a_revoked_key_is_refused_and_its_streams_end_at_once() {
    let (file, [key, other]) = KeyFile::with([&["leaked"], &["other", "--scope", "run,metrics"]]);
    let server = file.serve(&[]);
    let sandbox = create(&server, &key).await;
    let (mut command, execution) = (command(&server, &sandbox).await, execution(&server, &sandbox).await);
    let stream = streamed_run(&server, &key).await;
    let others = streamed_run(&server, &other).await;
    let run = json!({"language": "python", "code": ENDLESS, "timeout_ms": 600_000});
    let whole = tokio::spawn(with_key(&server, &key, Method::POST, "/v1/run").json(&run).send());
    let running = async || send(&server, &other, Method::GET, "/v1/status", None).await.json()["running"].clone();
    eventually("all runs run", async || running().await == 3).await;

    file.keys(&["revoke", "leaked"]).expect("it is revoked");
    let began = Instant::now();
    until_broken(stream).await;
    until_broken(execution).await;
    let (code, message) = in_time(command.error()).await;
    assert!(code == "unavailable" && message.contains("API key"), "{code}: {message}");
    assert_eq!(in_time(whole).await.expect("no panic").expect("an answer").status(), 401);
    // The file is looked at each second.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(!is_accepted(&server, &key).await);
    // Tokens that the key's sandboxes gave do not outlast it.
    for (port, path) in [(ENVD, "/filesystem.Filesystem/ListDir"), (INTERPRETER, "/execute")] {
        assert_eq!(answer(at(&server, &sandbox, port, path).json(&json!({"code": "1"}))).await.status, 401, "{path}");
    }
    eventually("only the run of the other key runs", async || running().await == 1).await;
    drop(others);
}

async fn the_sandboxes_of_a_revoked_key_live_unless_they_are_to_be_killed() {
    let (file, [key, other]) = KeyFile::with([&["one"], &["other"]]);
    let server = file.serve(&[]);
    let (sandbox, others) = (create(&server, &key).await, create(&server, &other).await);
    let good = file.text();
    file.keys(&["revoke", "one"]).expect("it is revoked");
    until_refused(&server, &key).await;
    // The operator has changed their mind.
    file.write(&good);
    until_accepted(&server, &key).await;
    assert_eq!(sandboxes(&server, &key).await, [sandbox.id.as_str()]);
    let _ = command(&server, &sandbox).await;

    // Also if it is revoked already.
    file.keys(&["revoke", "one"]).expect("it is revoked");
    file.keys(&["revoke", "one", "--kill"]).expect("its sandboxes are killed");
    eventually("it is logged", async || server.logged("killed 1 sandboxes").len() == 1).await;
    file.write(&good);
    until_accepted(&server, &key).await;
    assert!(sandboxes(&server, &key).await.is_empty());
    assert_eq!(sandboxes(&server, &other).await, [others.id.as_str()]);
}

async fn an_expired_key_is_refused_and_its_streams_end() {
    let (file, [key]) = KeyFile::with([&["short"]]);
    let server = file.serve(&[]);
    let stream = streamed_run(&server, &key).await;
    let expires = humantime::format_rfc3339_seconds(SystemTime::now() + Duration::from_secs(3));
    file.write(&file.text().replace("scopes =", &format!("expires = {expires}\nscopes =")));
    until_broken(stream).await;
    assert!(!is_accepted(&server, &key).await);
    assert!(file.keys(&["list"]).expect("a list").contains("expired "));
}

async fn removing_the_first_key_leaves_the_sandboxes_of_others_theirs() {
    let (file, [first, second, third]) = KeyFile::with([&["first"], &["second"], &["third"]]);
    let server = file.serve(&[]);
    let mut ids = Vec::new();
    for key in [&first, &second, &third] {
        ids.push(create(&server, key).await.id);
    }
    let text = file.text();
    let at = |index| text.match_indices("[[key]]").nth(index).expect("a key").0;
    file.write(&[&text[..at(0)], &text[at(1)..]].concat());
    until_refused(&server, &first).await;
    assert_eq!(sandboxes(&server, &second).await, [ids[1].as_str()]);
    assert_eq!(sandboxes(&server, &third).await, [ids[2].as_str()]);
    // Nobody has those of the key that is gone.
    for key in [&second, &third] {
        assert_eq!(send(&server, key, Method::DELETE, &format!("/sandboxes/{}", ids[0]), None).await.status, 404);
    }
    for (key, id) in [(&second, &ids[1]), (&third, &ids[2])] {
        assert_eq!(send(&server, key, Method::DELETE, &format!("/sandboxes/{id}"), None).await.status, 204);
    }
}

async fn a_bad_file_keeps_the_keys_and_is_logged_once_with_its_line_and_field() {
    let (file, [key]) = KeyFile::with([&["first"]]);
    let server = file.serve(&[]);
    let good = file.text();
    let logged = || server.logged("the keys stay as they were");
    // A word that is no scope, and a template that does not exist.
    let bad = good.replace("\"run\"", "\"runs\"");
    let line = bad.lines().position(|line| line.contains("\"runs\"")).expect("a line") + 1;
    let unknown = good.replace("scopes =", "templates = [\"cobol\"]\nscopes =");
    for (times, (text, parts)) in (1..).zip([
        ("\0rubbish", vec!["line 1: ".to_owned()]),
        (bad.as_str(), vec![format!("line {line}: key[0].scopes[0]: ")]),
        (unknown.as_str(), vec![format!("line {}: key[0].templates: ", line), "cobol".to_owned()]),
    ]) {
        file.write(text);
        eventually("it is logged", async || logged().len() == times).await;
        let lines = logged();
        let path = file.path().display().to_string();
        assert!(parts.iter().chain([&path]).all(|part| lines[times - 1].contains(part)), "{parts:?}: {lines:?}");
        assert!(is_accepted(&server, &key).await);
    }
    fs::remove_file(file.path()).expect("the file");
    eventually("it is logged", async || logged().len() == 4).await;
    assert!(is_accepted(&server, &key).await);
    assert_eq!(server.get("/v1/languages").await.0, 401, "no key is needed any longer");
    // Two more looks at the file, and no more lines.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(logged().len(), 4);
    file.write(&good);
    let second = file.add(&["second"]);
    until_accepted(&server, &second).await;
    assert!(is_accepted(&server, &key).await);
}

async fn a_signal_reads_the_file_at_once() {
    let (file, [key]) = KeyFile::with([&["first"]]);
    let server = file.serve(&[]);
    let hangup = || Command::new("kill").args(["-HUP", &server.pid().to_string()]).status().expect("kill");
    assert!(hangup().success());
    // Also if it has not changed.
    eventually("it was read", async || server.logged("read the keys").len() == 1).await;
    assert!(is_accepted(&server, &key).await);
    assert!(server.stop());
}

async fn a_file_that_others_can_change_is_refused() {
    let (file, [key]) = KeyFile::with([&["first"]]);
    let path = file.path();
    let set_mode = |mode| fs::set_permissions(&path, Permissions::from_mode(mode)).expect("its mode");
    let variables = [("ONCEBOX_KEYS", path.to_str().expect("text"))];
    for mode in [0o620, 0o602] {
        set_mode(mode);
        let said = refuses_to_start(&variables, None);
        assert!(said.contains(path.to_str().expect("text")) && said.contains(&format!("{mode:03o}")), "{said}");
    }
    // That they can read it is worth a warning.
    set_mode(0o644);
    let server = file.serve(&[]);
    eventually("it is logged", async || server.logged("mode 644").len() == 1).await;
    // A mistake that is made while the server runs changes nothing.
    set_mode(0o666);
    eventually("it is logged", async || server.logged("the keys stay as they were").len() == 1).await;
    assert!(is_accepted(&server, &key).await);
    drop(server);
    fs::remove_file(&path).expect("the file");
    assert!(refuses_to_start(&variables, None).contains("cannot be read"));
}

async fn the_first_key_closes_a_server_and_nothing_opens_it_again() {
    let config = tempfile::tempdir().expect("a directory");
    let original = root().join("config");
    for name in files(&original) {
        let copy = config.path().join(name.strip_prefix(&original).expect("it is below"));
        fs::create_dir_all(copy.parent().expect("a directory")).expect("a directory");
        fs::copy(&name, copy).expect("a copy");
    }
    let place = ("ONCEBOX_CONFIG", config.path().to_str().expect("text"));
    let server = Server::start_cold(&[place]);
    let open = send(&server, "any", Method::POST, "/v2/sandboxes", Some(json!({"templateID": "base"}))).await;
    assert_eq!(open.status, 201, "{}", open.text());
    let nobodys = Sandbox::from(open.json());
    let mut command = command(&server, &nobodys).await;
    // Whoever reaches an open server cannot make keys.
    assert_eq!(send(&server, "any", Method::POST, "/api-keys", Some(json!({"name": "mine"}))).await.status, 403);

    // Not even a file that cannot be used leaves it open.
    let path = config.path().join("keys.toml");
    fs::write(&path, "rubbish").expect("the file");
    until_refused(&server, "any").await;
    fs::remove_file(&path).expect("the file");
    let mut add = oncebox();
    let added = add.args(["keys", "add", "first"]).env(place.0, place.1).output().expect("oncebox keys add");
    let key = String::from_utf8(added.stdout).expect("text").trim_end().to_owned();
    assert!(path.exists(), "it is beside oncebox.toml");
    until_accepted(&server, &key).await;
    // What was anybody's is nobody's.
    in_time(command.error()).await;
    assert!(sandboxes(&server, &key).await.is_empty());
    assert_eq!(answer(at(&server, &nobodys, INTERPRETER, "/execute").json(&json!({"code": "1"}))).await.status, 401);
    fs::write(&path, "").expect("the file");
    until_refused(&server, &key).await;
    assert_eq!(server.get("/v1/languages").await.0, 401);
    assert!(server.stop());
    // Nor does a restart open it: the file is there.
    let server = Server::start_cold(&[place]);
    assert_eq!(server.get("/v1/languages").await.0, 401);
}

async fn a_key_of_the_environment_keeps_its_sandboxes_beside_a_file() {
    let plain = "e2b_1234567890123456789012345678901234567890";
    let (file, [key]) = KeyFile::with([&["first"]]);
    let server = file.serve(&[("ONCEBOX_API_KEYS", plain)]);
    let sandbox = create(&server, plain).await;
    file.add(&["second"]);
    file.keys(&["revoke", "first"]).expect("it is revoked");
    until_refused(&server, &key).await;
    assert_eq!(sandboxes(&server, plain).await, [sandbox.id.as_str()]);
    assert_eq!(send(&server, plain, Method::DELETE, &format!("/sandboxes/{}", sandbox.id), None).await.status, 204);
    // One key cannot be two.
    drop(server);
    let hash = "$sha256$ZD3CVdRQN9UPx1atsbsVEUs1FL1bYA7/PyiTZFdVCVw";
    file.write(&file.text().replacen("hashes = [", &format!("hashes = [\"{hash}\", "), 1));
    let path = file.path();
    let said = refuses_to_start(&[("ONCEBOX_KEYS", path.to_str().expect("text")), ("ONCEBOX_API_KEYS", plain)], None);
    assert!(said.contains("key[0].hashes: ") && said.contains("env-1"), "{said}");
    assert!(!said.contains(plain));
}
