//! The configuration: an invalid value stops the start, and the error names the source, the key and the reason.

use std::fs;
use std::path::Path;

use crate::support::{Server, oncebox, refuses_to_start};

trials![
    a_variable_that_cannot_be_meant_stops_the_start,
    a_file_that_cannot_be_meant_stops_the_start,
    a_key_that_a_file_leaves_out_is_at_its_default,
    a_variable_goes_before_the_file,
    the_defaults_are_those_of_the_files,
    an_engine_without_isolation_is_refused_unless_it_is_allowed,
];

async fn a_variable_that_cannot_be_meant_stops_the_start() {
    let cases = [
        ("ONCEBOX_MAX_SANDBOXES", "0", "max_sandboxes must be at least 1, not 0"),
        ("ONCEBOX_MAX_SANDBOXES", "many", "max_sandboxes: invalid type: found string \"many\", expected usize"),
        ("ONCEBOX_MAX_SANDBOXES", "-1", "max_sandboxes: "),
        ("ONCEBOX_QUEUE_TIMEOUT_MS", "0", "queue_timeout_ms must be at least 1, not 0"),
        ("ONCEBOX_STALL_TIMEOUT_MS", "0", "stall_timeout_ms must be at least 1, not 0"),
        ("ONCEBOX_ENGINE_TIMEOUT_MS", "0", "engine_timeout_ms must be at least 100, not 0"),
        ("ONCEBOX_LAUNCH_TIMEOUT_MS", "0", "launch_timeout_ms must be at least 100, not 0"),
        ("ONCEBOX_MAX_BODY_BYTES", "10", "max_body_bytes must be at least 1024, not 10"),
        ("ONCEBOX_LISTEN", "localhost", "listen: "),
        ("ONCEBOX_LISTEN", "3000", "listen: "),
        ("ONCEBOX_OWNER", "Not Allowed", "owner must be at most 32 lower-case letters, digits and dashes"),
        ("ONCEBOX_OWNER", &"x".repeat(33), "owner must be at most 32 lower-case letters, digits and dashes"),
        ("ONCEBOX_LOG_FORMAT", "xml", "log_format: unknown variant"),
        ("ONCEBOX_MAX_SANDBOX", "3", "unknown field: found `max_sandbox`"),
        ("ONCEBOX_TEMPLATES__COBOL__WARM", "1", "ONCEBOX_TEMPLATES__COBOL__WARM names no template; there are"),
        ("ONCEBOX_TEMPLATES__NODE__WARMTH", "1", "unknown field: found `warmth`"),
        ("ONCEBOX_TEMPLATES__NODE__WARM", "-1", "warm: "),
        ("ONCEBOX_TEMPLATES__NODE__NETWORK", "some", "network: unknown variant"),
        ("ONCEBOX_TEMPLATES__NODE__NETWORK", "allowlist", "network = \"allowlist\" needs at least one entry in allow"),
        ("ONCEBOX_TEMPLATES__NODE__ALLOW", "[\"1.2.3.4\"]", "allow is for network = \"allowlist\" only"),
        (
            "ONCEBOX_TEMPLATES__NODE__ALLOW",
            "[\"*.example.com\"]",
            "allow: `*.example.com`: name each host by itself, without",
        ),
        ("ONCEBOX_ALLOW_PRIVATE", "[\"10.0.0.1/8\"]", "allow_private: `10.0.0.1/8` is an address within 10.0.0.0/8"),
        ("ONCEBOX_ALLOW_PRIVATE", "[\"10.0.0.0/33\"]", "allow_private: `10.0.0.0/33` is not an IPv4 network"),
        ("ONCEBOX_ALLOW_PRIVATE", "[\"fd00::/8\"]", "allow_private: `fd00::/8` is IPv6, which sandboxes do not have"),
        ("ONCEBOX_ALLOW_PRIVATE", "10.0.0.1", "allow_private: invalid type"),
        ("ONCEBOX_USER_IDS", "1000-", "user_ids: `1000-` is not a range of uids, FIRST-LAST"),
        ("ONCEBOX_USER_IDS", "0-65535", "user_ids: `0-65535` must be at least 256 uids, from 1000 to 2147483646"),
        ("ONCEBOX_TEMPLATES__NODE__MEMORY_BYTES", "1000", "memory_bytes must be at least 67108864, not 1000"),
        ("ONCEBOX_TEMPLATES__NODE__PROCESSES", "2", "processes must be at least 16, not 2"),
        ("ONCEBOX_TEMPLATES__NODE__MAX_TIMEOUT_MS", "1000", "max_timeout_ms must be at least 30000, not 1000"),
        ("ONCEBOX_TEMPLATES__NODE__NAME", "python", "`python` is a name of both"),
    ];
    for (name, value, reason) in cases {
        let said = refuses_to_start(&[(name, value)], None);
        let source = if reason.contains("name of both") { "config/templates" } else { "environment" };
        assert!(said.starts_with(&format!("oncebox: {source}: ")), "{name}={value}: {said}");
        assert!(said.contains(reason), "{name}={value}: `{said}` does not say `{reason}`");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// Copies the repository's configuration.
fn copy() -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    fs::create_dir(copy.path().join("templates")).expect("a directory");
    fs::copy(original.join("oncebox.toml"), copy.path().join("oncebox.toml")).expect("a copy");
    for entry in fs::read_dir(original.join("templates")).expect("templates") {
        let entry = entry.expect("a template");
        fs::copy(entry.path(), copy.path().join("templates").join(entry.file_name())).expect("a copy");
    }
    copy
}

async fn a_file_that_cannot_be_meant_stops_the_start() {
    let cases = [
        ("oncebox.toml", "max_sandboxes = 16", "max_sandboxes = 0", "max_sandboxes must be at least 1, not 0"),
        ("oncebox.toml", "max_sandboxes = 16", "max_sandboxes = \"16\"", "max_sandboxes: invalid type"),
        ("oncebox.toml", "max_sandboxes = 16", "max_sandboxs = 16", "unknown field: found `max_sandboxs`"),
        ("oncebox.toml", "max_sandboxes = 16", "max_sandboxes = ", "TOML parse error"),
        ("templates/node.toml", "cpu_millis = 1000", "cpu_millis = 1", "cpu_millis must be at least 10, not 1"),
        ("templates/node.toml", "cpu_millis = 1000", "", "missing field `cpu_millis`"),
        ("templates/node.toml", "cpu_millis = 1000", "cpu = 1", "unknown field: found `cpu`"),
        ("templates/node.toml", "image = \"oncebox/node\"", "image = \"\"", "image must not be empty"),
    ];
    for (file, from, to, reason) in cases {
        let directory = copy();
        let path = directory.path().join(file);
        let text = fs::read_to_string(&path).expect("a file");
        assert!(text.contains(from), "{file} has no `{from}`");
        fs::write(&path, text.replace(from, to)).expect("a file");
        let said = refuses_to_start(&[], Some(directory.path()));
        assert!(said.starts_with(&format!("oncebox: {}: ", path.display())), "{said}");
        assert!(said.contains(reason), "{to}: `{said}` does not say `{reason}`");
    }
    let directory = copy();
    fs::remove_file(directory.path().join("oncebox.toml")).expect("it was there");
    let said = refuses_to_start(&[], Some(directory.path()));
    assert!(said.contains("oncebox.toml: cannot be read: No such file"), "{said}");
}

async fn a_key_that_a_file_leaves_out_is_at_its_default() {
    let directory = copy();
    fs::write(directory.path().join("oncebox.toml"), "max_queued = 7\n").expect("a file");
    let path = directory.path().to_str().expect("text");
    let server = Server::start_cold(&[("ONCEBOX_CONFIG", path)]);
    let (_, status) = server.get("/v1/status").await;
    assert_eq!(status["limits"], serde_json::json!({"max_sandboxes": 16, "max_queued": 7}));
}

async fn a_variable_goes_before_the_file() {
    let server = Server::start_cold(&[
        ("ONCEBOX_MAX_SANDBOXES", "5"),
        ("ONCEBOX_TEMPLATES__NODE__MEMORY_BYTES", "268435456"),
        ("ONCEBOX_TEMPLATES__NODE__TIMEOUT_MS", "1234"),
    ]);
    let (_, status) = server.get("/v1/status").await;
    assert_eq!(status["limits"]["max_sandboxes"], 5);
    let (_, answer) = server.get("/v1/languages").await;
    let languages = answer["languages"].as_array().expect("a list");
    let js = languages.iter().find(|language| language["name"] == "js").expect("js");
    assert_eq!((&js["limits"]["memory_bytes"], &js["limits"]["timeout_ms"]), (&268_435_456.into(), &1234.into()));
    let answer = server.run("js", "while True: pass").await;
    assert_eq!(answer["outcome"]["limit"], serde_json::json!({"name": "timeout_ms", "value": 1234}));
}

async fn the_defaults_are_those_of_the_files() {
    // Started in a directory without `config`, so that the built-in files are used. The error names the source of a bad
    // value.
    let empty = tempfile::tempdir().expect("a directory");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_oncebox"))
        .arg("serve")
        .current_dir(empty.path())
        .env("ONCEBOX_TEMPLATES__NODE__MAX_TIMEOUT_MS", "29999")
        .output()
        .expect("oncebox serve");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(said, "oncebox: environment: max_timeout_ms must be at least 30000, not 29999\n");
    assert!(!output.status.success());
    // The repository's files are complete: each key has a value there, regardless of the built-in defaults.
    let checked = oncebox().arg("serve").env("ONCEBOX_MAX_SANDBOXES", "0").output().expect("oncebox serve");
    assert!(!checked.status.success());
}

async fn an_engine_without_isolation_is_refused_unless_it_is_allowed() {
    for consent in ["", "0", "yes"] {
        let reason = refuses_to_start(&[("ONCEBOX_UNSAFE_PROCESS_ENGINE", consent)], None);
        let expected =
            "runs code with all rights of the server and is for tests: ONCEBOX_UNSAFE_PROCESS_ENGINE=1 allows it";
        assert!(reason.contains(expected), "{consent:?}: {reason}");
    }
}
