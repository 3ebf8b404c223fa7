//! Our own seccomp filter. It denies system calls that code in a sandbox does not need and that were used to break
//! kernels before.
//!
//! It applies in addition to the engine's filter. The strictest filter decides, so this one allows nothing that the
//! engine's denies. It still holds if the engine's filter is too old to deny a dangerous call, or an operator has
//! replaced it. Calls that are denied here are denied to root too.
//!
//! It costs half a millisecond at the agent's start, which does not show in a launch, and a microsecond in each call
//! whose arguments it inspects. For all other calls the kernel remembers that they are allowed.

use std::env::consts::ARCH;
use std::io;
use std::ops::RangeInclusive;

use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Restricts the calling thread and everything that it starts afterwards. This cannot be undone.
///
/// Programs for another instruction set are killed at their first system call, because their calls have other numbers.
///
/// `user` is the uid of user code and the range of all sandboxes' uids. Not even root can change to another uid of the
/// range.
///
/// # Errors
///
/// When the kernel does not support such filters, or there are no rules for the processor.
pub fn restrict(user: Option<(u32, RangeInclusive<u32>)>) -> Result<(), Error> {
    programs(user)?.iter().try_for_each(|program| seccompiler::apply_filter(program))
}

/// A further filter for root processes in the sandbox: they cannot make inotify instances. The kernel counts those per
/// uid, and root may have 128 on the whole host, regardless of the number of sandboxes. Programs that watch files then
/// report an error or poll.
///
/// The filter also applies to processes of the user that root starts. Those that the agent starts do not have it.
///
/// # Errors
///
/// When there are no rules for the processor.
pub(crate) fn without_inotify() -> io::Result<BpfProgram> {
    program(libc::EMFILE, INOTIFY.iter().map(|call| (*call, Vec::new())).collect()).map_err(io::Error::other)
}

const INOTIFY: &[i64] = &[
    libc::SYS_inotify_init1,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_inotify_init,
];

/// The programs of the filter, one for each error that they return.
fn programs(user: Option<(u32, RangeInclusive<u32>)>) -> Result<[BpfProgram; 3], BackendError> {
    let mut not_permitted = not_permitted()?;
    if let Some((own, all)) = user {
        not_permitted.extend(uids_of_other_sandboxes(own, &all)?);
    }
    Ok([
        without_x32(program(libc::EPERM, not_permitted)?),
        program(libc::ENOSYS, absent())?,
        program(libc::EAFNOSUPPORT, sockets()?)?,
    ])
}

/// System calls with the alternatives of arguments that are denied. Without an alternative, the call is always denied.
type Rules = Vec<(i64, Vec<SeccompRule>)>;

fn program(error: i32, rules: Rules) -> Result<BpfProgram, BackendError> {
    let denied = SeccompAction::Errno(error.unsigned_abs());
    let rules = rules.into_iter().collect();
    SeccompFilter::new(rules, SeccompAction::Allow, denied, TargetArch::try_from(ARCH)?)?.try_into()
}

/// System calls for the administration of a machine, for debuggers and for kernel development.
const NOT_PERMITTED: &[i64] = &[
    // Large and young parts of the kernel, or parts that help attacks on it.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_memfd_secret,
    libc::SYS_perf_event_open,
    // Keyrings, which have no namespaces.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // Other processes' memory and files.
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Namespaces and mounts.
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    OPEN_TREE_ATTR,
    // Access to files by number instead of by name, which can leave a mount.
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    // The machine.
    libc::SYS_kexec_load,
    #[cfg(not(all(target_arch = "aarch64", target_env = "musl")))]
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_acct,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    // Segments, which only 16- and 32-bit code needs.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
];

/// From `asm-generic/unistd.h`, the same on every processor. The `libc` crate does not have it yet.
const OPEN_TREE_ATTR: i64 = 467;

/// From `linux/sched.h`. In `clone` this bit is part of a signal number, but no signal has such a number.
const CLONE_NEWTIME: i32 = 0x80;

/// From `linux/shm.h`.
const SHM_LOCK: i32 = 11;

const NEW_NAMESPACES: [i32; 8] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    CLONE_NEWTIME,
];

/// The personalities that are allowed: the default, `linux32` and `uname26` (their names in `setarch`), both together,
/// and the value that queries the current one. Docker's filter allows the same ones.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, u32::MAX];

