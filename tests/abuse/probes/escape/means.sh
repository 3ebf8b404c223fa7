#@ the accounts' passwords are read
#! not root: files of the container are its own
readable /etc/shadow

#@ the groups are changed
#! not root: files of the container are its own
writable /etc/group

#@ the names of hosts are changed
#! not root: files of the container are its own
writable /etc/hosts

#@ the program that takes core dumps is replaced
writable /proc/sys/kernel/core_pattern

#@ the host is made to route
writable /proc/sys/net/ipv4/ip_forward

#@ a file system is mounted
mount -t tmpfs none /mnt
umount /mnt

#@ a namespace of users is made
unshare --user true

#@ a namespace of mounts is made
unshare --mount true

#@ a namespace of processes is made
unshare --pid --fork true

#@ the namespaces of the first process are entered
nsenter --target 1 --mount --uts true

#@ a device file is made
mknod /tmp/device-sh c 1 3
rm /tmp/device-sh

#@ the root is changed
chroot / true

#@ the root is exchanged
mkdir -p /tmp/new-root
unshare --mount sh -c "mount -t tmpfs none /tmp/new-root && mkdir /tmp/new-root/old && pivot_root /tmp/new-root /tmp/new-root/old"

#@ the log of the kernel is read
dmesg > /dev/null

#@ the name of the host is set
hostname "$(hostname)"

#@ the table of partitions is read
mknod /tmp/disk-sh b 7 0
head -c 16 /tmp/disk-sh > /dev/null
rm /tmp/disk-sh

#@ priority over others is taken
[ "$(nice -n -5 nice)" = -5 ]

#@ a control group is made
mkdir -p /tmp/groups
mount -t cgroup -o pids none /tmp/groups
umount /tmp/groups

#@ a namespace of time is made
unshare --time true

#@ a pipe of the agent's is left open
#! fresh interpreter: the one that is shared has what attempts left open
#! not root: there the agent itself is what starts the shell
foreign | grep ^pipe:

#@ a socket of the agent's is left open
#! fresh interpreter: the one that is shared has what attempts left open
#! not root: there the agent itself is what starts the shell
foreign | grep ^socket:

#@ a file of the agent's is left open
#! fresh interpreter: the one that is shared has what attempts left open
#! not root: there the agent itself is what starts the shell
foreign | grep ^/
