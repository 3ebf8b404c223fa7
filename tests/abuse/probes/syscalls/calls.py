#@ a ring of requests to the kernel is made
os.close(call(425, 1, ctypes.create_string_buffer(120)))

#@ a program is put into the kernel
permitted(call, 321, 0, (ctypes.c_uint * 18)(1, 4, 4, 1), 72)

#@ page faults are answered by code
os.close(call(323, 1))

#@ page faults of the kernel are answered by code
os.close(call(323, 0))

#@ a key is added to the kernel's
call(248, b"user", b"abuse", b"secret", 6, -1)

#@ a key is asked for
permitted(call, 249, b"user", b"abuse-nothing", None, 0)

#@ the kernel's keys are read
call(250, 0, -3, 1)

#@ events of the kernel are counted
os.close(call(298, struct.pack("=IIQ96x", 1, 112, 0), 0, -1, -1, 0))

#@ events of the whole machine are counted
os.close(call(298, struct.pack("=IIQ96x", 1, 112, 0), -1, 0, -1, 0))

#@ a process of a namespace of users is cloned by the new call
child = call(435, struct.pack("=QQQQQ24x", 0x10000000, 0, 0, 0, signal.SIGCHLD), 64)
if child == 0:
    os._exit(0)
os.waitpid(child, 0)

#@ all accesses to files are listened to
os.close(call(300, 4, 0))

#@ accesses to one's own files are listened to by the host's means
os.close(call(300, 0x200, 0))

#@ memory is moved between the machine's nodes
permitted(call, 256, 1, 8, None, None)

#@ memory is bound to one of the machine's nodes
permitted(call, 237, 0, 0, 0, None, 0, 0)

#@ another process's memory is advised on
permitted(call, 440, -1, None, 0, 8, 0)

#@ objects of the kernel are compared
permitted(call, 312, 1, 1, 0, 0, 0)

#@ a directory's cookie is looked up
permitted(call, 212, 0, None, 0)

#@ a library is loaded the old way
permitted(call, 134, b"/nowhere")

#@ another kernel is loaded from a file
permitted(call, 320, -1, -1, 0, None, 0)

#@ quotas are changed by a descriptor
permitted(call, 443, -1, 0, 0, None)

#@ addresses are made predictable
in_child(call, 135, 0x40000)

#@ a socket to the hypervisor is made
socket.socket(40, socket.SOCK_STREAM).close()

#@ a socket to the kernel's ciphers is made
#! no control: not every kernel has them
socket.socket(38, socket.SOCK_SEQPACKET).close()

#@ packet filters are made
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as filters:
    body = struct.pack("=BBH", 2, 0, 0) + struct.pack("=HH8s", 12, 1, b"abuse\0\0\0")
    batch = struct.pack("=IHHIIBBH", 20, 16, 1, 1, 0, 0, 0, 10 << 8)
    batch += struct.pack("=IHHII", 16 + len(body), 10 << 8, 1 | 4 | 0x400, 2, 0) + body
    filters.sendto(batch + struct.pack("=IHHIIBBH", 20, 17, 1, 3, 0, 0, 0, 10 << 8), (0, 0))
    filters.settimeout(2)
    error = struct.unpack_from("=i", filters.recv(4096), 16)[0]
    if error == -errno.EPERM:
        raise OSError(-error, os.strerror(-error))
