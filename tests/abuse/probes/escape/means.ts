//@ the accounts' passwords are read
readable("/etc/shadow")

//@ the groups are changed
writable("/etc/group")

//@ the names of hosts are changed
writable("/etc/hosts")

//@ the program that takes core dumps is replaced
writable("/proc/sys/kernel/core_pattern")

//@ the host is made to route
writable("/proc/sys/net/ipv4/ip_forward")

//@ a file is put at the root
fs.writeFileSync("/abuse-ts", "", { flag: "wx" })
fs.unlinkSync("/abuse-ts")

//@ a library is put before all programs
fs.writeFileSync("/etc/ld.so.preload", "", { flag: "wx" })
fs.unlinkSync("/etc/ld.so.preload")

//@ a file of the system is replaced by a link
fs.symlinkSync("/tmp/elsewhere", "/etc/abuse-ts")
fs.unlinkSync("/etc/abuse-ts")

//@ a worker reads root's home
await new Promise<void>((resolve, reject) => {
  const worker = new Worker('require("fs").readdirSync("/root")', { eval: true })
  worker.once("error", reject)
  worker.once("exit", (status: number) => status === 0 ? resolve() : reject(new Error(String(status))))
})

//@ the root is changed
execFileSync("/usr/sbin/chroot", ["/", "true"], { stdio: "ignore" })

//@ a descriptor is left open that leads out
//! no control: nothing is left open in the weak one either, so one is opened here, and must be seen
const own = fs.openSync("/", "r")
const left: string[] = fs.readdirSync("/proc/self/fd").filter(number => Number(number) > 2).flatMap(number => {
  try { return [fs.readlinkSync("/proc/self/fd/" + number)] } catch { return [] }
})
fs.closeSync(own)
// Node's own means, of whose pipes it has both ends; and the two to the agent.
const known = /^(anon_inode:.*|socket:.*|\/dev\/null|\/run\/oncebox\/\d+\/(in|out))$/
const isPair = (link: string) => link.startsWith("pipe:") && left.indexOf(link) !== left.lastIndexOf(link)
if (left.filter(link => !known.test(link) && !isPair(link)).join() === "/") throw new Error("none")
