// Definitions for attempts in JavaScript and in TypeScript.
function writable(path) { fs.closeSync(fs.openSync(path, fs.constants.O_WRONLY)) }
function readable(path) {
  const file = fs.openSync(path, "r")
  try { fs.readSync(file, Buffer.alloc(16), 0, 16, null) } finally { fs.closeSync(file) }
}
function greeted(target) {
  const [host, port] = target.split(":")
  return new Promise((resolve, reject) => {
    const stream = net.connect({ host, port: Number(port) })
    stream.setTimeout(3000, () => stream.destroy(new Error("nobody answers")))
    stream.once("data", data => { stream.destroy(); String(data) === "hello" ? resolve() : reject(new Error("not greeted")) })
    stream.once("error", reject)
    stream.once("close", () => reject(new Error("closed")))
  })
}
// The targets of open descriptors, without the three standard streams, Node's own descriptors and the two FIFOs to the
// agent. Node's own pipes are those of which it has both ends.
function foreign() {
  const open = fs.readdirSync("/proc/self/fd").map(Number).flatMap(number => {
    try {
      const flags = parseInt(fs.readFileSync("/proc/self/fdinfo/" + number, "utf8").split("flags:")[1], 8)
      return [{ number, link: fs.readlinkSync("/proc/self/fd/" + number), end: flags & 3 }]
    } catch { return [] }
  })
  const own = /^anon_inode:\[event(poll|fd)\]$|^\/dev\/null$|^\/run\/oncebox\/\d+\/(in|out)$/
  const isPair = (link) => {
    const ends = open.filter(one => one.link === link)
    return link.startsWith("pipe:") && ends.every(one => one.number > 2) && new Set(ends.map(one => one.end)).size === 2
  }
  return open.filter(one => one.number > 2).map(one => one.link).filter(link => !own.test(link) && !isPair(link))
}
