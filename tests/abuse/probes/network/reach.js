//@ a host of the LAN in 10/8 is connected to
await greeted(process.env.LAN_10)

//@ a host of the LAN in 172.16/12 is connected to
await greeted(process.env.LAN_172)

//@ a host of the LAN in 192.168/16 is connected to
await greeted(process.env.LAN_192)

//@ a host of the provider in 100.64/10 is connected to
await greeted(process.env.LAN_100)

//@ the cloud's metadata is connected to
await greeted(process.env.METADATA)

//@ this machine by the bridge is connected to
await greeted(process.env.GATEWAY)

//@ this machine by the engine's own bridge is connected to
await greeted(process.env.DOCKER0)

//@ this machine by its address is connected to
await greeted(process.env.HOST)

//@ this machine by its loopback interface is connected to
await greeted(process.env.LOOPBACK)

//@ another container of the bridge is connected to
await greeted(process.env.NEIGHBOUR)

//@ this machine answers datagrams
await new Promise((resolve, reject) => {
  const voice = dgram.createSocket("udp4")
  const late = setTimeout(() => { voice.close(); reject(new Error("nobody answers")) }, 1500)
  voice.once("message", () => { clearTimeout(late); voice.close(); resolve() })
  voice.once("error", error => { clearTimeout(late); voice.close(); reject(error) })
  voice.send("hello", Number(process.env.ECHO_PORT), process.env.HOST.split(":")[0])
})

//@ the server is asked over HTTP
const answer = await fetch(`http://${process.env.SERVER}/healthz`, { signal: AbortSignal.timeout(3000) })
if (!answer.ok) throw new Error(answer.statusText)
