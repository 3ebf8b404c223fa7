//! Name resolution in sandboxes, on an engine whose host uses the test's own name server.

use std::fs;

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::e2b;
use crate::support::{Server, stdout};

trials![names_are_resolved_with_a_full_network_only];

/// Prints the address of a name, or `none`.
const ASK: &str = r#"
const { lookup } = require("node:dns").promises
await lookup("name.oncebox.test").then(found => console.log(found.address), () => console.log("none"))
"#;

/// The address in the name server's answers.
const ADDRESS: &str = "11.213.0.2\n";
const NONE: &str = "none\n";

/// The addresses of the name server: one on the loopback interface, like a resolver of the host's own, and another one.
const NAMESERVERS: [&str; 2] = ["127.213.0.53", "10.213.0.53"];

/// A daemon on a host with this name server. Needs root, `ip` and `dnsmasq`.
fn daemon(resolv_conf: &str) -> Daemon {
    let listen = NAMESERVERS.map(|address| format!("--listen-address={address}")).join(" ");
    let own = ADDRESS.trim();
    Daemon::start_after(&format!(
        "ip addr add {}/32 dev lo && dnsmasq --conf-file=/dev/null --no-resolv --no-hosts --pid-file --user=root \
         --bind-interfaces {listen} --address=/oncebox.test/{own} && mount --bind {resolv_conf} /etc/resolv.conf",
        NAMESERVERS[1]
    ))
}

/// The output of the code in a kept sandbox with this network policy.
async fn kept(server: &Server, network: &Value) -> String {
    let create = json!({"templateID": "js", "network": network});
    let (status, created) = server.post("/sandboxes", &create).await;
    assert_eq!(status, 201, "{created}");
    let post = server.http.post(format!("{}/execute", server.url));
    let post = post.header("E2b-Sandbox-Id", created["sandboxID"].as_str().expect("an id"));
    let post = post.header("E2b-Sandbox-Port", e2b::INTERPRETER).json(&json!({"code": ASK, "language": "js"}));
    let answer = post.send().await.expect("an answer").text().await.expect("text");
    let lines = answer.lines().map(|line| serde_json::from_str::<Value>(line).expect("a JSON line"));
    let printed = lines.filter(|line| line["type"] == "stdout").map(|line| line["text"].as_str().map(str::to_owned));
    printed.map(|text| text.expect("text")).collect()
}

async fn names_are_resolved_with_a_full_network_only() {
    let resolv_conf = tempfile::NamedTempFile::new().expect("a file");
    let daemon = daemon(&resolv_conf.path().display().to_string());
    for nameserver in NAMESERVERS {
        fs::write(&resolv_conf, format!("nameserver {nameserver}\n")).expect("a file");
        let engine = ("DOCKER_HOST", daemon.address());
        let server = Server::start_cold(&[(engine.0, &engine.1)]);
        let network = format!("oncebox-{}", server.owner);
        let asked = |code| json!({"language": "js", "code": code});
        let full = server.run_with(asked(ASK)).await;
        // Without a network policy: the name server answers, and containers of this daemon reach it.
        let code = format!("(async () => {{ {ASK} }})()");
        let container =
            daemon.docker(&["run", "--rm", "--network", &network, "--entrypoint", "node", "oncebox/node", "-e", &code]);
        assert_eq!(container, ADDRESS, "{nameserver}: the name server does not answer");
        assert_eq!(stdout(&full), ADDRESS, "{nameserver}: {full}");
        assert_eq!(kept(&server, &json!({"denyOut": ["1.1.1.1"]})).await, ADDRESS, "{nameserver}");

        let mut none = asked(ASK);
        none["network"] = json!("none");
        let listing = Server::start_cold(&[
            (engine.0, &engine.1),
            ("ONCEBOX_TEMPLATES__NODE__NETWORK", "allowlist"),
            ("ONCEBOX_TEMPLATES__NODE__ALLOW", r#"["11.213.0.2"]"#),
        ]);
        let listed = listing.run("js", ASK).await;
        // Resolution fails within a second or two, regardless of how the engine handles the query.
        let waited_ms = listed["usage"]["wall_ms"].as_u64().expect("a number");
        assert!(waited_ms < 4000, "{nameserver}: {listed}");
        let all_else = json!({"denyOut": ["0.0.0.0/0"], "allowOut": ["11.213.0.2"]});
        let without = [
            ("none", stdout(&server.run_with(none).await)),
            ("allowlist", stdout(&listed)),
            ("all else denied", kept(&server, &all_else).await),
        ];
        let expected = without.each_ref().map(|(network, _)| (*network, NONE.to_owned()));
        assert_eq!(without, expected, "{nameserver}");
    }
}
