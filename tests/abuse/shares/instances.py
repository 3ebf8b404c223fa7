take(lambda n: call("inotify_init1", 0), 1000)
