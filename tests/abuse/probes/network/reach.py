#@ a host of the LAN in 10/8 is connected to
greeted(os.environ["LAN_10"])

#@ a host of the LAN in 172.16/12 is connected to
greeted(os.environ["LAN_172"])

#@ a host of the LAN in 192.168/16 is connected to
greeted(os.environ["LAN_192"])

#@ a host of the provider in 100.64/10 is connected to
greeted(os.environ["LAN_100"])

#@ the cloud's metadata is connected to
greeted(os.environ["METADATA"])

#@ this machine by the bridge is connected to
greeted(os.environ["GATEWAY"])

#@ this machine by the engine's own bridge is connected to
greeted(os.environ["DOCKER0"])

#@ this machine by its address is connected to
greeted(os.environ["HOST"])

#@ this machine by its loopback interface is connected to
greeted(os.environ["LOOPBACK"])

#@ the server itself is connected to
host, port = os.environ["SERVER"].split(":")
socket.create_connection((host, int(port)), timeout=3).close()

#@ another container of the bridge is connected to
greeted(os.environ["NEIGHBOUR"])

#@ a host of the LAN is connected to past the routes
#! no control: from this machine's own network there is no one interface to all of them
host, port = os.environ["LAN_10"].split(":")
with socket.socket() as stream:
    stream.settimeout(3)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    stream.connect((host, int(port)))

#@ this machine is connected to by the address of nobody
greeted("0.0.0.0:" + os.environ["LOOPBACK"].split(":")[1])

#@ a host of the LAN is connected to by its address within the sixth version's
#! control by IPv6: there may be no such sockets
host, port = os.environ["LAN_10"].split(":")
with socket.socket(socket.AF_INET6) as stream:
    stream.settimeout(3)
    stream.connect(("::ffff:" + host, int(port)))

#@ this machine answers datagrams
echoed(os.environ["HOST"].split(":")[0])

#@ this machine answers datagrams to the bridge
echoed(os.environ["BRIDGE"])

#@ this machine answers datagrams to a group
echoed("239.213.0.1")

#@ this machine answers datagrams to everybody
echoed("255.255.255.255", [(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)])

#@ this machine answers datagrams by its name of the loopback interface
echoed("127.0.0.1")

#@ this machine answers to the sixth version's loopback address
#! control by IPv6: it may have none
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as voice:
    voice.connect(("::1", 9))
assert not os.path.exists("/proc/sys/net/ipv6/conf/all/disable_ipv6") or open("/proc/sys/net/ipv6/conf/all/disable_ipv6").read() == "0\n"

#@ neighbours are asked for by the sixth version
#! control by IPv6: there may be none to ask
interface = next(number for number, name in socket.if_nameindex() if name != "lo" and open(f"/sys/class/net/{name}/operstate").read() == "up\n")
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as voice:
    voice.sendto(b"hello", ("ff02::1", 9, 0, interface))

#@ this machine answers a ping
ping(os.environ["HOST"].split(":")[0])

#@ this machine answers a ping to the bridge
ping(os.environ["BRIDGE"])

#@ a host of the LAN in 10/8 answers a ping
ping(os.environ["LAN_10"].split(":")[0])

#@ a host of the LAN in 172.16/12 answers a ping
ping(os.environ["LAN_172"].split(":")[0])

#@ a host of the LAN in 192.168/16 answers a ping
ping(os.environ["LAN_192"].split(":")[0])

#@ a host of the provider in 100.64/10 answers a ping
ping(os.environ["LAN_100"].split(":")[0])

#@ another container of the bridge answers a ping
ping(os.environ["NEIGHBOUR"].split(":")[0])

#@ a packet with an address that is not one's own is sent
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as forger:
    host = socket.inet_aton(os.environ["HOST"].split(":")[0])
    packet = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, socket.IPPROTO_UDP, 0, bytes([127, 9, 9, 9]), host)
    forger.sendto(packet + struct.pack("!HHHH", 9, 9, 8, 0), (socket.inet_ntoa(host), 0))

#@ an abstract socket of this machine is connected to
with socket.socket(socket.AF_UNIX) as stream:
    stream.connect("\0" + os.environ["ABSTRACT"])

#@ the interfaces of this machine are listed
assert len(socket.if_nameindex()) > 2

#@ connections of this machine are listed
port = "%04X" % int(os.environ["SERVER"].split(":")[1])
assert any(f":{port} " in line for line in open("/proc/net/tcp"))

#@ the interfaces are the host's own
assert os.readlink("/proc/self/ns/net") == os.environ["NS_NET"]
