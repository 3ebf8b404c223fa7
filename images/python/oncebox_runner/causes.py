"""Finds the limit of the sandbox that caused an exception.

The message alone never decides: the place of creation counts too.
"""

import errno
from opcode import opmap

FULL = (errno.ENOSPC, errno.EDQUOT)

SQLITE_FULL = 13

# The instructions at which code throws an exception of its own: `raise`, and `throw` into a generator or into code that
# awaits.
THROWING = {opmap[name] for name in ("RAISE_VARARGS", "SEND", "YIELD_VALUE", "RESUME", "POP_TOP")}


def limit_behind(error: BaseException) -> str | None:
    """Returns `memory` or `disk` if the exception, or another in its chain or group, reports that it is used up."""
    rest, seen = [error], set()
    while rest:
        error = rest.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        limit = _limit(error)
        if limit is not None and not _is_thrown_by_code(error):
            return limit
        rest += [error.__cause__, None if error.__suppress_context__ else error.__context__]
        if isinstance(error, BaseExceptionGroup):
            rest += error.exceptions
    return None


def _limit(error):
    if isinstance(error, MemoryError):
        # Code that is nested too deeply fails with any amount of memory.
        return None if str(error).startswith("Parser stack overflowed") else "memory"
    if isinstance(error, OSError):
        # NumPy checks the free space before it writes, and raises an error without a number if there is too little.
        full = error.errno in FULL or error.errno is None and str(error).startswith("Not enough free space to write ")
        return "disk" if full else None
    return "disk" if getattr(error, "sqlite_errorcode", None) == SQLITE_FULL else None


def _is_thrown_by_code(error):
    """Whether Python code threw it, and not the interpreter or a library in C."""
    if type(error.__cause__).__name__.endswith("RemoteTraceback"):
        return False  # a process pool raised an exception of another process again
    place = error.__traceback__
    if place is None:
        return True
    while place.tb_next is not None:
        place = place.tb_next
    # A frame that a C library has made up may have no instruction.
    return place.tb_lasti >= 0 and place.tb_frame.f_code.co_code[place.tb_lasti] in THROWING
