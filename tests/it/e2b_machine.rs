//! A kept sandbox behaves like a machine of its own: every directory is writable, `sudo` works, and the amount of
//! written data is limited.

use reqwest::Method;
use serde_json::json;

use crate::e2b::{INTERPRETER, Sandbox, answer, api};
use crate::support::eventually;

trials![
    files_can_be_written_anywhere_and_belong_to_the_user,
    sudo_is_root_and_ends_as_its_command_does,
    sudo_passes_on_its_input_and_environment,
    signals_reach_the_command_of_sudo,
    root_by_sudo_has_only_the_rights_of_the_container,
    where_the_template_says_so_there_is_no_sudo_and_the_system_is_read_only,
    a_sandbox_that_writes_more_than_it_may_is_ended,
    readings_are_kept_and_listed_for_many_sandboxes_at_once,
    the_interpreters_of_two_languages_are_listed_from_the_start,
    what_root_writes_to_the_files_of_the_network_is_not_there_for_the_next,
];

async fn files_can_be_written_anywhere_and_belong_to_the_user() {
    let sandbox = Sandbox::interpreted().await;
    for path in ["/path/to/file", "/etc/made-here", "/usr/local/bin/made-here"] {
        let sent = sandbox.envd(Method::POST, "/files").query(&[("path", path)]);
        let sent = answer(sent.header("content-type", "application/octet-stream").body("text")).await;
        assert_eq!(sent.status, 200, "{path}: {}", sent.text());
        let entry = sandbox.call("filesystem.Filesystem/Stat", json!({"path": path})).await.json()["entry"].clone();
        assert_eq!((entry["owner"].as_str(), entry["size"].as_str()), (Some("user"), Some("4")), "{path}: {entry}");
    }
    let listed = sandbox.call("filesystem.Filesystem/ListDir", json!({"path": "/root", "depth": 1})).await;
    assert!(listed.text().contains(".bashrc"), "{}", listed.text());
    // With its own rights, the user's code cannot do any of this.
    assert_eq!(sandbox.shell("touch /etc/x 2>/dev/null || echo refused").await, "refused\n");
}

async fn sudo_is_root_and_ends_as_its_command_does() {
    let sandbox = Sandbox::interpreted().await;
    let own = sandbox.shell("id -u").await;
    let told = sandbox.shell("sudo id -u; sudo -n -u user id -u; sudo -s id -u; sudo su user -c 'id -u'").await;
    assert_eq!(told, format!("0\n{own}0\n{own}"));
    assert_eq!(sandbox.shell("sudo sh -c 'exit 7'; echo $?").await, "7\n");
    assert_eq!(sandbox.shell("sudo sh -c 'kill -9 $$'; echo $?").await, "137\n");
    for (command, message) in [
        ("sudo no-such-command", "sudo: no-such-command: command not found"),
        ("sudo -u nobody-here id", "sudo: invalid username: 'nobody-here'"),
        ("sudo --no-such-option id", "sudo: invalid option '--no-such-option'"),
        ("sudo", "sudo: the command is missing"),
    ] {
        assert_eq!(sandbox.shell(&format!("{command} 2>&1; echo $?")).await, format!("{message}\n1\n"), "{command}");
    }
    // Package installers use this program.
    assert_eq!(
        sandbox.shell("sudo install -o root -m 755 /bin/true /usr/bin/mine && mine && stat -c %U /usr/bin/mine").await,
        "root\n"
    );
}

