SHM_LOCK, IPC_RMID = 11, 0


def one(n):
    segment = call("shmget", 0, 65536, 0o1600)
    try:
        return call("shmctl", segment, SHM_LOCK, None)
    finally:
        # The host keeps the segment until it is removed, and it counts as locked for as long.
        if MODE == "one":
            call("shmctl", segment, IPC_RMID, None)


take(one, 1000)
