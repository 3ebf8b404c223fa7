#@ privileges can be gained by programs
assert status("NoNewPrivs") == "0"

#@ every system call is allowed
assert status("Seccomp") == "0"

#@ a capability over the system is held
assert int(status("CapEff"), 16) >> 21 & 1

#@ a capability over the system can be had
assert int(status("CapBnd"), 16) >> 21 & 1

#@ all capabilities of the bound are taken
bound = int(status("CapBnd"), 16)
assert bound >> 21 & 1
header, sets = (ctypes.c_uint * 2)(0x20080522, 0), (ctypes.c_uint * 6)()
sets[0], sets[1], sets[3], sets[4] = bound & 0xffffffff, bound & 0xffffffff, bound >> 32, bound >> 32
in_child(call, "capset", header, sets)

#@ the user becomes root
#! not root: it is
in_child(os.setuid, 0)

#@ the user becomes root for files
#! not root: it is
in_child(call, "setfsuid", 0) if os.geteuid() == 0 else in_child(os.setresuid, 0, 0, 0)

#@ the user becomes a member of root's group
#! not root: it is
in_child(os.setgid, 0)

#@ groups are joined
#! not root: those of the container are its own
in_child(os.setgroups, [0, 1, 2])

#@ su makes root
#! not root: it is
subprocess.run(["su", "-c", "true"], check=True, stdin=subprocess.DEVNULL, capture_output=True)

#@ sudo makes root
#! only strict: the machine of an SDK offers it
#! no control: there sudo is not offered, as code is root already
subprocess.run(["sudo", "-n", "true"], check=True, stdin=subprocess.DEVNULL, capture_output=True)

#@ a program that root gives its rights to makes root of the user
#! only root: nobody else has rights to give
path = f"/tmp/set-user-id-{os.getpid()}"
shutil.copyfile("/usr/bin/id", path)
try:
    os.chmod(path, 0o4755)
    assert os.stat(path).st_uid == 0 and os.stat(path).st_mode & 0o4000
    told = subprocess.run([path, "-u"], user=1000, group=1000, extra_groups=[], capture_output=True, check=True)
    assert told.stdout == b"0\n", told.stdout
finally:
    os.unlink(path)

#@ a file is given to root
#! not root: files of the container are its own
path = own_file("given")
try:
    os.chown(path, 0, 1)
finally:
    os.unlink(path)

#@ a program is given capabilities
path = own_file("capable")
try:
    os.setxattr(path, "security.capability", struct.pack("<5I", 0x2000001, 1 << 21, 0, 0, 0))
finally:
    os.unlink(path)

#@ the bound of capabilities is changed
in_child(call, "prctl", 24, 0, 0, 0, 0)

#@ securebits are changed
in_child(call, "prctl", 28, 1, 0, 0, 0)

#@ a file is made immutable
path = own_file("immutable")
try:
    with open(path) as file:
        flags = fcntl.ioctl(file, 0x80086601, bytes(8))
        fcntl.ioctl(file, 0x40086602, struct.pack("l", struct.unpack("l", flags)[0] | 0x10))
        fcntl.ioctl(file, 0x40086602, flags)
finally:
    os.unlink(path)

#@ priority over others is taken
in_child(os.nice, -5)

#@ real-time priority over others is taken
#! no control: the host may give no real time to groups
in_child(os.sched_setscheduler, 0, os.SCHED_RR, os.sched_param(1))

#@ priority over others' disks is taken
in_child(call, 251, 1, 0, 1 << 13)

#@ more memory is locked than is allowed
pages = mmap.mmap(-1, 64 << 20)
call("mlock", ctypes.byref(ctypes.c_char.from_buffer(pages)), 64 << 20)

#@ more files are opened than is allowed
#! no control: the daemon itself may lack the right to allow it
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))

#@ memory of others is taken first
#! no control: the daemon itself may lack the right to allow it
with open("/proc/self/oom_score_adj", "w") as score:
    score.write("-1000")

#@ the host is woken at a time
descriptor = call("timerfd_create", 8, 0)

#@ receive buffers of any size are taken
with socket.socket() as greedy:
    greedy.setsockopt(socket.SOL_SOCKET, 33, 1 << 20)
