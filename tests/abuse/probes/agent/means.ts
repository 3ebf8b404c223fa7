//@ the agent is told to end
process.kill(1, "SIGTERM")

//@ the agent's mappings are read
readable("/proc/1/maps")

//@ the agent's root is entered
fs.readdirSync("/proc/1/root/")

//@ the runner is changed
writable("/opt/oncebox/typescript/language.json")

//@ a program is put beside the agent
fs.mkdirSync("/opt/oncebox/abuse-ts")
fs.rmdirSync("/opt/oncebox/abuse-ts")
