// What attempts in JavaScript share.
const fs = require("node:fs"), net = require("node:net"), dgram = require("node:dgram"), os = require("node:os")
const { execFileSync, spawnSync } = require("node:child_process")
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
