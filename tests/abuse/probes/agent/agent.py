#@ the agent is told to end
os.kill(1, signal.SIGTERM)

#@ the agent is killed
os.kill(1, signal.SIGKILL)

#@ the agent is stopped
os.kill(1, signal.SIGSTOP)

#@ the agent is asked whether it takes signals
os.kill(1, 0)

#@ the agent is signalled by a descriptor
signal.pidfd_send_signal(os.pidfd_open(1), 0)

#@ the agent is traced
in_child(call, "ptrace", 0x4206, 1, 0, 0)

#@ the agent's memory is read by a call
buffer = ctypes.create_string_buffer(16)
start = int(open("/proc/1/maps").readline().split("-")[0], 16) if os.access("/proc/1/maps", os.R_OK) else 0x400000
call(310, 1, (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 16), 1, (ctypes.c_void_p * 2)(start, 16), 1, 0)

#@ the agent's memory is written by a call
permitted(call, 311, 1, (ctypes.c_void_p * 2)(0, 0), 1, (ctypes.c_void_p * 2)(1, 1), 1, 0)

#@ the agent's memory is read as a file
os.close(os.open("/proc/1/mem", os.O_RDONLY))

#@ the agent's memory is written as a file
writable("/proc/1/mem")

#@ the agent's variables are read
open("/proc/1/environ", "rb").read()

#@ the agent's mappings are read
assert open("/proc/1/maps").read()

#@ the agent's pages are told
readable("/proc/1/pagemap")

#@ the agent's auxiliary vector is read
readable("/proc/1/auxv")

#@ what the agent waits for is read
assert readable("/proc/1/syscall")

#@ the agent's stack is read
assert readable("/proc/1/stack")

#@ how much the agent reads is told
assert readable("/proc/1/io")

#@ the agent's files are listed
os.listdir("/proc/1/fd")

#@ the agent's input is opened
os.close(os.open("/proc/1/fd/0", os.O_RDONLY | os.O_NONBLOCK))

#@ the agent's output is opened
writable("/proc/1/fd/1")

#@ the agent's log is opened
writable("/proc/1/fd/2")

#@ a descriptor of the agent's is taken
os.close(call(438, os.pidfd_open(1), 1, 0))

#@ the agent's root is entered
os.listdir("/proc/1/root/")

#@ the agent's directory is entered
os.listdir("/proc/1/cwd/")

#@ the agent's program is followed
os.readlink("/proc/1/exe")

#@ the agent's namespaces are told
os.readlink("/proc/1/ns/mnt")

#@ the agent is offered to the kernel when memory runs out
writable("/proc/1/oom_score_adj")

#@ the agent's priority is changed
os.setpriority(os.PRIO_PROCESS, 1, os.getpriority(os.PRIO_PROCESS, 1))

#@ the agent is moved to other processors
os.sched_setaffinity(1, os.sched_getaffinity(1))

#@ the agent's limits are changed
import resource
resource.prlimit(1, resource.RLIMIT_NOFILE, resource.prlimit(1, resource.RLIMIT_NOFILE))

#@ the agent's scheduling is changed
os.sched_setscheduler(1, os.SCHED_OTHER, os.sched_param(0))

#@ the agent's program is replaced
os.rename("/opt/oncebox/agent", "/opt/oncebox/agent")
os.chmod("/opt/oncebox/agent", 0o755)

#@ a program is put beside the agent
create("/opt/oncebox/abuse")

#@ the runner is changed
writable("/opt/oncebox/python/runner.py")

#@ a module is put beside the runner
create("/opt/oncebox/python/json.py")

#@ how a runner is started is changed
writable("/opt/oncebox/python/language.json")

#@ a language is added
os.mkdir("/opt/oncebox/abuse-language")
os.rmdir("/opt/oncebox/abuse-language")

#@ a pipe is put among the agent's
create("/run/oncebox/abuse")

#@ the agent's pipes are removed
directory = os.path.dirname(glob.glob("/run/oncebox/*/*")[0])
os.rename(directory, directory + ".gone")
os.rename(directory + ".gone", directory)

#@ the runner's tracing is turned on from outside
in_child(call, "ptrace", 0x4206, os.getppid() if os.getppid() > 1 else 1, 0, 0)
