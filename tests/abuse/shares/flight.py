# Each message carries as many descriptors as possible. Their number is limited by the number of open files.
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
null = os.open("/dev/null", os.O_RDONLY)


def one(n):
    ends = socket.socketpair()
    ends[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * (250 if MODE == "all" else 1)))])
    return ends


take(one, 1000)
