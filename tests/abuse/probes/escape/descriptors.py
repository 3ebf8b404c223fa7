#@ a descriptor is left open beside the three streams
#! no control: nothing is left open in the weak one either, so one is opened here, and must be seen
own = os.open("/", os.O_RDONLY)
os.set_inheritable(own, True)
left = []
for number in map(int, os.listdir("/proc/self/fd")):
    # What the interpreter opens by itself is closed on exec; what it was started with is not.
    try:
        is_left = number > 2 and not int(open(f"/proc/self/fdinfo/{number}").read().split()[3], 8) & os.O_CLOEXEC
    except FileNotFoundError:
        continue
    if is_left:
        left.append(os.readlink(f"/proc/self/fd/{number}"))
os.close(own)
assert left != ["/"]

#@ a stream is one of the agent's, and so leads to the server
#! only root: nobody else can look at the agent's
#! no control: the weak one has streams of its own too; the agent's are shown here to be found
agents = {os.readlink(f"/proc/1/fd/{number}") for number in range(3)}
assert len(agents) != 3 or agents & {os.readlink(f"/proc/self/fd/{number}") for number in range(3)}
