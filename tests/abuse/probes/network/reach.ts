//@ a host of the LAN in 10/8 is connected to
await greeted(process.env.LAN_10 as string)

//@ a host of the LAN in 192.168/16 is connected to
await greeted(process.env.LAN_192 as string)

//@ the cloud's metadata is connected to
await greeted(process.env.METADATA as string)

//@ this machine by the bridge is connected to
await greeted(process.env.GATEWAY as string)

//@ this machine by its address is connected to
await greeted(process.env.HOST as string)

//@ this machine by its loopback interface is connected to
await greeted(process.env.LOOPBACK as string)

//@ another container of the bridge is connected to
await greeted(process.env.NEIGHBOUR as string)

//@ the server is asked by a worker
await new Promise<void>((resolve, reject) => {
  const code = `fetch("http://${process.env.SERVER}/healthz", { signal: AbortSignal.timeout(3000) }).then(a => { if (!a.ok) throw a })`
  const worker = new Worker(code, { eval: true })
  worker.once("error", reject)
  worker.once("exit", (status: number) => status === 0 ? resolve() : reject(new Error(String(status))))
})

//@ an abstract socket of this machine is connected to
await new Promise<void>((resolve, reject) => {
  const stream = net.connect("\0" + process.env.ABSTRACT)
  stream.once("connect", () => { stream.destroy(); resolve() })
  stream.once("error", reject)
})
