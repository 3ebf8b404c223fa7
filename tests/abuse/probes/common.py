# Definitions for attempts in Python.
import ctypes, errno, fcntl, glob, mmap, os, select, shutil, signal, socket, struct, subprocess, sys, time

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def call(number, *arguments):
    """Makes a system call by its number on x86-64, or calls a C library function by its name. Raises on every error."""
    ctypes.set_errno(0)
    function = getattr(libc, number) if isinstance(number, str) else None
    arguments = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = function(*arguments) if function else libc.syscall(ctypes.c_long(number), *arguments)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def permitted(attempt, *arguments, refusals=(errno.EPERM, errno.EACCES)):
    """Raises if the attempt is refused for lack of rights.

    Other errors are ignored: the request makes no sense, so it does no harm.
    """
    try:
        return attempt(*arguments)
    except OSError as err:
        if err.errno in refusals:
            raise
        return None


def writable(path):
    """Opens a file for writing and writes nothing."""
    os.close(os.open(path, os.O_WRONLY))


def readable(path):
    with open(path, "rb", buffering=0) as file:
        return file.read(16)


def mount(source, target, kind, flags=0, data=None):
    """Mounts in this mount namespace, and unmounts again."""
    os.makedirs(target, exist_ok=True)
    call("mount", source, target.encode(), kind, flags, data)
    call("umount2", target.encode(), 2)


def greeted(target, **options):
    """Connects and waits for the greeting."""
    host, port = target.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=3, **options) as stream:
        assert stream.recv(10) == b"hello"


def echoed(host, options=(), family=socket.AF_INET):
    """Sends a datagram and waits for it to come back."""
    with socket.socket(family, socket.SOCK_DGRAM) as voice:
        voice.settimeout(5)
        for option in options:
            voice.setsockopt(*option)
        voice.sendto(b"hello", (host, int(os.environ["ECHO_PORT"])))
        assert voice.recv(10) == b"hello"


def ping(host):
    """Sends an echo request, with the first kind of socket that is allowed, and waits for the reply."""
    for kind in socket.SOCK_DGRAM, socket.SOCK_RAW:
        try:
            with socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP) as asking:
                asking.settimeout(3)
                asking.sendto(bytes([8, 0, 0xf7, 0xff, 0, 0, 0, 0]), (host, 0))
                while True:
                    answer, (sender, _) = asking.recvfrom(100)
                    if sender == host and answer[-8] == 0:
                        return
        except PermissionError as err:
            refusal = err
    raise refusal


def in_child(attempt, *arguments):
    """Makes the attempt in a child process."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            permitted(attempt, *arguments)
            code = 0
        finally:
            os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise PermissionError(errno.EPERM, "refused")


def device(kind, major, minor):
    """Creates a device file and opens it for reading."""
    path = f"/tmp/device-{os.getpid()}-{major}-{minor}"
    os.mknod(path, kind | 0o600, os.makedev(major, minor))
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    finally:
        os.unlink(path)


def own_file(name):
    """Creates an empty file in /tmp that no other attempt uses: the user and root of a sandbox share the directory."""
    path = f"/tmp/{name}-{os.getpid()}"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return path


def create(path):
    """Creates a file that does not exist, and removes it again."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    os.unlink(path)


def status(name):
    return next(line.split(":")[1].strip() for line in open("/proc/self/status") if line.startswith(name + ":"))


def netlink(kind, flags, body):
    """Requests a network change from the kernel, and waits for its answer."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
        link.sendto(struct.pack("=IHHII", 16 + len(body), kind, 1 | 4 | flags, 1, 0) + body, (0, 0))
        error = struct.unpack_from("=i", link.recv(4096), 16)[0]
        if error:
            raise OSError(-error, os.strerror(-error))


def foreign():
    """The targets of the descriptors with which the interpreter was started, without the three standard streams."""
    links = []
    for number in map(int, os.listdir("/proc/self/fd")):
        # Descriptors that the interpreter opens are close-on-exec; those that it was started with are not.
        try:
            if number > 2 and not int(open(f"/proc/self/fdinfo/{number}").read().split()[3], 8) & os.O_CLOEXEC:
                links.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue
    return links
