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

//@ a file is put among the configuration
fs.writeFileSync("/etc/abuse-js", "", { flag: "wx" })
fs.unlinkSync("/etc/abuse-js")

//@ a module is put among Node's
fs.writeFileSync("/opt/node/lib/node_modules/abuse.js", "", { flag: "wx" })
fs.unlinkSync("/opt/node/lib/node_modules/abuse.js")

//@ a file of the system is linked to
fs.linkSync("/etc/shadow", "/tmp/hard-js")
fs.unlinkSync("/tmp/hard-js")

//@ a file of the system is given away
fs.chownSync("/etc/group", 0, 0)

//@ a file of the system is opened to all
fs.chmodSync("/etc/group", 0o644)

//@ the user becomes root
process.setuid(0)

//@ the user becomes a member of root's group
process.setgid(0)

//@ groups are joined
process.setgroups([0, 1])

//@ priority over others is taken
const before = os.getPriority()
os.setPriority(0, -5)
os.setPriority(0, before)

//@ root's home is read
//! only strict: in kept sandboxes, root's home is open to the user
fs.readdirSync("/root")

//@ su makes root
execFileSync("su", ["-c", "true"], { stdio: "ignore" })

//@ a file system is mounted
execFileSync("mount", ["-t", "tmpfs", "none", "/mnt"], { stdio: "ignore" })
execFileSync("umount", ["/mnt"])

//@ a namespace of users is made
execFileSync("unshare", ["--user", "true"], { stdio: "ignore" })

//@ a device file is made
execFileSync("mknod", ["/tmp/device-js", "c", "1", "3"], { stdio: "ignore" })
fs.unlinkSync("/tmp/device-js")

//@ the engine is spoken to
const answer = await new Promise((resolve, reject) => {
  const stream = net.connect("/var/run/docker.sock", () => stream.write("GET /_ping HTTP/1.0\r\n\r\n"))
  stream.once("data", data => { stream.destroy(); resolve(String(data)) })
  stream.once("error", reject)
})
if (!answer.includes("200")) throw new Error(answer)

//@ the host's shared memory is read
if (String(fs.readFileSync(process.env.SHARED)) !== "secret") throw new Error()

//@ the host's addresses are shown
if (!/^[0-9a-f]*[1-9a-f]/.test(fs.readFileSync("/proc/kallsyms", "utf8").split("\n")[1].split(" ")[0])) throw new Error("nothing but zeros")

//@ a pipe of the agent's is left open
//! fresh interpreter: the one that is shared has what attempts left open
if (!foreign().some(link => link.startsWith("pipe:"))) throw new Error("none")

//@ a socket of the agent's is left open
//! fresh interpreter: the one that is shared has what attempts left open
if (!foreign().some(link => link.startsWith("socket:"))) throw new Error("none")

//@ a file of the agent's is left open
//! fresh interpreter: the one that is shared has what attempts left open
if (!foreign().some(link => link.startsWith("/"))) throw new Error("none")
