//! Attacks from inside a sandbox: on its agent, its host, the server and other sandboxes.

use serde_json::{Value, json};

use crate::e2b::Sandbox;
use crate::lan::{Lan, gateway};
use crate::support::{Server, docker, eventually, server, stdout};

trials![
    user_code_has_no_rights,
    programs_with_the_set_user_id_bit_gain_nothing,
    the_system_is_read_only_and_the_users_own_places_are_not,
    the_agent_cannot_be_signalled_or_read,
    nothing_of_the_host_is_visible,
    what_was_not_given_cannot_be_mounted_or_made,
    system_calls_that_break_kernels_are_denied,
    other_instruction_sets_are_no_way_round,
    what_programs_ordinarily_do_is_not_denied,
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
import getpass, pwd
own = pwd.getpwuid(os.getuid())
is_own = 1_048_576 <= os.getuid() <= 2_097_151 and own == pwd.getpwnam("user") and os.stat(".").st_uid == os.getuid()
print(is_own, os.getuid() == os.geteuid(), own.pw_name, own.pw_dir, getpass.getuser(), os.getgid(), os.getgroups(), os.path.expanduser("~"))
fields = dict(line.split(":\t") for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"]:
    print(name, int(fields[name], 16))
print("CapBnd", fields["CapBnd"])
print(fields["NoNewPrivs"], fields["Seccomp"])
os.system("sudo -n id 2>&1 | grep -c uid=0")
# The agent is the last that the kernel takes for want of memory, and code of any generation the first.
os.system("bash -c 'cat /proc/1/oom_score_adj /proc/self/oom_score_adj' | xargs")
"#;
    let said = python(code).await;
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        lines[..5],
        ["True True user /home/user user 1000 [] /home/user", "CapInh 0", "CapPrm 0", "CapEff 0", "CapAmb 0"],
        "{said}"
    );
    // The agent's capabilities, which no other process can gain: CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID and SETUID,
    // bits 0, 1, 3, 5, 6 and 7.
    assert_eq!(lines[5..7], ["CapBnd 00000000000000eb", "1 2"], "{said}");
    assert_eq!(lines[7..], ["0", "0 1000"], "{said}");
}

/// In each image, and in the sandbox that an SDK keeps. The same programs do gain rights in a container that does not
/// prevent it.
async fn programs_with_the_set_user_id_bit_gain_nothing() {
    // The output of `--help` goes to a full pipe, so that the programs wait and can be inspected.
    let script = r#"
full=$(mktemp -u); mkfifo $full; exec 3<> $full; dd if=/dev/zero of=$full bs=4096 oflag=nonblock conv=notrunc 2> /dev/null
for file in $(find / -xdev -perm /6000 -type f 2> /dev/null | sort); do
  "$file" --help < /dev/null >&3 2>&3 &
  until [ "$(cat /proc/$!/comm)" = "$(basename "$file" | head -c 15)" ]; do :; done
  echo $file $(grep -E '^(Uid|Gid|NoNewPrivs):' /proc/$!/status | sed "s/\b$(id -u)\b/UID/g")
  kill -9 $!
done
rm $full
"#;
    let ordinary = "Uid: UID UID UID UID Gid: 1000 1000 1000 1000";
    let gained = |image: &str| {
        let run = ["run", "--rm", "--network", "none", "--user", "1000:1000", "--entrypoint", "timeout"];
        let said = docker(&[&run[..], &[image, "60", "sh", "-c", script]].concat());
        let programs: Vec<_> = said.lines().map(|line| line.split_once(' ').expect("a program")).collect();
        assert!(programs.iter().any(|(program, _)| program.ends_with("/su")), "{image}: {said}");
        for (program, status) in &programs {
            assert!(!status.contains(ordinary) && status.ends_with("NoNewPrivs: 0"), "{image}: {program} {status}");
        }
        programs.iter().map(|(program, _)| format!("{program} {ordinary} NoNewPrivs: 1\n")).collect::<String>()
    };
    for (language, image, code) in [
        ("python", "oncebox/python", "import os; os.system(os.environ['SCRIPT']);"),
        (
            "js",
            "oncebox/node",
            "require('child_process').spawnSync('sh', ['-c', process.env.SCRIPT], { stdio: 'inherit' });",
        ),
        (
            "ts",
            "oncebox/ts",
            "import { spawnSync } from 'child_process'\nspawnSync('sh', ['-c', process.env.SCRIPT!], { stdio: 'inherit' });",
        ),
        ("r", "oncebox/r", "invisible(system(Sys.getenv('SCRIPT')))"),
        (
            "java",
            "oncebox/jshell",
            "new ProcessBuilder(\"sh\", \"-c\", System.getenv(\"SCRIPT\")).inheritIO().start().waitFor();",
        ),
    ] {
        let request = json!({"language": language, "code": code, "env": {"SCRIPT": script}, "timeout_ms": 120_000});
        let answer = server().run_with(request).await;
        assert_eq!(stdout(&answer), gained(image), "{language}: {answer}");
    }
    assert_eq!(Sandbox::interpreted().await.shell(script).await, gained("oncebox/full"));
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
import ctypes, os, socket
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
print("done")
"#;
    assert_eq!(python(code).await, "done\n");
    let interface = r#"
import fcntl, socket, struct
SIOCSIFMTU = 0x8922
try:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFMTU, struct.pack("16si12x", b"lo", 1400))
    print("changed")
