attributes = (ctypes.c_long * 8)(0, 10, 8192)


def one(n):
    name = b"/oncebox-%d-%d" % (os.getpid(), n)
    queue = call("mq_open", name, os.O_CREAT | os.O_RDWR, 0o600, attributes)
    # The queue exists as long as a process has it open.
    call("mq_unlink", name)
    return queue


take(one, 1000)
