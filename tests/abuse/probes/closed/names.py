#@ a name is asked for
question = b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\x07example\x03com\x00\x00\x01\x00\x01"
server = next(line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver "))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
    resolver.settimeout(8)
    resolver.connect((server, 53))
    # A resolver may lose a query, or may have to wait long for other servers.
    for last in False, False, True:
        resolver.send(question)
        try:
            assert resolver.recv(4096)
            break
        except TimeoutError:
            if last:
                raise

#@ a public address is routed to
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anyone:
    anyone.connect(("8.8.8.8", 53))

#@ an interface to others is there
assert [name for _, name in socket.if_nameindex() if name != "lo"]