except OSError as err:
    print(err.strerror)
"#;
    assert_eq!(python(interface).await, "Operation not permitted\n");
    let run = ["run", "--rm", "--network", "none", "--cap-add", "NET_ADMIN", "--entrypoint", "python3"];
    assert_eq!(docker(&[&run[..], &["oncebox/python", "-c", interface]].concat()), "changed\n");
}

/// Names and numbers of system calls that are denied with any arguments.
macro_rules! numbered {
    ($($name:ident)*) => { [$((stringify!($name), libc::$name)),*] };
}

/// Docker's own filter denies many of them with the same error; whether it denies others depends on its version.
async fn system_calls_that_break_kernels_are_denied() {
    let always = numbered![
        SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register SYS_bpf SYS_userfaultfd SYS_memfd_secret
        SYS_perf_event_open
        SYS_keyctl SYS_add_key SYS_request_key SYS_process_vm_readv SYS_process_vm_writev SYS_pidfd_getfd SYS_kcmp
        SYS_setns SYS_mount SYS_umount2 SYS_pivot_root SYS_open_tree SYS_move_mount SYS_fsopen SYS_fsconfig SYS_fsmount
        SYS_fspick SYS_mount_setattr SYS_name_to_handle_at SYS_open_by_handle_at SYS_fanotify_init SYS_kexec_load
        SYS_init_module SYS_finit_module SYS_delete_module SYS_quotactl SYS_quotactl_fd SYS_acct SYS_swapon SYS_swapoff
        SYS_reboot SYS_syslog SYS_lookup_dcookie SYS_nfsservctl
    ];
    let mut calls: Vec<_> = always.iter().map(|(name, number)| json!([name, number, [], "EPERM"])).collect();
    #[cfg(target_arch = "x86_64")]
    calls.extend(
        numbered![SYS_kexec_file_load SYS_iopl SYS_ioperm SYS_modify_ldt SYS_uselib SYS__sysctl]
            .map(|(name, number)| json!([name, number, [], "EPERM"])),
    );
    calls.extend(numbered![SYS_clone3 SYS_vmsplice].iter().map(|(name, number)| json!([name, number, [], "ENOSYS"])));
    for (name, flag) in [
        ("a mount namespace", libc::CLONE_NEWNS),
        ("a cgroup namespace", libc::CLONE_NEWCGROUP),
        ("a UTS namespace", libc::CLONE_NEWUTS),
        ("an IPC namespace", libc::CLONE_NEWIPC),
        ("a user namespace", libc::CLONE_NEWUSER),
        ("a PID namespace", libc::CLONE_NEWPID),
        ("a network namespace", libc::CLONE_NEWNET),
        ("a user and a network namespace", libc::CLONE_NEWUSER | libc::CLONE_NEWNET),
    ] {
        calls.push(json!([name, libc::SYS_unshare, [flag], "EPERM"]));
        calls.push(json!([name, libc::SYS_clone, [flag | libc::SIGCHLD], "EPERM"]));
    }
    calls.push(json!(["attach", libc::SYS_ptrace, [libc::PTRACE_ATTACH, "child"], "EPERM"]));
    calls.push(json!(["seize", libc::SYS_ptrace, [libc::PTRACE_SEIZE, "child"], "EPERM"]));
    calls.push(json!(["no random addresses", libc::SYS_personality, [libc::ADDR_NO_RANDOMIZE], "EPERM"]));
    let (stream, raw) = (libc::SOCK_STREAM, libc::SOCK_RAW);
    for family in [
        libc::AF_VSOCK,
        libc::AF_ALG,
        libc::AF_PACKET,
        libc::AF_BLUETOOTH,
        libc::AF_XDP,
        libc::AF_KEY,
        libc::AF_RDS,
        libc::AF_TIPC,
        libc::AF_CAN,
        libc::AF_NFC,
        libc::AF_X25,
        libc::AF_PPPOX,
    ] {
        calls.push(json!([format!("family {family}"), libc::SYS_socket, [family, stream], "EAFNOSUPPORT"]));
    }
    for protocol in [libc::NETLINK_NETFILTER, libc::NETLINK_XFRM, libc::NETLINK_GENERIC, libc::NETLINK_CRYPTO] {
        let arguments = json!([libc::AF_NETLINK, raw, protocol]);
        calls.push(json!([format!("netlink {protocol}"), libc::SYS_socket, arguments, "EAFNOSUPPORT"]));
    }
    for protocol in [libc::IPPROTO_SCTP, libc::IPPROTO_DCCP, libc::IPPROTO_MPTCP] {
        let arguments = json!([libc::AF_INET, stream, protocol]);
        calls.push(json!([format!("protocol {protocol}"), libc::SYS_socket, arguments, "EAFNOSUPPORT"]));
    }
    let code = r#"
import ctypes, errno, json, os, subprocess
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
child = subprocess.Popen(["sleep", "60"])
calls = json.loads(os.environ["CALLS"])
for name, number, arguments, expected in calls:
    arguments = [child.pid if argument == "child" else argument for argument in arguments + [0] * 6][:6]
    ctypes.set_errno(0)
    answer = libc.syscall(*map(ctypes.c_long, [number, *arguments]))
    said = errno.errorcode[ctypes.get_errno()] if answer == -1 else "done"
    if said != expected:
        print(name, number, said)
child.kill()
print(len(calls))
"#;
    let env = json!({"CALLS": json!(calls).to_string()});
    let answer = server().run_with(json!({"language": "python", "code": code, "env": env})).await;
    assert_eq!(stdout(&answer), format!("{}\n", calls.len()), "{answer}");
}

