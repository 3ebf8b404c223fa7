F_SETPIPE_SZ, F_GETPIPE_SZ = 1031, 1032


def one(n):
    ends = os.pipe()
    # A user with too many pipes gets short ones.
    if fcntl.fcntl(ends[0], F_GETPIPE_SZ) < 65536:
        raise OSError("a short pipe")
    fcntl.fcntl(ends[0], F_SETPIPE_SZ, 1 << (20 if MODE == "all" else 17))
    return ends


take(one, 500)
