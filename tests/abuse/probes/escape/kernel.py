#@ the log of the kernel is read
call("klogctl", 3, ctypes.create_string_buffer(16), 16)

#@ the kernel's addresses are read
assert any(int(line.split()[0], 16) for line in open("/proc/kallsyms"))

#@ the kernel's memory is read
#! no control: not every kernel offers it
assert readable("/proc/kcore")

#@ what the kernel's timers wait for is read
assert readable("/proc/timer_list")

#@ the keys of the host are listed
assert readable("/proc/keys")

#@ the program that takes core dumps is replaced
writable("/proc/sys/kernel/core_pattern")

#@ addresses of the host's programs are made predictable
writable("/proc/sys/kernel/randomize_va_space")

#@ a key of the kernel's debugger is pressed
#! no control: not every kernel has it
writable("/proc/sysrq-trigger")

#@ the kernel is told to panic
writable("/proc/sys/kernel/panic")

#@ the caches of the host are dropped
writable("/proc/sys/vm/drop_caches")

#@ the host is made to promise more memory
writable("/proc/sys/vm/overcommit_memory")

#@ the host is made to route
writable("/proc/sys/net/ipv4/ip_forward")

#@ the name of the host is written
writable("/proc/sys/kernel/hostname")

#@ the interrupts of the host are moved
writable("/proc/irq/default_smp_affinity")

#@ a module is loaded
#! no control: the host's kernel may refuse modules to everybody
permitted(call, 175, b"nonsense", 8, b"")

#@ a module is loaded from a file
#! no control: the host's kernel may refuse modules to everybody
permitted(call, 313, -1, b"", 0)

#@ another kernel is loaded
permitted(call, 246, 0, 0, None, 0x7fff)

#@ the host is restarted
permitted(call, 169, 1, 2, 3, None)

#@ swap space is added
permitted(call, "swapon", b"/nowhere", 0)

#@ swap space is taken away
permitted(call, "swapoff", b"/nowhere")

#@ processes are accounted
permitted(call, "acct", b"/nowhere")

#@ quotas are changed
permitted(call, 179, 0x800002 << 8, b"/nowhere", 0, None)

#@ the clock is set
permitted(call, 227, 0, (ctypes.c_long * 2)(0, -1))

#@ the clock is made to run faster
permitted(call, "adjtimex", (ctypes.c_int * 64)(0x4000))

#@ the host's name is set
name = socket.gethostname().encode()
call("sethostname", name, len(name))

#@ the host's domain is set
domain = readable("/proc/sys/kernel/domainname").strip()
call("setdomainname", domain, len(domain))

#@ ports of the hardware are opened
permitted(call, "ioperm", 0x80, 1, 1)

#@ all ports of the hardware are opened
in_child(call, 172, 3)

#@ the terminal is hung up
in_child(call, 153)
