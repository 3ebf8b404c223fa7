//! `/files` over plain HTTP: parts and their names, ranges, signatures, and the answer when the disk is full.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::e2b::{Answer, ENVD, Sandbox, answer, is_as_recorded, request, whole};
use crate::support::Server;

trials![
    names_of_parts_may_have_slashes_and_keep_their_order,
    a_path_in_the_query_wins_over_the_names_of_parts,
    two_parts_to_one_path_are_a_400,
    a_body_without_a_length_is_written_as_it_comes,
    a_file_is_sent_with_its_name_its_time_and_its_ranges,
    the_error_for_an_unreadable_file_names_the_cause,
    a_file_of_reported_size_zero_is_read_nevertheless,
    compressed_content_is_unpacked_while_it_comes,
    notes_of_a_file_are_headers_and_the_last_ones_hold,
    a_signature_opens_one_file_for_one_operation,
    a_signature_is_none_when_it_was_forged,
    a_link_names_no_sandbox_and_finds_its_own,
    a_watch_reports_a_new_file_in_three_events,
    a_full_disk_is_a_507_and_harms_nothing,
    uploads_that_make_no_sense_are_a_400,
    strange_paths_lead_nowhere,
];

async fn read(sandbox: &Sandbox, path: &str) -> Answer {
    answer(sandbox.envd(Method::GET, "/files").query(&[("path", path)])).await
}

fn octets(sandbox: &Sandbox, path: &str) -> RequestBuilder {
    let request = sandbox.envd(Method::POST, "/files").query(&[("path", path)]);
    request.header("content-type", "application/octet-stream")
}

async fn parts(sandbox: &Sandbox, query: &[(&str, &str)], files: &[(&str, &str)]) -> Answer {
    let part = |(name, content): &(&str, &str)| {
        format!("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{content}\r\n")
    };
    let body = format!("{}--b--\r\n", files.iter().map(part).collect::<String>());
    let request = sandbox.envd(Method::POST, "/files").query(query);
    answer(request.header("content-type", "multipart/form-data; boundary=b").body(body)).await
}

/// Signs as the SDKs do.
fn signature(path: &str, operation: &str, user: &str, token: &str, expiration: Option<u64>) -> String {
    let expiration = expiration.map(|seconds| format!(":{seconds}")).unwrap_or_default();
    let digest = Sha256::digest(format!("{path}:{operation}:{user}:{token}{expiration}"));
    format!("v1_{}", BASE64_STANDARD_NO_PAD.encode(digest))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs()
}

async fn names_of_parts_may_have_slashes_and_keep_their_order() {
    let sandbox = Sandbox::shared().await;
    let files = [("d/z.txt", "1"), ("/tmp/parts/y", "2"), ("a b é.txt", "3")];
    let written = parts(sandbox, &[], &files).await;
    assert_eq!(written.status, 200, "{}", written.text());
    is_as_recorded("upload", written.json());
    for (path, content) in [("/home/user/d/z.txt", "1"), ("/tmp/parts/y", "2"), ("~/a b é.txt", "3")] {
        assert_eq!(read(sandbox, path).await.text(), content, "{path}");
    }
    assert_eq!(sandbox.shell("stat -c '%U %a' d/z.txt d").await, "user 644\nuser 755\n");
}

async fn a_path_in_the_query_wins_over_the_names_of_parts() {
    let sandbox = Sandbox::shared().await;
    let written = parts(sandbox, &[("path", "/tmp/wins"), ("username", "user")], &[("loses", "won")]).await;
    assert_eq!(written.json(), json!([{"path": "/tmp/wins", "name": "wins", "type": "file"}]));
    assert_eq!(read(sandbox, "/tmp/wins").await.text(), "won");
    assert_eq!(read(sandbox, "loses").await.error(404), "path '/home/user/loses' does not exist");
}

async fn two_parts_to_one_path_are_a_400() {
    let sandbox = Sandbox::shared().await;
    let message = parts(sandbox, &[], &[("twice", "1"), ("./x/../twice", "2")]).await.error(400);
    assert!(message.contains("multiple files to the same path '/home/user/twice'"), "{message}");
    assert_eq!(read(sandbox, "twice").await.text(), "1");
}

