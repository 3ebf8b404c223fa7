#@ a character device is made
device(0o20000, 1, 3)

#@ a disk of the host is read
#! no control: the one that the host runs from may be closed to everybody
major, minor = next(line.split()[:2] for line in open("/proc/partitions").read().splitlines()[2:])
permitted(device, 0o60000, int(major), int(minor))

#@ a disk of the host's files is read
permitted(device, 0o60000, 7, 0)

#@ the machine's memory is opened
permitted(device, 0o20000, 1, 1)

#@ the ports of the hardware are opened as a file
permitted(device, 0o20000, 1, 4)

#@ the log of the kernel is opened as a device
permitted(device, 0o20000, 1, 11)

#@ virtual machines can be made
permitted(device, 0o20000, 10, 232)

#@ file systems of one's own are offered to the kernel
permitted(device, 0o20000, 10, 229)

#@ a tunnel is made
permitted(device, 0o20000, 10, 200)

#@ loop devices are made
permitted(device, 0o20000, 10, 237)

#@ the host's console is opened
permitted(device, 0o20000, 5, 1)

#@ the host's screen is read
permitted(device, 0o20000, 7, 1)

#@ the host's source of randomness is opened
permitted(device, 0o20000, 10, 183)

#@ snapshots of the host's memory are opened
permitted(device, 0o20000, 10, 231)

#@ the processor's registers are opened
permitted(device, 0o20000, 202, 0)

#@ a packet socket is opened
socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3).close()

#@ a packet socket without headers is opened
socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 3).close()

#@ a raw socket is opened
socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).close()

#@ a raw socket for control messages is opened
socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()

#@ a raw socket of the sixth version is opened
socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6).close()

#@ an address is added
netlink(20, 0x400, struct.pack("=BBBBI", 2, 32, 0, 0, 1) + struct.pack("=HH4B", 8, 2, 127, 9, 9, 9))
netlink(21, 0, struct.pack("=BBBBI", 2, 32, 0, 0, 1) + struct.pack("=HH4B", 8, 2, 127, 9, 9, 9))

#@ a route is added
route = struct.pack("=BBBBBBBBI", 2, 32, 0, 0, 254, 4, 254, 2, 0) + struct.pack("=HH4B", 8, 1, 127, 9, 9, 8)
netlink(24, 0x400, route + struct.pack("=HHI", 8, 4, 1))
netlink(25, 0, route + struct.pack("=HHI", 8, 4, 1))

#@ an interface is taken down
netlink(16, 0, struct.pack("=BBHiII", 0, 0, 0, 1, 0, 0))
netlink(19, 0, struct.pack("=BBHiII", 0, 0, 0, 1, 1, 1))

#@ a rule of the routes is added
rule = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 0, 0, 1, 0) + struct.pack("=HHI", 8, 6, 32000)
netlink(32, 0x400, rule)
netlink(33, 0, rule)

#@ packets are marked
with socket.socket() as marked:
    marked.setsockopt(socket.SOL_SOCKET, 36, 1)

#@ addresses of others are taken for one's own
with socket.socket() as transparent:
    transparent.setsockopt(socket.SOL_IP, 19, 1)

#@ packet filters are read
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as tables:
    permitted(tables.getsockopt, socket.SOL_IP, 64, 84)
