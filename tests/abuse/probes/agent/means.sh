#@ the agent is killed
kill -9 1

#@ the agent is asked whether it takes signals
kill -0 1

#@ the agent's variables are read
cat /proc/1/environ > /dev/null

#@ the agent's files are listed
ls /proc/1/fd

#@ the agent's output is opened
writable /proc/1/fd/1

#@ the agent's program is followed
readlink /proc/1/exe

#@ the agent's root is entered
ls /proc/1/root/

#@ the agent's priority is changed
renice -n 0 -p 1

#@ the agent's limits are changed
prlimit --pid 1 --nofile=1024:1024

#@ the runner is changed
writable /opt/oncebox/bash/runner.py

#@ a pipe is put among the agent's
mkfifo /run/oncebox/abuse-sh
rm /run/oncebox/abuse-sh

#@ a program of the system is shadowed
ln -s /bin/true /usr/local/bin/ls
rm /usr/local/bin/ls
