#@ a namespace of users is made
in_child(call, 272, 0x10000000)

#@ a namespace of mounts is made
in_child(call, 272, 0x20000)

#@ a namespace of the network is made
in_child(call, 272, 0x40000000)

#@ a namespace of processes is made
in_child(call, 272, 0x20000000)

#@ a namespace of names is made
in_child(call, 272, 0x4000000)

#@ a namespace of shared memory is made
in_child(call, 272, 0x8000000)

#@ a namespace of control groups is made
in_child(call, 272, 0x2000000)

#@ a namespace of time is made
in_child(call, 272, 0x80)

#@ a process is started in a namespace of users
child = call(56, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
if child == 0:
    os._exit(0)
os.waitpid(child, 0)

#@ a process is started in a namespace of mounts
child = call(56, 0x20000 | signal.SIGCHLD, 0, 0, 0, 0)
if child == 0:
    os._exit(0)
os.waitpid(child, 0)

#@ the mounts of the first process are entered
descriptor = os.open("/proc/1/ns/mnt", os.O_RDONLY)
in_child(call, 308, descriptor, 0)

#@ the interfaces of the first process are entered
descriptor = os.open("/proc/1/ns/net", os.O_RDONLY)
in_child(call, 308, descriptor, 0)

#@ the processes of the first process are entered
descriptor = os.open("/proc/1/ns/pid", os.O_RDONLY)
in_child(call, 308, descriptor, 0)

#@ the names of the first process are entered
descriptor = os.open("/proc/1/ns/uts", os.O_RDONLY)
in_child(call, 308, descriptor, 0)

#@ the shared memory of the first process are entered
descriptor = os.open("/proc/1/ns/ipc", os.O_RDONLY)
in_child(call, 308, descriptor, 0)

#@ the control groups of the first process are entered
descriptor = os.open("/proc/1/ns/cgroup", os.O_RDONLY)
in_child(call, 308, descriptor, 0)

#@ the processes are the host's own
#! no control: the weak one's are its own too, as the agent ends all that it sees
assert os.readlink("/proc/self/ns/pid") == os.environ["NS_PID"]

#@ the mounts are the host's own
#! no control: an engine gives them to nobody
assert os.readlink("/proc/self/ns/mnt") == os.environ["NS_MNT"]

#@ the shared memory is the host's own
assert os.readlink("/proc/self/ns/ipc") == os.environ["NS_IPC"]

#@ the names are the host's own
assert os.readlink("/proc/self/ns/uts") == os.environ["NS_UTS"]

#@ the host's shared memory is read
assert readable(os.environ["SHARED"]) == b"secret"

#@ the engine is spoken to
with socket.socket(socket.AF_UNIX) as engine:
    engine.connect("/var/run/docker.sock")
    engine.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
    assert b"200" in engine.recv(100)

#@ the engine below the engine is spoken to
#! no control: it is not given to the weak one, whose code could do harm with it
with socket.socket(socket.AF_UNIX) as engine:
    engine.connect("/run/containerd/containerd.sock")
