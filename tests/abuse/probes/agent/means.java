//@ the agent is killed by a native call
var linker = Linker.nativeLinker();
var find = (java.util.function.Function<String, MemorySegment>) name -> linker.defaultLookup().find(name).get();
var call = linker.downcallHandle(find.apply("kill"), FunctionDescriptor.of(ValueLayout.JAVA_INT, ValueLayout.JAVA_INT, ValueLayout.JAVA_INT));
if ((int) call.invokeExact(1, 9) != 0) throw new IOException("refused");

//@ the agent is ended
command("kill", "-TERM", "1");

//@ the agent's variables are read
Files.readAllBytes(Path.of("/proc/1/environ"));

//@ the agent's files are listed
try (var list = Files.list(Path.of("/proc/1/fd"))) { list.count(); }

//@ the agent's memory is opened
new FileInputStream("/proc/1/mem").close();

//@ the agent's output is opened
writable("/proc/1/fd/1");

//@ the agent's program is followed
Files.readSymbolicLink(Path.of("/proc/1/exe"));

//@ the agent's program is told by its handle
if (ProcessHandle.of(1).get().info().command().isEmpty()) throw new IOException("nothing is told");

//@ the runner is changed
writable("/opt/oncebox/java/language.json");
