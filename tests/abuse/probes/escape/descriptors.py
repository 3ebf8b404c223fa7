#@ a pipe of the agent's is left open
assert any(link.startswith("pipe:") for link in foreign())

#@ a socket of the agent's is left open
assert any(link.startswith("socket:") for link in foreign())

#@ a file of the agent's is left open
assert any(link.startswith("/") for link in foreign())

#@ a stream is one of the agent's, and so leads to the server
#! only root: nobody else can look at the agent's
#! no control: the weak one has streams of its own too; the agent's are shown here to be found
agents = {os.readlink(f"/proc/1/fd/{number}") for number in range(3)}
assert len(agents) != 3 or agents & {os.readlink(f"/proc/self/fd/{number}") for number in range(3)}
