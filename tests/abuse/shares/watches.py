# A directory can be watched once by an instance, and all instances count for the same user: many instances need few directories.
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


# Where the host allows more than these, the instances are what is used up.
take(one, 126 * DIRECTORIES)