async fn sudo_passes_on_its_input_and_environment() {
    let sandbox = Sandbox::interpreted().await;
    assert_eq!(sandbox.shell("echo typed | sudo cat").await, "typed\n");
    assert_eq!(sandbox.shell("sudo sh -c 'echo out; echo err >&2' 2>/dev/null").await, "out\n");
    assert_eq!(sandbox.shell("cd /tmp; sudo pwd; sudo -i pwd").await, "/tmp\n/root\n");
    let echo = "sh -c 'echo $HOME $USER $MINE $SUDO_USER'";
    assert_eq!(sandbox.shell(&format!("export MINE=1; sudo {echo}")).await, "/root root user\n");
    assert_eq!(sandbox.shell(&format!("export MINE=1; sudo -E {echo}")).await, "/root root 1 user\n");
    assert_eq!(sandbox.shell(&format!("sudo MINE=2 {echo}")).await, "/root root 2 user\n");
    // A client may also become root in this way.
    assert_eq!(sandbox.shell("sudo -u root sudo -u user id -un").await, "user\n");
}

async fn signals_reach_the_command_of_sudo() {
    let sandbox = Sandbox::interpreted().await;
    let script = "sudo sh -c 'trap \"echo got it; exit 3\" TERM; echo ready; while :; do sleep 0.05; done' > /tmp/said & \
                  until grep -q ready /tmp/said; do sleep 0.05; done; kill -TERM $!; wait $!; echo $?; cat /tmp/said";
    assert_eq!(sandbox.shell(script).await, "3\nready\ngot it\n");
}

async fn root_by_sudo_has_only_the_rights_of_the_container() {
    let sandbox = Sandbox::interpreted().await;
    let status = sandbox.shell("sudo cat /proc/self/status").await;
    let line = |name: &str| {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {status}"));
        line.trim_start_matches(':').trim().to_owned()
    };
    // CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID and SETUID: bits 0, 1, 3, 5, 6 and 7.
    assert_eq!(line("CapEff"), "00000000000000eb");
    assert_eq!(line("CapBnd"), "00000000000000eb");
    assert_eq!((line("NoNewPrivs"), line("Seccomp")), ("1".to_owned(), "2".to_owned()));
    for command in
        ["mount -t tmpfs none /mnt", "mknod /tmp/sda b 8 0", "chroot / true", "ip link set lo down", "hostname x"]
    {
        assert_eq!(
            sandbox.shell(&format!("sudo {command} 2>/dev/null || echo refused")).await,
            "refused\n",
            "{command}"
        );
    }
}

async fn where_the_template_says_so_there_is_no_sudo_and_the_system_is_read_only() {
    let sandbox = Sandbox::create(json!({"templateID": "python"})).await;
    let said = sandbox.shell("sudo id -u 2>&1; echo $?").await;
    assert_eq!(said, "sudo: this sandbox's template does not let code become root (superuser = false)\n1\n");
    let sent = sandbox.envd(Method::POST, "/files").query(&[("path", "/etc/made-here")]);
    let sent = answer(sent.header("content-type", "application/octet-stream").body("text")).await;
    assert_ne!(sent.status, 200, "{}", sent.text());
    sandbox.kill().await;
}

/// The server of these tests allows 512 MiB.
async fn a_sandbox_that_writes_more_than_it_may_is_ended() {
    let sandbox = Sandbox::create(json!({"templateID": "code-interpreter-v1"})).await;
    let mut within = sandbox.start("dd if=/dev/zero of=/home/user/within bs=1M count=256").await;
    within.rest().await.expect("what is within the bound goes well");
    eventually("its disk is measured", async || {
        let readings = sandbox.envd(Method::GET, "/metrics");
        answer(readings).await.json()["disk_used"].as_u64().expect("bytes") > 256 << 20
    })
    .await;
    let mut beyond = sandbox.start("dd if=/dev/zero of=/home/user/beyond bs=1M count=400; sleep 60").await;
    assert_eq!(beyond.error().await.0, "unavailable");
    assert_eq!(sandbox.api(Method::GET, "", None).await.status, 404);
}

