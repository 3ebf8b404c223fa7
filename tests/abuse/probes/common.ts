// What attempts in TypeScript share.
import * as fs from "node:fs"
import * as net from "node:net"
import * as os from "node:os"
import { execFileSync } from "node:child_process"
import { Worker } from "node:worker_threads"
function writable(path: string): void { fs.closeSync(fs.openSync(path, fs.constants.O_WRONLY)) }
function readable(path: string): void {
  const file = fs.openSync(path, "r")
  try { fs.readSync(file, Buffer.alloc(16), 0, 16, null) } finally { fs.closeSync(file) }
}
function greeted(target: string): Promise<void> {
  const [host, port] = target.split(":")
  return new Promise<void>((resolve, reject) => {
    const stream = net.connect({ host, port: Number(port) })
    stream.setTimeout(3000, () => stream.destroy(new Error("nobody answers")))
    stream.once("data", data => { stream.destroy(); String(data) === "hello" ? resolve() : reject(new Error("not greeted")) })
    stream.once("error", reject)
    stream.once("close", () => reject(new Error("closed")))
  })
}
// Where what is open beside the three streams leads, but for Node's own means, of whose pipes it has both ends, and the two to
// the agent.
function foreign(): string[] {
  const open = fs.readdirSync("/proc/self/fd").map(Number).flatMap(number => {
    try {
      const flags = parseInt(fs.readFileSync("/proc/self/fdinfo/" + number, "utf8").split("flags:")[1], 8)
      return [{ number, link: fs.readlinkSync("/proc/self/fd/" + number), end: flags & 3 }]
    } catch { return [] }
  })
  const own = /^anon_inode:\[event(poll|fd)\]$|^\/dev\/null$|^\/run\/oncebox\/\d+\/(in|out)$/
  const isPair = (link: string) => {
    const ends = open.filter(one => one.link === link)
    return link.startsWith("pipe:") && ends.every(one => one.number > 2) && new Set(ends.map(one => one.end)).size === 2
  }
  return open.filter(one => one.number > 2).map(one => one.link).filter(link => !own.test(link) && !isPair(link))
}
