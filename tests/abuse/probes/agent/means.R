#@ the agent is killed
stopifnot(tools::pskill(1, 9))

#@ the agent is told to end
stopifnot(tools::pskill(1, 15))

#@ the agent's variables are read
readable("/proc/1/environ")

#@ the agent's files are listed
stopifnot(length(list.files("/proc/1/fd")) > 0)

#@ the agent's mappings are read
readable("/proc/1/maps")

#@ the agent's program is followed
stopifnot(!is.na(Sys.readlink("/proc/1/exe")), nzchar(Sys.readlink("/proc/1/exe")))

#@ the agent's priority is changed
stopifnot(!is.na(tools::psnice(1L, tools::psnice(1L))), system("renice -n 0 -p 1 > /dev/null 2>&1") == 0)

#@ the runner is changed
writable("/opt/oncebox/r/runner.R")
