#@ a host of the LAN in 10/8 is connected to
greeted "$LAN_10"

#@ a host of the LAN in 172.16/12 is connected to
greeted "$LAN_172"

#@ a host of the LAN in 192.168/16 is connected to
greeted "$LAN_192"

#@ a host of the provider in 100.64/10 is connected to
greeted "$LAN_100"

#@ the cloud's metadata is connected to
greeted "$METADATA"

#@ this machine by the bridge is connected to
greeted "$GATEWAY"

#@ this machine by the engine's own bridge is connected to
greeted "$DOCKER0"

#@ this machine by its address is connected to
greeted "$HOST"

#@ this machine by its loopback interface is connected to
greeted "$LOOPBACK"

#@ another container of the bridge is connected to
greeted "$NEIGHBOUR"

#@ the server is asked over HTTP
timeout 3 bash -c "exec 3<> /dev/tcp/${SERVER%:*}/${SERVER#*:}; printf 'GET /healthz HTTP/1.0\r\n\r\n' >&3; grep -q 200 <&3"

#@ this machine answers datagrams
timeout 2 bash -c "exec 3<> /dev/udp/${HOST%:*}/$ECHO_PORT; echo -n hello >&3; head -c 5 <&3 | grep -q hello"