async fn a_body_without_a_length_is_written_as_it_comes() {
    let sandbox = Sandbox::shared().await;
    let pieces = (0..64_u8).map(|piece| Ok::<_, std::io::Error>(vec![piece; 100_000]));
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let written = answer(octets(sandbox, "/tmp/chunked").body(body)).await;
    assert_eq!(written.json(), json!([{"path": "/tmp/chunked", "name": "chunked", "type": "file"}]));
    let content = read(sandbox, "/tmp/chunked").await.body;
    assert!(
        content.len() == 6_400_000 && content.chunks(100_000).zip(0..).all(|(piece, byte)| piece == [byte; 100_000])
    );
    // Writing again truncates the file, and an empty body makes it empty.
    assert_eq!(answer(octets(sandbox, "/tmp/chunked").body("")).await.status, 200);
    assert_eq!(read(sandbox, "/tmp/chunked").await.body.len(), 0);
}

async fn a_file_is_sent_with_its_name_its_time_and_its_ranges() {
    let sandbox = Sandbox::shared().await;
    answer(octets(sandbox, "/tmp/sent/ten bytes").body("0123456789")).await;
    sandbox.shell("touch -d '2024-02-29T12:00:00Z' '/tmp/sent/ten bytes'").await;
    let get = async |headers: &[(&'static str, &str)]| {
        let request = sandbox.envd(Method::GET, "/files?path=/tmp/sent/ten%20bytes");
        answer(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    };
    let date = "Thu, 29 Feb 2024 12:00:00 GMT";
    let whole = get(&[]).await;
    assert_eq!((whole.status, whole.text().as_str()), (200, "0123456789"));
    for (name, value) in [
        ("content-disposition", "inline; filename=\"ten bytes\""),
        ("last-modified", date),
        ("accept-ranges", "bytes"),
        ("content-length", "10"),
    ] {
        assert_eq!(whole.headers[name], value);
    }
    for (range, status, content, told) in [
        ("bytes=0-3", 206, "0123", "bytes 0-3/10"),
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=-2", 206, "89", "bytes 8-9/10"),
        ("bytes=5-999", 206, "56789", "bytes 5-9/10"),
    ] {
        let part = get(&[("range", range)]).await;
        assert_eq!((part.status, part.text().as_str()), (status, content), "{range}");
        assert_eq!(part.headers["content-range"], told);
    }
    let behind = get(&[("range", "bytes=10-")]).await;
    assert_eq!(behind.headers["content-range"], "bytes */10");
    behind.error(416);
    for nonsense in ["bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4"] {
        assert_eq!(get(&[("range", nonsense)]).await.text(), "0123456789", "{nonsense}");
    }
    assert_eq!(get(&[("if-modified-since", date)]).await.status, 304);
    assert_eq!(get(&[("if-modified-since", "Thu, 29 Feb 2024 11:59:59 GMT")]).await.status, 200);
    get(&[("accept-encoding", "gzip, identity;q=0")]).await.error(406);
    assert!(!get(&[("accept-encoding", "gzip, br")]).await.headers.contains_key("content-encoding"));
    let head = answer(sandbox.envd(Method::HEAD, "/files?path=/tmp/sent/ten%20bytes")).await;
    assert_eq!(
        (head.status, &head.headers["content-length"], head.body.len()),
        (200, &whole.headers["content-length"], 0)
    );
}

async fn the_error_for_an_unreadable_file_names_the_cause() {
    let sandbox = Sandbox::shared().await;
    assert_eq!(read(sandbox, "/tmp").await.error(400), "path '/tmp' is a directory");
    assert_eq!(read(sandbox, "/tmp/none/x").await.error(404), "path '/tmp/none/x' does not exist");
    assert_eq!(read(sandbox, "../../etc/nothing").await.error(404), "path '/etc/nothing' does not exist");
    let nobody = sandbox.envd(Method::GET, "/files?path=x&username=nosuchuser");
    assert_eq!(answer(nobody).await.error(401), "invalid username: 'nosuchuser'");
    answer(sandbox.envd(Method::DELETE, "/files?path=x")).await.error(405);
}

async fn a_file_of_reported_size_zero_is_read_nevertheless() {
    let version = read(Sandbox::shared().await, "/proc/version").await;
    assert!(version.status == 200 && version.text().starts_with("Linux version"), "{}", version.text());
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut child = std::process::Command::new("gzip")
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("gzip");
    let mut input = child.stdin.take().expect("its input");
    let content = content.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&content));
    let output = child.wait_with_output().expect("gzip").stdout;
    writer.join().expect("a thread").expect("it reads");
    output
}

