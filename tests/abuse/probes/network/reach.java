//@ a host of the LAN in 10/8 is connected to
greeted(System.getenv("LAN_10"));

//@ a host of the LAN in 172.16/12 is connected to
greeted(System.getenv("LAN_172"));

//@ a host of the LAN in 192.168/16 is connected to
greeted(System.getenv("LAN_192"));

//@ a host of the provider in 100.64/10 is connected to
greeted(System.getenv("LAN_100"));

//@ the cloud's metadata is connected to
greeted(System.getenv("METADATA"));

//@ this machine by the bridge is connected to
greeted(System.getenv("GATEWAY"));

//@ this machine by the engine's own bridge is connected to
greeted(System.getenv("DOCKER0"));

//@ this machine by its address is connected to
greeted(System.getenv("HOST"));

//@ this machine by its loopback interface is connected to
greeted(System.getenv("LOOPBACK"));

//@ another container of the bridge is connected to
greeted(System.getenv("NEIGHBOUR"));

//@ the server is asked over HTTP
var client = java.net.http.HttpClient.newBuilder().connectTimeout(java.time.Duration.ofSeconds(3)).build();
var request = java.net.http.HttpRequest.newBuilder(URI.create("http://" + System.getenv("SERVER") + "/healthz")).build();
client.send(request, java.net.http.HttpResponse.BodyHandlers.ofString());

//@ this machine answers datagrams
try (var voice = new DatagramSocket()) {
  voice.setSoTimeout(1500);
  var to = new InetSocketAddress(System.getenv("HOST").split(":")[0], Integer.parseInt(System.getenv("ECHO_PORT")));
  voice.send(new DatagramPacket("hello".getBytes(), 5, to));
  voice.receive(new DatagramPacket(new byte[5], 5));
}

//@ the interfaces of this machine are listed
if (NetworkInterface.networkInterfaces().count() < 3) throw new IOException("its own only");
