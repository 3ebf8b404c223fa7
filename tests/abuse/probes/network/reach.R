#@ a host of the LAN in 10/8 is connected to
greeted(variable("LAN_10"))

#@ a host of the LAN in 172.16/12 is connected to
greeted(variable("LAN_172"))

#@ a host of the LAN in 192.168/16 is connected to
greeted(variable("LAN_192"))

#@ a host of the provider in 100.64/10 is connected to
greeted(variable("LAN_100"))

#@ the cloud's metadata is connected to
greeted(variable("METADATA"))

#@ this machine by the bridge is connected to
greeted(variable("GATEWAY"))

#@ this machine by the engine's own bridge is connected to
greeted(variable("DOCKER0"))

#@ this machine by its address is connected to
greeted(variable("HOST"))

#@ this machine by its loopback interface is connected to
greeted(variable("LOOPBACK"))

#@ another container of the bridge is connected to
greeted(variable("NEIGHBOUR"))

#@ the server is asked over HTTP
options(timeout = 3)
stream <- url(paste0("http://", variable("SERVER"), "/healthz"), "rb")
close(stream)

#@ an interface of this machine is listened on
stopifnot(length(list.files("/sys/class/net")) > 2)
