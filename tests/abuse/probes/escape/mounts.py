#@ a file system is mounted
mount(b"none", "/tmp/mount-tmpfs", b"tmpfs")

#@ the processes are mounted anew
mount(b"proc", "/tmp/mount-proc", b"proc")

#@ the devices of the kernel are mounted anew
mount(b"sysfs", "/tmp/mount-sysfs", b"sysfs")

#@ the host's device files are mounted
mount(b"devtmpfs", "/tmp/mount-devices", b"devtmpfs")

#@ the kernel's debugging files are mounted
mount(b"debugfs", "/tmp/mount-debug", b"debugfs")

#@ the kernel's tracing files are mounted
mount(b"tracefs", "/tmp/mount-trace", b"tracefs")

#@ the kernel's programs are mounted
mount(b"bpf", "/tmp/mount-bpf", b"bpf")

#@ the kernel's security files are mounted
mount(b"securityfs", "/tmp/mount-security", b"securityfs")

#@ formats of programs are registered
mount(b"binfmt_misc", "/tmp/mount-binfmt", b"binfmt_misc")

#@ message queues are mounted
mount(b"mqueue", "/tmp/mount-queues", b"mqueue")

#@ control groups of the second kind are mounted
mount(b"cgroup2", "/tmp/mount-cgroup2", b"cgroup2")

#@ a directory is mounted elsewhere
mount(b"/etc", "/tmp/mount-bind", None, 4096)

#@ the root is laid below another
os.makedirs("/dev/shm/upper/up", exist_ok=True), os.makedirs("/dev/shm/upper/work", exist_ok=True)
permitted(mount, b"overlay", "/tmp/mount-overlay", b"overlay", 0, b"lowerdir=/etc,upperdir=/dev/shm/upper/up,workdir=/dev/shm/upper/work")

#@ the root is mounted again, to be written
call("mount", None, b"/", None, 32 | 4096, None)

#@ the sysctls are mounted again, to be written
call("mount", b"/proc/sys", b"/proc/sys", None, 4096, None)
call("umount2", b"/proc/sys", 2)

#@ the mounts are made the host's own
call("mount", None, b"/tmp", None, 1 << 18, None) if os.path.ismount("/tmp") else mount(b"none", "/tmp/mount-private", b"tmpfs")

#@ what is mounted over the host's name is taken away
permitted(call, "umount2", b"/etc/hostname", 2)

#@ the limits of the control group are lifted
call("mount", None, b"/sys/fs/cgroup/memory", None, 32 | 4096, None)
writable("/sys/fs/cgroup/memory/memory.limit_in_bytes")

#@ a program of the host is started when a control group ends
os.makedirs("/tmp/mount-group", exist_ok=True)
call("mount", b"cgroup", b"/tmp/mount-group", b"cgroup", 0, b"pids")
try:
    writable("/tmp/mount-group/release_agent")
finally:
    call("umount2", b"/tmp/mount-group", 2)

#@ the root is changed
call("chroot", b"/")

#@ the root is exchanged
permitted(call, 155, b"/tmp", b"/tmp")

#@ a file system is opened by the new calls
os.close(call(430, b"tmpfs", 0))

#@ a tree of mounts is cloned
os.close(call(428, -100, b"/", 1))

#@ a file system is reconfigured by the new calls
os.close(call(433, -100, b"/", 0))

#@ mounts are changed by the new calls
call(442, -100, b"/", 0, (ctypes.c_ulong * 4)(0, 0, 0, 0), 32)
permitted(call, 442, -100, b"/tmp", 0, (ctypes.c_ulong * 4)(2, 0, 0, 0), 32)

#@ a mount is moved by the new calls
permitted(call, 429, -1, b"", -1, b"/tmp", 4)

#@ a file is opened by its number, past all directories
permitted(call, 304, os.open("/", os.O_RDONLY), struct.pack("=Ii8s", 8, 1, bytes([2, 0, 0, 0, 0, 0, 0, 0])), 0)