async fn compressed_content_is_unpacked_while_it_comes() {
    let sandbox = Sandbox::shared().await;
    let packed = gzip(b"unpacked");
    let send = async |body: Vec<u8>, encoding: &str| {
        answer(octets(sandbox, "/tmp/packed").header("content-encoding", encoding).body(body)).await
    };
    assert_eq!(send(packed.clone(), "gzip").await.status, 200);
    assert_eq!(read(sandbox, "/tmp/packed").await.text(), "unpacked");
    assert_eq!(send([packed.clone(), packed.clone()].concat(), "GZIP").await.status, 200);
    assert_eq!(read(sandbox, "/tmp/packed").await.text(), "unpackedunpacked");
    send(packed[..packed.len() / 2].to_vec(), "gzip").await.error(400);
    send(b"not gzip".to_vec(), "gzip").await.error(400);
    send(packed, "br").await.error(400);
}

async fn notes_of_a_file_are_headers_and_the_last_ones_hold() {
    let sandbox = Sandbox::shared().await;
    let noted = octets(sandbox, "/tmp/noted").header("X-Metadata-Author", "me").header("x-metadata-k", "v w");
    let written = answer(noted.body("1")).await.json();
    assert_eq!(written[0]["metadata"], json!({"author": "me", "k": "v w"}));
    let stat = async || sandbox.call("filesystem.Filesystem/Stat", json!({"path": "/tmp/noted"})).await.json();
    assert_eq!(stat().await["entry"]["metadata"], json!({"author": "me", "k": "v w"}));
    let written = answer(octets(sandbox, "/tmp/noted").header("X-Metadata-K", "new").body("1")).await.json();
    assert_eq!(written[0]["metadata"], json!({"k": "new"}));
    assert_eq!(stat().await["entry"]["metadata"], json!({"k": "new"}));
    let written = answer(octets(sandbox, "/tmp/noted").body("1")).await.json();
    assert_eq!((written[0].get("metadata"), stat().await["entry"].get("metadata")), (None, None));
    answer(octets(sandbox, "/tmp/noted").header("x-metadata-k", "é").body("1")).await.error(400);
    answer(octets(sandbox, "/tmp/noted").header(format!("x-metadata-{}", "k".repeat(250)), "v").body("1"))
        .await
        .error(400);
}

/// A request for a file with only a signature.
fn signed(sandbox: &Sandbox, method: Method, query: &[(&str, &str)]) -> RequestBuilder {
    let request = sandbox.at(49983, method.clone(), "/files").query(query);
    if method == Method::POST {
        return request.header("content-type", "application/octet-stream").body("signed");
    }
    request
}

async fn a_signature_opens_one_file_for_one_operation() {
    let sandbox = Sandbox::shared().await;
    let later = now() + 60;
    let time = later.to_string();
    let (write, read) = (
        signature("s/f", "write", "user", &sandbox.token, Some(later)),
        signature("s/f", "read", "", &sandbox.token, None),
    );
    let query = [("path", "s/f"), ("username", "user"), ("signature", &write), ("signature_expiration", &time)];
    assert_eq!(answer(signed(sandbox, Method::POST, &query)).await.status, 200);
    let found = answer(signed(sandbox, Method::GET, &[("path", "s/f"), ("signature", &read)])).await;
    assert_eq!((found.status, found.text().as_str()), (200, "signed"));
    // A signature only opens files.
    let stat = sandbox.at(49983, Method::POST, "/filesystem.Filesystem/Stat").query(&[("signature", &read)]);
    answer(stat.json(&json!({"path": "s/f"}))).await.error(401);
}