async fn other_instruction_sets_are_no_way_round() {
    if cfg!(not(target_arch = "x86_64")) {
        return;
    }
    let code = r#"
import ctypes, errno, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
X32, GETPID = 0x40000000, 39
print(libc.syscall(X32 | GETPID), errno.errorcode[ctypes.get_errno()])
I386 = """
import ctypes, mmap
GETPID = 20
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes([0xb8, GETPID, 0, 0, 0]))  # mov eax, GETPID
page.write(bytes([0xcd, 0x80]))             # int 0x80
page.write(bytes([0xc3]))                   # ret
code = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
print("called as", code())
"""
print(subprocess.run([sys.executable, "-c", I386]).returncode)
"#;
    // Killed by SIGSYS.
    assert_eq!(python(code).await, "-1 ENOSYS\n-31\n");
}

async fn what_programs_ordinarily_do_is_not_denied() {
    let code = r#"
import asyncio, ctypes, multiprocessing, os, signal, socket, subprocess, sys, threading
threads = [threading.Thread(target=sys.stdout.write, args=["thread\n"]) for _ in range(2)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
print(subprocess.run("echo shell | cat", shell=True, capture_output=True, text=True).stdout, end="")
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(abs, [-1, -2]))
# A program of its own, because processes that start afresh run the file of their program once more.
spawned = "import concurrent.futures, multiprocessing\nwith concurrent.futures.ProcessPoolExecutor(2, " \
    "mp_context=multiprocessing.get_context('spawn')) as pool: print(list(pool.map(abs, [-3, -4])))"
print(subprocess.run([sys.executable, "-c", spawned], capture_output=True, text=True).stdout, end="")
async def echo():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    await asyncio.open_connection(*server.sockets[0].getsockname())
    process = await asyncio.create_subprocess_exec("echo", "asyncio", stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0]
print(asyncio.run(echo()))
libc = ctypes.CDLL(None, use_errno=True)
addresses = ctypes.c_void_p()
print(libc.getifaddrs(ctypes.byref(addresses)), "lo" in [name for _, name in socket.if_nameindex()])
print(socket.getaddrinfo("localhost", 80, proto=socket.IPPROTO_TCP)[0][4][1])
# As debuggers start a program.
TRACEME, CONT = 0, 7
child = os.fork()
if child == 0:
    libc.ptrace(TRACEME, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(3)
print(os.WSTOPSIG(os.waitpid(child, 0)[1]) == signal.SIGSTOP, libc.ptrace(CONT, child, 0, 0))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;
    let expected = "thread\nthread\nshell\n[1, 2]\n[3, 4]\nb'asyncio\\n'\n0 True\n80\nTrue 0\n3\n";
    assert_eq!(python(code).await, expected);
    for (language, code, expected) in [
        (
            "js",
            r#"
import { Worker } from "node:worker_threads";
import { execSync, fork } from "node:child_process";
import { networkInterfaces } from "node:os";
const worker = new Worker("require('node:worker_threads').parentPort.postMessage(6 * 7)", { eval: true });
console.log(await new Promise((resolve) => worker.on("message", resolve)));
console.log(execSync("echo shell").toString().trim(), "lo" in networkInterfaces());
"#,
            "42\nshell true\n",
        ),
        (
            "r",
            "cat(system(\"echo shell\", intern = TRUE), unlist(parallel::mclapply(1:2, function(x) x * 2, mc.cores = 2)))",
            "shell 2 4",
        ),
        (
            "java",
            r#"
var thread = new Thread(() -> System.out.println("thread"));
thread.start();
thread.join();
System.out.print(new String(new ProcessBuilder("echo", "process").start().getInputStream().readAllBytes()));
System.out.println(java.net.NetworkInterface.getByName("lo").isLoopback());
var listener = new java.net.ServerSocket(0);
System.out.println(new java.net.Socket("127.0.0.1", listener.getLocalPort()).isConnected());
"#,
            "thread\nprocess\ntrue\ntrue\n",
        ),
    ] {
        let answer = server().run(language, code).await;
        assert_eq!(stdout(&answer), expected, "{answer}");
    }
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
    // The sender does not learn that a datagram was dropped; the check below shows whether it was received.
    assert_eq!(stdout(&answer), "refused\nrefused\nrefused\nsent\nTrue\n", "{answer}");
    let mut rest = Vec::new();
    while let Some(event) = listening.next().await {
        rest.push((event.name, event.data));
    }
    assert_eq!(rest.len(), 1, "it was reached: {rest:?}");
    assert_eq!(rest[0].1["outcome"]["kind"], "ok");
}

/// Sandboxes use a network namespace one after the other. Only one runs at a time here, so that the next one gets the
/// same namespace.
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
rows = [line for name in ["tcp", "tcp6", "udp", "udp6"] for line in lines(name)]
# The engine's own name server listens in each of its networks, on 127.0.0.11.
print([line for line in rows if not line[1].startswith("0B00007F:")])
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
        let rest = found.strip_prefix("[]\n[]\nrefused\n[]\n").unwrap_or_else(|| panic!("left behind: {found}"));
        reused |= rest.trim() == namespace;
        server.until_busy(0, 0).await;
    }
    assert!(reused, "no namespace was used twice, so nothing was tested");
    // The end that closes a connection first remembers it for a minute, in the kernel and not in a process.
    let connect = r#"
