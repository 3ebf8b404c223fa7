#@ the accounts' passwords are read
readable("/etc/shadow")

#@ the groups are changed
writable("/etc/group")

#@ the names of hosts are changed
writable("/etc/hosts")

#@ the program that takes core dumps is replaced
writable("/proc/sys/kernel/core_pattern")

#@ the host is made to route
writable("/proc/sys/net/ipv4/ip_forward")

#@ a file is put among the configuration
close(file("/etc/abuse-r", "wb")); unlink("/etc/abuse-r")

#@ a package is put among R's
stopifnot(dir.create(file.path(.Library, "abuse"))); unlink(file.path(.Library, "abuse"), recursive = TRUE)

#@ a file of the system is linked to
stopifnot(file.link("/etc/shadow", "/tmp/hard-r")); unlink("/tmp/hard-r")

#@ a file of the system is replaced by a link
stopifnot(file.symlink("/tmp/elsewhere", "/etc/abuse-r-link")); unlink("/etc/abuse-r-link")

#@ a file of the system is opened to all
stopifnot(Sys.chmod("/etc/group", "644"))

#@ a file of the system is made older
stopifnot(Sys.setFileTime("/etc/group", Sys.time()))

#@ priority over others is taken
before <- tools::psnice(); tools::psnice(value = -5L); taken <- tools::psnice(); tools::psnice(value = before); stopifnot(taken == -5)

#@ root's home is read
#! only strict: in kept sandboxes, root's home is open to the user
stopifnot(length(list.files("/root", all.files = TRUE)) > 0)

#@ su makes root
command("su -c true < /dev/null")

#@ a file system is mounted
command("mount -t tmpfs none /mnt && umount /mnt")

#@ a device file is made
command("mknod /tmp/device-r c 1 3 && rm /tmp/device-r")

#@ a namespace of mounts is made
command("unshare --mount true")

#@ the host's shared memory is read
stopifnot(readLines(variable("SHARED"), warn = FALSE) == "secret")

#@ a pipe of the agent's is left open
#! fresh interpreter: the one that is shared has what attempts left open
stopifnot(any(startsWith(foreign(), "pipe:")))

#@ a socket of the agent's is left open
#! fresh interpreter: the one that is shared has what attempts left open
stopifnot(any(startsWith(foreign(), "socket:")))

#@ a file of the agent's is left open
#! fresh interpreter: the one that is shared has what attempts left open
stopifnot(any(startsWith(foreign(), "/")))