async fn a_signature_is_none_when_it_was_forged() {
    let sandbox = Sandbox::shared().await;
    let other = Sandbox::create(json!({"templateID": "base"})).await;
    let (read, late, early) = (|path: &str| signature(path, "read", "", &sandbox.token, None), now() - 1, now() + 60);
    let (ours, expired) = (read("f"), signature("f", "read", "", &sandbox.token, Some(late)));
    let (late, early) = (late.to_string(), early.to_string());
    let padded = format!("{ours}=");
    type Query<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(Method, Query<'_>, &str)] = &[
        (Method::GET, &[("path", "f")], "missing signature query parameter"),
        (Method::GET, &[("path", "f"), ("signature", "")], "invalid signature"),
        (Method::GET, &[("path", "f"), ("signature", "v1_")], "invalid signature"),
        (Method::GET, &[("path", "f"), ("signature", &ours[..20])], "invalid signature"),
        (Method::GET, &[("path", "f"), ("signature", &padded)], "invalid signature"),
        (Method::GET, &[("path", "g"), ("signature", &ours)], "invalid signature"),
        (Method::GET, &[("path", "./f"), ("signature", &ours)], "invalid signature"),
        (Method::GET, &[("path", "f"), ("username", "root"), ("signature", &ours)], "invalid signature"),
        (Method::POST, &[("path", "f"), ("signature", &ours)], "invalid signature"),
        (Method::GET, &[("path", "f"), ("signature", &ours), ("signature_expiration", &early)], "invalid signature"),
        (Method::GET, &[("path", "f"), ("signature", &expired), ("signature_expiration", &early)], "invalid signature"),
        (Method::GET, &[("path", "f"), ("signature", &expired)], "invalid signature"),
        (
            Method::GET,
            &[("path", "f"), ("signature", &expired), ("signature_expiration", &late)],
            "signature is already expired",
        ),
    ];
    for (method, query, message) in cases {
        let refused = answer(signed(sandbox, method.clone(), query)).await;
        assert_eq!(refused.json(), json!({"code": 401, "message": message}), "{method} {query:?}");
        refused.error(401);
    }
    // The right signature for another sandbox, and together with another sandbox's token.
    let query = [("path", "f"), ("signature", ours.as_str())];
    assert_eq!(answer(signed(&other, Method::GET, &query)).await.error(401), "invalid signature");
    let both = signed(sandbox, Method::GET, &query).header("x-access-token", &other.token);
    assert_eq!(answer(both).await.error(401), "access token present in header but does not match");
    other.kill().await;
}

async fn a_link_names_no_sandbox_and_finds_its_own() {
    let sandbox = Sandbox::create(json!({"templateID": "base"})).await;
    answer(octets(&sandbox, "linked").body("found")).await;
    let sign = signature("linked", "read", "user", &sandbox.token, None);
    let link =
        || request(Method::GET, "/files").query(&[("path", "linked"), ("username", "user"), ("signature", &sign)]);
    assert_eq!(answer(link()).await.text(), "found");
    sandbox.kill().await;
    assert_eq!(answer(link()).await.error(401), "invalid signature");
    assert_eq!(answer(request(Method::GET, "/files?path=x")).await.error(401), "missing signature query parameter");
}

async fn a_watch_reports_a_new_file_in_three_events() {
    let sandbox = Sandbox::shared().await;
    sandbox.shell("mkdir -p /tmp/watched/deep").await;
    let watch = json!({"path": "/tmp/watched", "recursive": true, "includeEntry": false});
    let id = sandbox.call("filesystem.Filesystem/CreateWatcher", watch.clone()).await.json()["watcherId"].clone();
    let mut stream = sandbox.stream("filesystem.Filesystem/WatchDir", watch).await;
    assert_eq!(stream.message().await, json!({"start": {}}));
    assert_eq!(answer(octets(sandbox, "/tmp/watched/deep/new").body("1")).await.status, 200);
    let event = |kind: &str| json!({"name": "deep/new", "type": format!("EVENT_TYPE_{kind}")});
    let expected = [event("CREATE"), event("CHMOD"), event("WRITE")];
    let events = async || sandbox.call("filesystem.Filesystem/GetWatcherEvents", json!({"watcherId": id})).await.json();
    assert_eq!(events().await["events"], json!(expected));
    assert_eq!(events().await["events"], json!([]));
    for event in expected {
        assert_eq!(stream.message().await, json!({"filesystem": event}));
    }
    sandbox.call("filesystem.Filesystem/RemoveWatcher", json!({"watcherId": id})).await;
    sandbox.call("filesystem.Filesystem/GetWatcherEvents", json!({"watcherId": id})).await.call_error(404, "not_found");
}

async fn a_full_disk_is_a_507_and_harms_nothing() {
    // A server for this test, so that no other test affects its memory.
    let server = Server::start_cold(&[("ONCEBOX_TEMPLATES__BASE__DISK_BYTES", "67108864")]);
    let (status, created) = server.post("/sandboxes", &json!({"templateID": "base"})).await;
    assert_eq!(status, 201, "{created}");
    let sandbox = Sandbox::from(created);
    let envd = |method: Method, path: &str| {
        let request =
            server.http.request(method, format!("{}{path}", server.url)).header("E2b-Sandbox-Id", &sandbox.id);
        request.header("E2b-Sandbox-Port", ENVD).header("X-Access-Token", &sandbox.token)
    };
    let octets = |name: &str| {
        let request = envd(Method::POST, &format!("/files?path=/dev/shm/{name}"));
        request.header("content-type", "application/octet-stream")
    };
    answer(octets("kept").body("kept")).await;
    let zeros = vec![0; 128 << 20];
    // 128 MiB of zeros, compressed to 128 KiB.
    let bomb = gzip(&zeros);
    let before = server.peak_memory_bytes();
    for _ in 0..2 {
        answer(octets("bomb").header("content-encoding", "gzip").body(bomb.clone())).await.error(507);
    }
    let grown = server.peak_memory_bytes().saturating_sub(before);
    assert!(grown < 48 << 20, "it held {grown} bytes of what it unpacked");
    let remove = envd(Method::POST, "/filesystem.Filesystem/Remove").json(&json!({"path": "/dev/shm/bomb"}));
    assert_eq!(answer(remove).await.status, 200);
    assert_eq!(answer(envd(Method::GET, "/files?path=/dev/shm/kept")).await.text(), "kept");
    assert_eq!(answer(octets("after").body("after")).await.status, 200);
}

