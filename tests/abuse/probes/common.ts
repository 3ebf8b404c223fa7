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
