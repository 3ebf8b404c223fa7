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
//! only strict: in kept sandboxes, root's home is open to the user
await new Promise<void>((resolve, reject) => {
  const worker = new Worker('require("fs").readdirSync("/root")', { eval: true })
  worker.once("error", reject)
  worker.once("exit", (status: number) => status === 0 ? resolve() : reject(new Error(String(status))))
})

//@ the root is changed
execFileSync("/usr/sbin/chroot", ["/", "true"], { stdio: "ignore" })

//@ a pipe of the agent's is left open
//! fresh interpreter: the one that is shared has what attempts left open
if (!foreign().some(link => link.startsWith("pipe:"))) throw new Error("none")

//@ a socket of the agent's is left open
//! fresh interpreter: the one that is shared has what attempts left open
if (!foreign().some(link => link.startsWith("socket:"))) throw new Error("none")

//@ a file of the agent's is left open
//! fresh interpreter: the one that is shared has what attempts left open
if (!foreign().some(link => link.startsWith("/"))) throw new Error("none")