async fn uploads_that_make_no_sense_are_a_400() {
    let sandbox = Sandbox::shared().await;
    let post = async |kind: &str, path: &str, body: Vec<u8>| {
        let request = sandbox.envd(Method::POST, "/files").query(&[("path", path)]);
        let request = request.header("content-type", kind).body(body);
        // If a body is refused before it is sent completely, the answer may be lost with the connection.
        for _ in 0..5 {
            if let Ok(response) = request.try_clone().expect("a body that is there").send().await {
                return whole(response).await;
            }
        }
        answer(request).await
    };
    let multipart = "multipart/form-data; boundary=b";
    let huge = format!("multipart/form-data; boundary={}", "b".repeat(60_000));
    let nameless = b"--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nx\r\n--b--\r\n".to_vec();
    let long = [b"--b\r\n".to_vec(), b"x-long: y\r\n".repeat(600_000)].concat();
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("application/octet-stream", "", b"x".to_vec()),
        ("application/json", "/tmp/x", b"{}".to_vec()),
        ("multipart/form-data", "/tmp/x", b"x".to_vec()),
        ("multipart/form-data; boundary=", "/tmp/x", b"x".to_vec()),
        (multipart, "/tmp/x", b"no part at all".to_vec()),
        (multipart, "/tmp/x", b"--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nno end".to_vec()),
        (multipart, "", nameless),
        (multipart, "/tmp/x", vec![b'-'; 8 << 20]),
        (multipart, "/tmp/x", long),
        (&huge, "/tmp/x", vec![b'b'; 8 << 20]),
        ("application/octet-stream", "/tmp", b"x".to_vec()),
        ("application/octet-stream", "/tmp/nul\0byte", b"x".to_vec()),
        ("application/octet-stream", "~nobody/x", b"x".to_vec()),
    ];
    for (kind, path, body) in cases {
        let message = post(kind, path, body).await.error(400);
        assert!(message.len() < 500, "{kind:.60} {path:?}: {message}");
    }
    assert_eq!(sandbox.shell("echo alive").await, "alive\n");
}

async fn strange_paths_lead_nowhere() {
    let sandbox = Sandbox::shared().await;
    // Everything below the root belongs to the sandbox.
    for path in ["../../../../etc/hostname", "/../../etc/hostname", "~/../../etc/hostname"] {
        let stat = sandbox.call("filesystem.Filesystem/Stat", json!({"path": path})).await;
        assert_eq!(stat.json()["entry"]["path"], "/etc/hostname", "{}", stat.text());
    }
    let (long, deep) = ("x".repeat(300), "x/".repeat(3000));
    for path in ["/tmp/a\0b", long.as_str(), deep.as_str(), "~root/x", "/proc/self/mem/x", "/etc/passwd/x"] {
        for method in ["Stat", "MakeDir", "ListDir", "CreateWatcher"] {
            let refused = sandbox.call(&format!("filesystem.Filesystem/{method}"), json!({"path": path})).await;
            assert!((400..500).contains(&refused.status), "{method} {path:.50}: {}", refused.text());
            assert!(refused.json()["code"].is_string(), "{}", refused.text());
        }
        let query = [("path", path)];
        let read = answer(sandbox.envd(Method::GET, "/files").query(&query)).await;
        assert!((400..500).contains(&read.status), "{path:.50}: {}", read.text());
        let write =
            sandbox.envd(Method::POST, "/files").query(&query).header("content-type", "application/octet-stream");
        let write = answer(write.body("x")).await;
        assert!((400..500).contains(&write.status), "{path:.50}: {}", write.text());
        write.error(write.status);
    }
    assert_eq!(sandbox.shell("echo alive").await, "alive\n");
}
