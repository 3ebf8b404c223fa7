//@ the agent is killed
process.kill(1, "SIGKILL")

//@ the agent is asked whether it takes signals
process.kill(1, 0)

//@ the agent's variables are read
fs.readFileSync("/proc/1/environ")

//@ the agent's files are listed
fs.readdirSync("/proc/1/fd")

//@ the agent's output is opened
writable("/proc/1/fd/1")

//@ the agent's memory is opened
fs.closeSync(fs.openSync("/proc/1/mem", "r"))

//@ the agent's priority is changed
os.setPriority(1, os.getPriority(1))

//@ the agent's program is followed
fs.readlinkSync("/proc/1/exe")

//@ the runner is changed
writable("/opt/oncebox/javascript/runner.mjs")

//@ a pipe is put among the agent's
fs.writeFileSync("/run/oncebox/abuse-js", "", { flag: "wx" })
fs.unlinkSync("/run/oncebox/abuse-js")
