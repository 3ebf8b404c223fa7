// Definitions for attempts in Java.
import java.nio.channels.*;
import java.nio.file.*;
import java.net.*;
import java.lang.foreign.*;
void writable(String path) throws Exception { FileChannel.open(Path.of(path), StandardOpenOption.WRITE).close(); }
void readable(String path) throws Exception { try (var stream = new FileInputStream(path)) { stream.read(new byte[16]); } }
void command(String... words) throws Exception {
  var process = new ProcessBuilder(words).redirectInput(new File("/dev/null")).redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.DISCARD).start();
  if (process.waitFor() != 0) throw new IOException("status " + process.exitValue());
}
void greeted(String target) throws Exception {
  var parts = target.split(":");
  try (var socket = new Socket()) {
    socket.connect(new InetSocketAddress(parts[0], Integer.parseInt(parts[1])), 3000);
    socket.setSoTimeout(3000);
    if (!new String(socket.getInputStream().readNBytes(5)).equals("hello")) throw new IOException("not greeted");
  }
}
// The targets of open descriptors, without the three standard streams, Java's own files, the two FIFOs to the agent,
// and the listing.
List<String> foreign() throws Exception {
  var own = "/dev/u?random|/opt/(java|oncebox/java)/.*|/run/oncebox/\\d+/(in|out)|/proc/\\d+/fd";
  var links = new ArrayList<String>();
  try (var all = Files.list(Path.of("/proc/self/fd"))) {
    for (var one : all.toList()) {
      if (Integer.parseInt(one.getFileName().toString()) < 3 || !Files.isSymbolicLink(one)) continue;
      var link = Files.readSymbolicLink(one).toString();
      if (!link.matches(own)) links.add(link);
    }
  }
  return links;
}
