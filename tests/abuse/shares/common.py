import array, ctypes, fcntl, os, resource, signal, socket, struct, tempfile, time

# On the host it may be root who starts this.
if UID is not None:
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)

libc = ctypes.CDLL(None, use_errno=True)
kept = []


def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def take(one, most):
    """Takes `most` and keeps them until it is killed, or takes one. Prints how many it got; of one, also why it got none."""
    taken = 0
    try:
        while taken < (most if MODE == "all" else 1):
            kept.append(one(taken))
            taken += 1
    except OSError as error:
        if MODE == "one":
            print(error)
    print(taken, flush=True)
    if MODE == "all":
        time.sleep(3600)
