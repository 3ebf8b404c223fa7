//@ the accounts' passwords are read
readable("/etc/shadow");

//@ the groups are changed
writable("/etc/group");

//@ the names of hosts are changed
writable("/etc/hosts");

//@ the program that takes core dumps is replaced
writable("/proc/sys/kernel/core_pattern");

//@ the host is made to route
writable("/proc/sys/net/ipv4/ip_forward");

//@ a file is put among the configuration
Files.delete(Files.createFile(Path.of("/etc/abuse-java")));

//@ a module is put among Java's
Files.delete(Files.createFile(Path.of("/opt/java/lib/abuse")));

//@ a file of the system is linked to
Files.delete(Files.createLink(Path.of("/tmp/hard-java"), Path.of("/etc/shadow")));

//@ a file of the system is given away
Files.setAttribute(Path.of("/etc/group"), "unix:uid", 0);

//@ a file of the system is opened to all
Files.setPosixFilePermissions(Path.of("/etc/group"), java.nio.file.attribute.PosixFilePermissions.fromString("rw-r--r--"));

//@ root's home is read
//! only strict: in kept sandboxes, root's home is open to the user
try (var list = Files.list(Path.of("/root"))) { list.count(); }

//@ su makes root
command("su", "-c", "true");

//@ a file system is mounted
command("mount", "-t", "tmpfs", "none", "/mnt"); command("umount", "/mnt");

//@ a device file is made
command("mknod", "/tmp/device-java", "c", "1", "3"); command("rm", "/tmp/device-java");

//@ the host's shared memory is read
if (!Files.readString(Path.of(System.getenv("SHARED"))).equals("secret")) throw new IOException();

//@ the engine is spoken to
try (var engine = SocketChannel.open(UnixDomainSocketAddress.of("/var/run/docker.sock"))) { engine.isConnected(); }

//@ a namespace of the network is made
command("unshare", "--net", "true");

//@ the user becomes root by a native call
var linker = Linker.nativeLinker();
var find = (java.util.function.Function<String, MemorySegment>) name -> linker.defaultLookup().find(name).get();
var call = linker.downcallHandle(find.apply("setuid"), FunctionDescriptor.of(ValueLayout.JAVA_INT, ValueLayout.JAVA_INT));
if ((int) call.invokeExact(0) != 0) throw new IOException("refused");

//@ the root is changed by a native call
var linker = Linker.nativeLinker();
var find = (java.util.function.Function<String, MemorySegment>) name -> linker.defaultLookup().find(name).get();
var call = linker.downcallHandle(find.apply("chroot"), FunctionDescriptor.of(ValueLayout.JAVA_INT, ValueLayout.ADDRESS));
try (var arena = Arena.ofConfined()) {
  if ((int) call.invokeExact(arena.allocateFrom("/")) != 0) throw new IOException("refused");
}

//@ a file system is mounted by a native call
var linker = Linker.nativeLinker();
var find = (java.util.function.Function<String, MemorySegment>) name -> linker.defaultLookup().find(name).get();
var kinds = new MemoryLayout[] {ValueLayout.ADDRESS, ValueLayout.ADDRESS, ValueLayout.ADDRESS, ValueLayout.JAVA_LONG, ValueLayout.ADDRESS};
var call = linker.downcallHandle(find.apply("mount"), FunctionDescriptor.of(ValueLayout.JAVA_INT, kinds));
try (var arena = Arena.ofConfined()) {
  var kind = arena.allocateFrom("tmpfs");
  if ((int) call.invokeExact(kind, arena.allocateFrom("/mnt"), kind, 0L, MemorySegment.NULL) != 0) throw new IOException("refused");
}
command("umount", "/mnt");

//@ a pipe of the agent's is left open
//! fresh interpreter: the one that is shared has what attempts left open
if (foreign().stream().noneMatch(link -> link.startsWith("pipe:"))) throw new IOException("none");

//@ a socket of the agent's is left open
//! fresh interpreter: the one that is shared has what attempts left open
if (foreign().stream().noneMatch(link -> link.startsWith("socket:"))) throw new IOException("none");

//@ a file of the agent's is left open
//! fresh interpreter: the one that is shared has what attempts left open
if (foreign().stream().noneMatch(link -> link.startsWith("/"))) throw new IOException("none");
