//! Attacks from inside a sandbox: on its agent, on its host, on the server, on other sandboxes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Server, docker, server, stdout};

trials![
    user_code_has_no_rights,
    the_system_is_read_only_and_the_users_own_places_are_not,
    the_agent_cannot_be_signalled_or_read,
    nothing_of_the_host_is_visible,
    what_was_not_given_cannot_be_mounted_or_made,
    sandboxes_at_the_same_time_do_not_reach_each_other,
    nothing_of_a_run_is_there_for_the_next_one_of_its_network,
    the_server_cannot_be_reached_from_inside,
    a_child_without_a_parent_is_still_in_the_sandbox,
];

async fn python(code: &str) -> String {
    let answer = server().run("python", code).await;
    assert_eq!(answer["outcome"]["kind"], "ok", "{answer}");
    stdout(&answer)
}

async fn user_code_has_no_rights() {
    let code = r#"
import os
print(os.getuid(), os.geteuid(), os.getgid(), os.getgroups(), os.path.expanduser("~"))
fields = dict(line.split(":\t") for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"]:
    print(name, int(fields[name], 16))
print("CapBnd", bin(int(fields["CapBnd"], 16)).count("1"))
print(fields["NoNewPrivs"], fields["Seccomp"])
os.system("find / -xdev -perm /6000 -type f 2>/dev/null | head -3; sudo -n id 2>&1 | grep -c uid=0")
"#;
    let said = python(code).await;
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..5], ["1000 1000 1000 [] /home/user", "CapInh 0", "CapPrm 0", "CapEff 0", "CapAmb 0"], "{said}");
    let bound: u32 = lines[5].trim_start_matches("CapBnd ").parse().expect("a number");
    assert!(bound <= 6, "{bound} capabilities could be had");
    assert_eq!(lines[6], "1 2");
    // Programs with the set-user-ID bit gain nothing here: the bit is without effect under NoNewPrivs.
    assert_eq!(lines.last(), Some(&"0"), "{said}");
}

async fn the_system_is_read_only_and_the_users_own_places_are_not() {
    let code = r#"
import os, tempfile
for directory in ["/", "/etc", "/usr", "/usr/local/bin", "/opt", "/opt/oncebox", "/var", "/run", "/run/oncebox", "/root",
                  "/home", "/dev", "/proc", "/proc/sys/kernel", "/sys", "/sys/fs/cgroup", "/boot", "/srv"]:
    try:
        open(directory + "/new", "w")
        print("wrote to", directory)
    except OSError:
        pass
for file in ["/etc/passwd", "/etc/hosts", "/etc/resolv.conf", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger",
             "/sys/kernel/uevent_helper", "/opt/oncebox/agent"]:
    try:
        open(file, "a").write("x")
        print("changed", file)
    except OSError:
        pass
for directory in ["/home/user", "/tmp", "/var/tmp", "/dev/shm"]:
    open(directory + "/new", "w").write("x")
    os.chmod(directory + "/new", 0o755)
print(tempfile.gettempdir(), os.getcwd())
"#;
    assert_eq!(python(code).await, "/tmp /home/user\n");
}

async fn the_agent_cannot_be_signalled_or_read() {
    let code = r#"
import ctypes, os, signal
for number in [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, 0]:
    try:
        os.kill(1, number)
        print("signalled")
    except PermissionError:
        pass
for name in ["mem", "environ", "maps", "root/etc/passwd", "cwd", "exe", "fd/0", "fd/1", "io", "stack", "syscall"]:
    try:
        open("/proc/1/" + name, "rb").read(1)
        print("read", name)
    except OSError:
        pass
try:
    print(os.listdir("/proc/1/fd"))
except PermissionError:
    pass
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
print(libc.ptrace(PTRACE_ATTACH, 1, 0, 0), libc.ptrace(PTRACE_SEIZE, 1, 0, 0))
print(open("/proc/1/cmdline").read().split("\0")[0])
"#;
    assert_eq!(python(code).await, "-1 -1\n/opt/oncebox/agent\n");
}