fn not_permitted() -> Result<Rules, BackendError> {
    let mut rules: Rules = NOT_PERMITTED.iter().map(|call| (*call, Vec::new())).collect();
    let namespaces = NEW_NAMESPACES.map(|flag| all([has_bit(0, flag)]));
    let namespaces: Vec<_> = namespaces.into_iter().collect::<Result<_, _>>()?;
    rules.push((libc::SYS_unshare, namespaces.clone()));
    rules.push((libc::SYS_clone, namespaces));
    // A debugger may trace a process that it starts, because that asks to be traced. It may not attach to a running
    // process.
    let attach = [libc::PTRACE_ATTACH, libc::PTRACE_SEIZE].map(|request| all([is(0, request)]));
    rules.push((libc::SYS_ptrace, attach.into_iter().collect::<Result<_, _>>()?));
    // Locked shared memory counts against its uid across all sandboxes.
    rules.push((libc::SYS_shmctl, vec![all([is(1, SHM_LOCK)])?]));
    rules.push((libc::SYS_personality, vec![all(PERSONALITIES.map(|plain| is_not(0, plain)))?]));
    Ok(rules)
}

/// Denies changing to the uid of another sandbox, which could use up everything that the kernel counts for that uid.
fn uids_of_other_sandboxes(own: u32, all: &RangeInclusive<u32>) -> Result<Rules, BackendError> {
    let calls = [
        (libc::SYS_setuid, &[0][..]),
        (libc::SYS_setfsuid, &[0]),
        (libc::SYS_setreuid, &[0, 1]),
        (libc::SYS_setresuid, &[0, 1, 2]),
    ];
    let rule = |argument: &u8| {
        let at = |how, value: &u32| compare(*argument, how, *value);
        self::all([at(SeccompCmpOp::Ge, all.start()), at(SeccompCmpOp::Le, all.end()), at(SeccompCmpOp::Ne, &own)])
    };
    let rules = calls.map(|(call, arguments)| Ok((call, arguments.iter().map(rule).collect::<Result<_, _>>()?)));
    rules.into_iter().collect()
}

/// System calls that programs try and can do without if the kernel lacks them.
fn absent() -> Rules {
    // The flags of `clone3` are in memory, which a filter cannot read. The C library falls back to `clone`.
    // `io_setup` draws on 65,536 requests for the whole host; databases work without it.
    [libc::SYS_clone3, libc::SYS_vmsplice, libc::SYS_io_setup].map(|call| (call, Vec::new())).into()
}

/// Denies all sockets except local ones, TCP, UDP and ICMP, and the netlink sockets by which the C library queries
/// addresses. A request for another kind can make the kernel load an old and rarely reviewed module.
fn sockets() -> Result<Rules, BackendError> {
    let [unix, inet, inet6, netlink] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let protocols = [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6];
    let internet = |family| {
        let others = protocols.map(|protocol| is_not(2, protocol));
        all([is(0, family)].into_iter().chain(others))
    };
    let rules = vec![
        all([unix, inet, inet6, netlink].map(|family| is_not(0, family)))?,
        all([is(0, netlink), is_not(2, libc::NETLINK_ROUTE)])?,
        internet(inet)?,
        internet(inet6)?,
    ];
    Ok(vec![(libc::SYS_socket, rules.clone()), (libc::SYS_socketpair, rules)])
}

type Condition = Result<SeccompCondition, BackendError>;

fn all(conditions: impl IntoIterator<Item = Condition>) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)
}

/// Compares the lower half of an argument. For all arguments compared here, the kernel itself ignores the upper half or
/// refuses a value with one. `value` is of either sign, because the C libraries disagree on which constants are signed.
fn compare(argument: u8, how: SeccompCmpOp, value: impl Into<i64>) -> Condition {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, (value.into() as u32).into())
}

fn is(argument: u8, value: impl Into<i64>) -> Condition {
    compare(argument, SeccompCmpOp::Eq, value)
}

fn is_not(argument: u8, value: impl Into<i64>) -> Condition {
    compare(argument, SeccompCmpOp::Ne, value)
}

fn has_bit(argument: u8, bit: i32) -> Condition {
    compare(argument, SeccompCmpOp::MaskedEq(bit.unsigned_abs().into()), bit)
}

/// Puts a check in front of `program` that makes all x32 calls fail with `ENOSYS`. x32 is another interface of the
/// 64-bit kernel, with the same architecture and other call numbers.
#[cfg(target_arch = "x86_64")]
fn without_x32(program: BpfProgram) -> BpfProgram {
    use seccompiler::sock_filter;
    /// From `asm/unistd.h`.
    const X32_SYSCALL_BIT: u32 = 0x4000_0000;
    let step = |code: u32, if_false, value| sock_filter { code: code as u16, jt: 0, jf: if_false, k: value };
    let mut whole = vec![
        // The number of the call is at offset 0 of a filter's input.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, X32_SYSCALL_BIT),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()),
    ];
    whole.extend(program);
    whole
}

