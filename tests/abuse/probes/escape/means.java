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

//@ a descriptor is left open that leads out
//! no control: nothing is left open in the weak one either, so one is opened here, and must be seen
// Java's own means and files, the two to the agent, and what lists them.
var known = "anon_inode:.*|pipe:.*|socket:.*|/dev/u?random|/opt/(java|oncebox/java)/.*|/run/oncebox/\\d+/(in|out)|/proc/\\d+/fd";
var left = new ArrayList<String>();
try (var own = new FileInputStream("/etc/passwd"); var all = Files.list(Path.of("/proc/self/fd"))) {
  for (var one : all.toList()) {
    if (Integer.parseInt(one.getFileName().toString()) < 3 || !Files.isSymbolicLink(one)) continue;
    var link = Files.readSymbolicLink(one).toString();
    if (!link.matches(known)) left.add(link);
  }
}
if (left.equals(List.of("/etc/passwd"))) throw new IOException("none");