import os, socket
own = socket.create_server(("127.0.0.1", 0))
host, port = os.environ["TARGET"].split(":")
with socket.create_connection((host, int(port)) if host else own.getsockname(), timeout=5) as client:
    served = None if host else own.accept()[0]
    print("connected" if served else client.recv(10).decode())
if served:
    served.close()
    rows = open("/proc/net/tcp").read().splitlines()[1:]
    print([row.split()[3] for row in rows if f":{own.getsockname()[1]:04X} " in row and " 06 " in row])
"#;
    let lan = Lan::new();
    for (target, said) in [(":".to_owned(), "connected\n['06']\n"), (lan.public(2), "hello\n")] {
        let request = json!({"language": "python", "code": connect, "env": {"TARGET": target}});
        assert_eq!(stdout(&server.run_with(request).await), said, "{target}");
        server.until_busy(0, 0).await;
        let found = stdout(&server.run("python", look).await);
        assert!(found.starts_with("[]\n[]\nrefused\n[]\n"), "left behind of {target}: {found}");
        server.until_busy(0, 0).await;
    }
}

/// This holds even for a server that listens on every address of its machine, where an ordinary container reaches it.
async fn the_server_cannot_be_reached_from_inside() {
    const KEY: &str = "e2b_1111111111111111111111111111111111111111";
    let server = Server::start_cold(&[("ONCEBOX_LISTEN", "0.0.0.0:0"), ("ONCEBOX_API_KEYS", KEY)]);
    let port = server.url.rsplit(':').next().expect("a port");
    let run = async |request: Value| {
        let post = server.http.post(format!("{}/v1/run", server.url)).header("x-api-key", KEY).json(&request);
        post.send().await.expect("an answer").json::<Value>().await.expect("JSON")
    };
    run(json!({"language": "python", "code": "1"})).await;
    let network = format!("oncebox-{}", server.owner);
    let gateway = gateway(&network);
    let code = r#"
import os, socket, subprocess
# No address, or one, and soon: where there is no such name, resolvers ask around for it.
host = subprocess.run("timeout 5 getent hosts host.docker.internal", shell=True, capture_output=True, text=True).stdout.split()[:1]
for host in ["127.0.0.1", "localhost", os.environ["GATEWAY"], "0.0.0.0", *host]:
    for port in [int(os.environ["PORT"]), 2375, 2376]:
        try:
            socket.create_connection((host, port), timeout=2)
            print("reached", host, port)
        except OSError:
            pass
print("done")
"#;
    let variables = [format!("GATEWAY={gateway}"), format!("PORT={port}")];
    let container = ["run", "--rm", "--network", &network, "--env", &variables[0], "--env", &variables[1]];
    let reached = docker(&[&container[..], &["--entrypoint", "python3", "oncebox/python", "-c", code]].concat());
    assert_eq!(reached, format!("reached {gateway} {port}\ndone\n"), "what an ordinary container reaches");
    let env = json!({"GATEWAY": gateway, "PORT": port});
    let answer = run(json!({"language": "python", "code": code, "env": env})).await;
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
    eventually("its container goes with it", async || server.sandboxes().is_empty()).await;
}