#[cfg(not(target_arch = "x86_64"))]
fn without_x32(program: BpfProgram) -> BpfProgram {
    program
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketType};

    use super::*;

    /// The kernel's decision on a call after all three programs.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Verdict {
        Allowed,
        Refused(i32),
        Killed,
    }

    use Verdict::{Allowed, Killed, Refused};

    /// Runs the programs on a call. Their input is `struct seccomp_data` in 32-bit words: number, architecture, address
    /// of the instruction, arguments.
    fn verdict(architecture: u32, number: i64, arguments: &[u64]) -> Verdict {
        let mut data = vec![number as u32, architecture, 0, 0];
        let arguments = arguments.iter().copied().chain(std::iter::repeat(0)).take(6);
        data.extend(arguments.flat_map(|argument| [argument as u32, (argument >> 32) as u32]));
        let user = Some((1_100_000, 1_048_576..=2_097_151));
        let answers = programs(user).expect("a processor with rules").map(|program| run(&program, &data));
        if answers.contains(&libc::SECCOMP_RET_KILL_PROCESS) {
            return Killed;
        }
        let refusal =
            answers.into_iter().find(|answer| answer & libc::SECCOMP_RET_ACTION_FULL == libc::SECCOMP_RET_ERRNO);
        refusal.map_or(Allowed, |answer| Refused((answer & libc::SECCOMP_RET_DATA) as i32))
    }

    /// Interprets a program.
    fn run(program: &BpfProgram, data: &[u32]) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            let code = u32::from(step.code);
            let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
            match code & 0x07 {
                libc::BPF_LD => value = data[step.k as usize / 4],
                libc::BPF_ALU => value &= step.k,
                libc::BPF_RET => return step.k,
                libc::BPF_JMP => {
                    at += match code & 0xf0 {
                        libc::BPF_JA => step.k as usize,
                        libc::BPF_JEQ => jump(value == step.k),
                        libc::BPF_JGT => jump(value > step.k),
                        libc::BPF_JGE => jump(value >= step.k),
                        other => panic!("jump {other}"),
                    }
                }
                other => panic!("class {other}"),
            }
        }
    }

    /// From `linux/audit.h`.
    const I386: u32 = 0x4000_0003;
    const ARM: u32 = 0x4000_0028;
    const NATIVE: u32 = if cfg!(target_arch = "aarch64") { 0xc000_00b7 } else { 0xc000_003e };

    fn call(number: i64, arguments: &[u64]) -> Verdict {
        verdict(NATIVE, number, arguments)
    }

    #[test]
    fn privileged_calls_are_not_permitted_and_optional_ones_are_absent() {
        for number in NOT_PERMITTED {
            assert_eq!(call(*number, &[1, 2, 3]), Refused(libc::EPERM), "{number}");
        }
        assert_eq!(call(libc::SYS_clone3, &[]), Refused(libc::ENOSYS));
        assert_eq!(call(libc::SYS_vmsplice, &[]), Refused(libc::ENOSYS));
        assert_eq!(call(libc::SYS_io_setup, &[1, 2]), Refused(libc::ENOSYS));
        assert_eq!(call(libc::SYS_shmctl, &[0, 11]), Refused(libc::EPERM));
        assert_eq!(call(libc::SYS_shmctl, &[0, libc::IPC_STAT as u64]), Allowed);
        for number in [libc::SYS_read, libc::SYS_execve, libc::SYS_openat, libc::SYS_futex, libc::SYS_seccomp] {
            assert_eq!(call(number, &[1, 2, 3]), Allowed, "{number}");
        }
    }

    #[test]
    fn threads_and_processes_are_allowed_and_namespaces_are_not() {
        let thread =
            (libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u64;
        let spawned = (libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD) as u64;
        for flags in [thread, spawned, libc::SIGCHLD as u64] {
            assert_eq!(call(libc::SYS_clone, &[flags]), Allowed, "{flags:x}");
        }
        assert_eq!(call(libc::SYS_unshare, &[libc::CLONE_FILES as u64]), Allowed);
        for flag in NEW_NAMESPACES {
            let flag = u64::from(flag.unsigned_abs());
            for flags in [flag, flag | thread, flag | 1 << 40] {
                assert_eq!(call(libc::SYS_clone, &[flags]), Refused(libc::EPERM), "{flags:x}");
                assert_eq!(call(libc::SYS_unshare, &[flags]), Refused(libc::EPERM), "{flags:x}");
            }
        }
    }

    #[test]
    fn a_process_may_trace_its_children_and_set_a_plain_personality() {
        for (request, verdict) in [
            (libc::PTRACE_TRACEME, Allowed),
            (libc::PTRACE_PEEKDATA, Allowed),
            (libc::PTRACE_ATTACH, Refused(libc::EPERM)),
            (libc::PTRACE_SEIZE, Refused(libc::EPERM)),
        ] {
            assert_eq!(call(libc::SYS_ptrace, &[request as u64]), verdict, "{request}");
        }
        for plain in PERSONALITIES {
            assert_eq!(call(libc::SYS_personality, &[plain.into()]), Allowed, "{plain:x}");
        }
        for other in [libc::ADDR_NO_RANDOMIZE, libc::READ_IMPLIES_EXEC, libc::MMAP_PAGE_ZERO, 1] {
            assert_eq!(call(libc::SYS_personality, &[other as u64]), Refused(libc::EPERM), "{other:x}");
        }
    }

    #[test]
    fn no_process_changes_to_the_uid_of_another_sandbox() {
        let (none, refused) = (u64::from(u32::MAX), Refused(libc::EPERM));
        for (uid, verdict) in [
            (0, Allowed),
            (42, Allowed),
            (1_048_575, Allowed),
            (1_048_576, refused),
            (1_099_999, refused),
            (1_100_000, Allowed),
            (1_100_001, refused),
            (2_097_151, refused),
            (2_097_152, Allowed),
            (none, Allowed),
            // The kernel ignores the upper half.
            (1_100_001 | 1 << 40, refused),
        ] {
            for (number, before, after) in [
                (libc::SYS_setuid, 0, 0),
                (libc::SYS_setfsuid, 0, 0),
                (libc::SYS_setreuid, 0, 1),
                (libc::SYS_setreuid, 1, 0),
                (libc::SYS_setresuid, 0, 2),
                (libc::SYS_setresuid, 1, 1),
                (libc::SYS_setresuid, 2, 0),
            ] {
                let arguments = [vec![none; before], vec![uid], vec![none; after]].concat();
                assert_eq!(call(number, &arguments), verdict, "{number}: {arguments:?}");
            }
        }
    }

    #[test]
    fn sockets_are_local_or_the_internets() {
        let (stream, raw) = (libc::SOCK_STREAM as u64, libc::SOCK_RAW as u64);
        let socket = |family: i32, kind, protocol: i32| {
            let arguments = [family as u64, kind, protocol as u64];
            let verdict = call(libc::SYS_socket, &arguments);
            assert_eq!(call(libc::SYS_socketpair, &arguments), verdict);
            verdict
        };
        for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
            assert_eq!(socket(family, stream, 0), Allowed);
        }
        for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMP] {
            assert_eq!(socket(libc::AF_INET, stream, protocol), Allowed);
        }
        let refused = Refused(libc::EAFNOSUPPORT);
        for protocol in [libc::IPPROTO_SCTP, libc::IPPROTO_DCCP, libc::IPPROTO_MPTCP, 115] {
            assert_eq!(socket(libc::AF_INET, stream, protocol), refused, "{protocol}");
            assert_eq!(socket(libc::AF_INET6, stream, protocol), refused, "{protocol}");
        }
        assert_eq!(socket(libc::AF_NETLINK, raw, libc::NETLINK_ROUTE), Allowed);
        for protocol in [libc::NETLINK_NETFILTER, libc::NETLINK_XFRM, libc::NETLINK_AUDIT, libc::NETLINK_GENERIC] {
            assert_eq!(socket(libc::AF_NETLINK, raw, protocol), refused, "{protocol}");
        }
        let known = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
        for family in (0..64).filter(|family| !known.contains(family)) {
            assert_eq!(socket(family, stream, 0), refused, "{family}");
        }
    }

    #[test]
    fn calls_with_the_numbers_of_another_interface_fail() {
        let foreign = if cfg!(target_arch = "aarch64") { ARM } else { I386 };
        assert_eq!(verdict(foreign, 1, &[]), Killed);
        if cfg!(target_arch = "x86_64") {
            for number in [libc::SYS_read, libc::SYS_mount, 512] {
                assert_eq!(call(number | 0x4000_0000, &[]), Refused(libc::ENOSYS));
            }
        }
    }

    /// Restricts a new thread, so that the other tests are not affected.
    #[test]
    fn the_kernel_accepts_the_filter_and_child_processes_inherit_it() {
        let thread = std::thread::spawn(|| {
            restrict(None).expect("a kernel with seccomp");
            let vsock = AddressFamily::from_raw(libc::AF_VSOCK as u16);
            assert_eq!(rustix::net::socket(vsock, SocketType::STREAM, None).err(), Some(Errno::AFNOSUPPORT));
            rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket of the internet's");
            std::process::Command::new("unshare").args(["--user", "true"]).output().expect("unshare")
        });
        let output = thread.join().expect("it is restricted");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("Operation not permitted"), "{stderr}");
    }
}
