# In one message, as many as go into one. What limits them is how many files one may have open.
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
null = os.open("/dev/null", os.O_RDONLY)


def one(n):
    ends = socket.socketpair()
    ends[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * (250 if MODE == "all" else 1)))])
    return ends


take(one, 1000)
