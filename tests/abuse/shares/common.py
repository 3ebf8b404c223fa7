import array, ctypes, fcntl, os, resource, signal, socket, struct, tempfile, time

# On the host, root may start this program.
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
    """Takes `most` units and keeps them until the program is killed, or takes one unit.

    Prints the number taken, or why one failed.
    """
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
