# An instance can watch a directory once, and all instances count for the same user: with many instances, few
# directories suffice.
DIRECTORIES = 2000
directory = tempfile.mkdtemp(dir="/dev/shm") if MODE == "all" else None
instances = []


def one(n):
    if n % DIRECTORIES == 0:
        instances.append(call("inotify_init1", 0))
    path = "/usr"
    if MODE == "all":
        path = f"{directory}/{n % DIRECTORIES}"
        if n < DIRECTORIES:
            os.mkdir(path)
    return call("inotify_add_watch", instances[-1], path.encode(), 2)


# If the host allows more watches than these, the instances are used up first.
take(one, 126 * DIRECTORIES)