async fn readings_are_kept_and_listed_for_many_sandboxes_at_once() {
    let sandbox = Sandbox::create(json!({"templateID": "code-interpreter-v1"})).await;
    let readings = async || sandbox.api(Method::GET, "/metrics", None).await.json();
    eventually("there are two readings", async || readings().await.as_array().is_some_and(|list| list.len() >= 2))
        .await;
    let list = readings().await;
    let seconds = |index: usize| list[index]["timestampUnix"].as_u64().expect("seconds");
    assert!((4..=20).contains(&(seconds(1) - seconds(0))), "{list}");
    assert_eq!(list[0]["diskTotal"], 512 << 20);
    let between = |start: u64, end: u64| format!("/metrics?start={start}&end={end}");
    let first = sandbox.api(Method::GET, &between(seconds(0), seconds(0)), None).await.json();
    assert_eq!(first.as_array().map(Vec::len), Some(1), "{first}");
    let milliseconds = sandbox.api(Method::GET, &between(seconds(0) * 1000, seconds(0) * 1000), None).await.json();
    assert_eq!(first, milliseconds);
    let many = api(Method::GET, &format!("/sandboxes/metrics?sandbox_ids={},inobody", sandbox.id), None).await.json();
    assert_eq!(many["sandboxes"].as_object().map(|sandboxes| sandboxes.len()), Some(1), "{many}");
    assert!(many["sandboxes"][&sandbox.id]["memTotal"].as_u64().is_some_and(|bytes| bytes > 0), "{many}");
    sandbox.kill().await;
}

async fn the_interpreters_of_two_languages_are_listed_from_the_start() {
    let sandbox = Sandbox::create(json!({"templateID": "code-interpreter-v1"})).await;
    let listed = answer(sandbox.at(INTERPRETER, Method::GET, "/contexts")).await.json();
    let languages: Vec<_> =
        listed.as_array().expect("a list").iter().map(|context| context["language"].clone()).collect();
    assert_eq!(languages, ["python", "javascript"]);
    // The listed context is the one that a request with its language uses.
    for asked in
        [json!({"code": "var x = 41", "context_id": listed[1]["id"]}), json!({"code": "x + 1", "language": "js"})]
    {
        let lines = sandbox.execute(&asked).await;
        assert!(lines.iter().all(|line| line["type"] != "error"), "{lines:?}");
        assert!(asked["language"].is_null() || lines.iter().any(|line| line["text"] == "42"), "{lines:?}");
    }
    sandbox.kill().await;
}

async fn what_root_writes_to_the_files_of_the_network_is_not_there_for_the_next() {
    let files = "/etc/hosts /etc/resolv.conf /etc/hostname";
    // One sandbox after the other, so that each could get the files of the one before.
    for _ in 0..4 {
        let sandbox = Sandbox::create(json!({"templateID": "base"})).await;
        assert_eq!(sandbox.shell(&format!("grep -l 6.6.6.6 {files} || true")).await, "");
        let written = format!("echo 6.6.6.6 | sudo tee -a {files} > /dev/null; grep -l 6.6.6.6 {files} | wc -l");
        assert_eq!(sandbox.shell(&written).await, "3\n", "nothing was written, so that nothing is shown");
        sandbox.kill().await;
    }
    // In this template, not even root can write them.
    let sandbox = Sandbox::create(json!({"templateID": "python"})).await;
    for path in files.split(' ') {
        let sent = sandbox.envd(Method::POST, "/files").query(&[("path", path), ("username", "root")]);
        let sent = answer(sent.header("content-type", "application/octet-stream").body("6.6.6.6")).await;
        assert!(sent.status >= 400, "{path} was written");
    }
    let process = json!({"cmd": "/bin/sh", "args": ["-c", format!("echo 6.6.6.6 | tee {files}")]});
    let mut stream = sandbox
        .stream_with("process.Process/Start", json!({"process": process}), &[("authorization", "Basic cm9vdDo=")])
        .await;
    stream.rest().await;
    assert_eq!(sandbox.shell(&format!("cat {files} | grep 6.6.6.6 || echo none")).await, "none\n");
    sandbox.kill().await;
}
