signal.pthread_sigmask(signal.SIG_BLOCK, [40])
information = ctypes.create_string_buffer(128)
struct.pack_into("iii", information, 0, 40, 0, -1)
rt_sigqueueinfo = 138 if os.uname().machine == "aarch64" else 129
take(lambda n: call("syscall", rt_sigqueueinfo, os.getpid(), 40, information), 2_000_000)
