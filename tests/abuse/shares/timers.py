timer_create = 107 if os.uname().machine == "aarch64" else 222
take(lambda n: call("syscall", timer_create, 1, None, ctypes.byref(ctypes.c_int())), 2_000_000)