async fn nothing_of_the_host_is_visible() {
    let code = r#"
import os
pids = [pid for pid in os.listdir("/proc") if pid.isdigit()]
print(len(pids) < 20 and all(int(pid) < 5000 for pid in pids))
for path in ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd", "/var/lib/docker"]:
    if os.path.exists(path):
        print("there is", path)
for line in open("/proc/self/mountinfo"):
    fields = line.split()
    root, point, kind = fields[3], fields[4], fields[fields.index("-") + 1]
    if kind in ("ext4", "xfs", "btrfs", "9p", "virtiofs", "nfs", "fuse") and point != "/":
        print(point)
devices = {name for name in os.listdir("/dev")}
print(sorted(devices - {"core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
                        "stdout", "tty", "urandom", "zero", "console"}))
print(os.uname().nodename)
print([name for name in os.environ if "ONCEBOX" in name or "DOCKER" in name])
"#;
    let said = python(code).await;
    let expected = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];
    let mounts: Vec<_> = said.lines().filter(|line| line.starts_with('/')).collect();
    assert!(mounts.iter().all(|mount| expected.contains(mount)), "more than Docker's own files: {said}");
    let rest: Vec<_> = said.lines().filter(|line| !line.starts_with('/')).collect();
    assert_eq!(rest, ["True", "[]", "sandbox", "[]"], "{said}");
}

async fn what_was_not_given_cannot_be_mounted_or_made() {
    let code = r#"
import ctypes, os, socket, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def refused(name, *arguments):
    ctypes.set_errno(0)
    if getattr(libc, name)(*arguments) != -1:
        print("could", name)
refused("mount", b"none", b"/tmp", b"tmpfs", 0, None)
refused("umount2", b"/etc/hosts", 2)
refused("unshare", 0x10000000)
refused("unshare", 0x40000000)
refused("setuid", 0)
refused("setgid", 0)
refused("chroot", b"/tmp")
refused("sethostname", b"x", 1)
refused("mknod", b"/tmp/device", 0o60666, 0x0800)
refused("pivot_root", b"/tmp", b"/tmp") if hasattr(libc, "pivot_root") else None
refused("syscall", 321, 5, 0, 0)   # bpf
refused("syscall", 250, 0, 0, 0)   # keyctl
refused("syscall", 323, 0)         # userfaultfd
refused("syscall", 298, 0, 0, -1, -1, 0)  # perf_event_open
for family, kind in [(socket.AF_PACKET, socket.SOCK_RAW), (socket.AF_INET, socket.SOCK_RAW)]:
    try:
        socket.socket(family, kind)
        print("could open a raw socket", family)
    except OSError:
        pass
os.environ["PATH"] += ":/usr/sbin:/sbin"
subprocess.run("ip link add dummy0 type dummy && echo made a link", shell=True, stderr=subprocess.DEVNULL)
print("done")
"#;
    assert_eq!(python(code).await, "done\n");
}

async fn sandboxes_at_the_same_time_do_not_reach_each_other() {
    let server = server();
    let listen = r#"
import os, socket, sys, time
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
probe.connect(("8.8.8.8", 9))
print(probe.getsockname()[0], flush=True)
listener = socket.create_server(("0.0.0.0", 8000))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("0.0.0.0", 8000))
listener.settimeout(0.2)
datagrams.settimeout(0.2)
# What others must not do can be done.
itself = socket.create_connection((probe.getsockname()[0], 8000), timeout=5)
listener.accept()
ends = time.monotonic() + 12
while time.monotonic() < ends:
    for receive in [listener.accept, lambda: datagrams.recv(10)]:
        try:
            print("reached", receive(), flush=True)
        except TimeoutError:
            pass
"#;
    let mut listening = server.stream(json!({"language": "python", "code": listen})).await;
    let mut address = String::new();
    while !address.ends_with('\n') {
        address += listening.next().await.expect("its address").data["text"].as_str().expect("text");
    }
    let attack = r#"
import os, socket
address = os.environ["ADDRESS"]
for bound in [False, True]:
    for kind in [socket.SOCK_STREAM, socket.SOCK_DGRAM]:
        attacker = socket.socket(socket.AF_INET, kind)
        attacker.settimeout(3)
        if bound:
            # Past the routes.
            attacker.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        try:
            attacker.connect((address, 8000))
            attacker.send(b"hello")
            print("connected" if kind == socket.SOCK_STREAM else "sent")
        except OSError:
            print("refused")
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.connect(("8.8.8.8", 9))
print(own.getsockname()[0] != address)
"#;
    let env = json!({"ADDRESS": address.trim()});
    let answer = server.run_with(json!({"language": "python", "code": attack, "env": env})).await;
    // That a datagram was dropped is told to nobody; whether it was received is, below.
    assert_eq!(stdout(&answer), "refused\nrefused\nrefused\nsent\nTrue\n", "{answer}");
    let mut rest = Vec::new();
    while let Some(event) = listening.next().await {
        rest.push((event.name, event.data));
    }
    assert_eq!(rest.len(), 1, "it was reached: {rest:?}");
    assert_eq!(rest[0].1["outcome"]["kind"], "ok");
}

