#@ the accounts' passwords are read
#! not root: files of the container are its own
readable("/etc/shadow")

#@ the accounts' passwords are changed
#! not root: files of the container are its own
writable("/etc/shadow")

#@ the groups are changed
#! not root: files of the container are its own
writable("/etc/group")

#@ the names of hosts are changed
#! not root: files of the container are its own
writable("/etc/hosts")

#@ the name servers are changed
#! not root: files of the container are its own
writable("/etc/resolv.conf")

#@ a file is put among the configuration
#! not root: files of the container are its own
create("/etc/abuse")

#@ a program is put among the system's
#! not root: files of the container are its own
create("/usr/bin/abuse")

#@ a program is put where it is found first
#! not root: files of the container are its own
create("/usr/local/bin/abuse")

#@ a library is put among the system's
#! not root: files of the container are its own
create("/usr/lib/abuse.so")

#@ a library is put before all programs
#! not root: files of the container are its own
create("/etc/ld.so.preload")

#@ the search for libraries is changed
#! not root: files of the container are its own
create("/etc/ld.so.conf.d/abuse.conf")

#@ a module is put among Python's
#! not root: files of the container are its own
create(os.path.join(os.path.dirname(os.__file__), "abuse.py"))

#@ a script of every login is made
#! not root: files of the container are its own
create("/etc/profile.d/abuse.sh")

#@ a job of the system is made
#! not root: files of the container are its own
os.makedirs("/etc/cron.d", exist_ok=True)
create("/etc/cron.d/abuse")

#@ root's home is read
#! only strict: in kept sandboxes, root's home is open to the user
#! not root: files of the container are its own
os.listdir("/root")

#@ a file is put in root's home
#! only strict: in kept sandboxes, root's home is open to the user
#! not root: files of the container are its own
create(os.path.join("/root", "abuse"))

#@ a file is put at the root
#! not root: files of the container are its own
create("/abuse")

#@ a file is put among the programs' state
#! not root: files of the container are its own
create("/var/lib/abuse")

#@ a file is put among what runs
#! not root: files of the container are its own
create("/run/abuse")

#@ a file is put among the homes
#! not root: files of the container are its own
create("/home/abuse")

#@ a file of the system is removed
#! not root: files of the container are its own
os.rename("/etc/shells", "/etc/shells.gone")
os.rename("/etc/shells.gone", "/etc/shells")

#@ a file of the system is given away
#! not root: files of the container are its own
os.chown("/etc/group", 0, 0)

#@ a file of the system is opened to all
#! not root: files of the container are its own
os.chmod("/etc/group", 0o644)

#@ a file of the system is linked to
#! not root: files of the container are its own
os.link("/etc/shadow", "/tmp/hard")
os.unlink("/tmp/hard")

#@ a file of the system is replaced by a link
#! not root: files of the container are its own
os.symlink("/tmp/elsewhere", "/etc/abuse-link")
os.unlink("/etc/abuse-link")

#@ the shell is replaced
#! not root: files of the container are its own
os.rename("/bin/dash", "/bin/dash.old")
os.rename("/bin/dash.old", "/bin/dash")
