io_setup = 0 if os.uname().machine == "aarch64" else 206


def one(n):
    context = ctypes.c_ulong(0)
    call("syscall", io_setup, 1024, ctypes.byref(context))
    return context


take(one, 1000)