/// Sandboxes take turns in a network namespace. One at a time here, so that the next one has the one before's.
async fn nothing_of_a_run_is_there_for_the_next_one_of_its_network() {
    let server = Server::start_cold(&[("ONCEBOX_MAX_SANDBOXES", "1")]);
    let leave = r#"
import os, socket, subprocess, sys, time
child = '''
import socket, time
listener = socket.create_server(("0.0.0.0", 8123))
hidden = socket.socket(socket.AF_UNIX)
hidden.bind("\\0left-behind")
hidden.listen()
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("0.0.0.0", 8124))
print("listening", flush=True)
time.sleep(600)
'''
daemon = subprocess.Popen([sys.executable, "-c", child], start_new_session=True, stdout=subprocess.PIPE, text=True)
print(daemon.stdout.readline().strip())
print(os.stat("/proc/self/ns/net").st_ino)
"#;
    let look = r#"
import os, socket
def lines(name):
    return [line.split() for line in open("/proc/net/" + name).read().splitlines()[1:]]
print([line for line in lines("tcp") + lines("tcp6") if line[3] == "0A" and "1FBB" in line[1]])
print([line for line in lines("udp") if "1FBC" in line[1]])
print([line for line in lines("unix") if "left-behind" in line[-1]])
try:
    socket.create_connection(("127.0.0.1", 8123), timeout=3)
    print("connected")
except OSError:
    print("refused")
print([pid for pid in os.listdir("/proc") if pid.isdigit() and "left-behind" in open(f"/proc/{pid}/cmdline").read()])
print(os.stat("/proc/self/ns/net").st_ino)
"#;
    let mut reused = false;
    for _ in 0..3 {
        let left = stdout(&server.run("python", leave).await);
        let namespace = left.strip_prefix("listening\n").expect("a daemon").trim().to_owned();
        server.until_busy(0, 0).await;
        let found = stdout(&server.run("python", look).await);
        let rest = found.strip_prefix("[]\n[]\n[]\nrefused\n[]\n").unwrap_or_else(|| panic!("left behind: {found}"));
        reused |= rest.trim() == namespace;
        server.until_busy(0, 0).await;
    }
    assert!(reused, "no namespace was used twice, so nothing was tested");
}

async fn the_server_cannot_be_reached_from_inside() {
    let server = server();
    let port = server.url.rsplit(':').next().expect("a port");
    server.run("python", "1").await;
    let network = format!("oncebox-{}", server.owner);
    let gateway = docker(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", &network]);
    let code = r#"
import os, socket
for host in ["127.0.0.1", "localhost", os.environ["GATEWAY"], "0.0.0.0", "host.docker.internal"]:
    for port in [int(os.environ["PORT"]), 2375, 2376]:
        try:
            socket.create_connection((host, port), timeout=2)
            print("reached", host, port)
        except OSError:
            pass
print("done")
"#;
    let env = json!({"GATEWAY": gateway.trim(), "PORT": port});
    let answer = server.run_with(json!({"language": "python", "code": code, "env": env})).await;
    assert_eq!(stdout(&answer), "done\n", "{answer}");
}

async fn a_child_without_a_parent_is_still_in_the_sandbox() {
    let server = Server::start_cold(&[]);
    let code = r#"
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.close(1), os.close(2)
        time.sleep(600)
    os._exit(0)
os.wait()
print("done")
"#;
    let answer = server.run("python", code).await;
    assert_eq!((stdout(&answer).as_str(), &answer["outcome"]["kind"]), ("done\n", &Value::from("ok")));
    server.until_busy(0, 0).await;
    tokio::time::timeout(Duration::from_secs(10), async {
        while !server.sandboxes().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("its container goes with it");
}
