"""Which limit of the sandbox, if any, is behind an exception: by where it was made, never by its words alone."""

import errno
from opcode import opmap

FULL = (errno.ENOSPC, errno.EDQUOT)

SQLITE_FULL = 13

# Instructions that pass on an exception which code has made: `raise`, and `throw` into a generator or what awaits a future.
THROWING = {opmap[name] for name in ("RAISE_VARARGS", "SEND", "YIELD_VALUE", "RESUME", "POP_TOP")}


def limit_behind(error: BaseException) -> str | None:
    """`memory` or `disk`, if the exception, or one that it was raised from or while handling, reports that there is no more."""
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
        # Code that is nested too deeply would be so with any memory.
        return None if str(error).startswith("Parser stack overflowed") else "memory"
    if isinstance(error, OSError):
        # NumPy asks for the room before it writes, and drops the number when there is none.
        full = error.errno in FULL or error.errno is None and str(error).startswith("Not enough free space to write ")
        return "disk" if full else None
    return "disk" if getattr(error, "sqlite_errorcode", None) == SQLITE_FULL else None


def _is_thrown_by_code(error):
    """Whether Python code threw it, and not the interpreter or a library in C."""
    if type(error.__cause__).__name__.endswith("RemoteTraceback"):
        return False  # a process pool's, which raises again what was raised in another process
    place = error.__traceback__
    if place is None:
        return True
    while place.tb_next is not None:
        place = place.tb_next
    # A frame that a library in C has made up may have no instruction.
    return place.tb_lasti >= 0 and place.tb_frame.f_code.co_code[place.tb_lasti] in THROWING
