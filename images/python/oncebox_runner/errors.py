"""Describes how code failed: its exception, the traceback without the runner's part, and the exit status."""

import os
import re
import sys

from . import causes

RUNNER = os.path.dirname(__file__) + os.sep

ANSI_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def describe(error: BaseException, text: str | None = None) -> dict:
    """The members of a `done` message for an error; `text` is its traceback."""
    name = type(error).__name__
    try:
        value = str(error)
    except Exception:
        value = f"<{name} without a readable message>"
    text = ANSI_CODE.sub("", text or f"{name}: {value}").rstrip("\n")
    done = {"error": {"name": name, "value": value, "traceback": text}}
    try:
        cause = causes.limit_behind(error)
    except Exception:
        return done  # the user's own exception has attributes that cannot be read
    return done if cause is None else {**done, "cause": cause}


def without_runner(tb, names):
    """The traceback from the first frame of the user's code on, without the runner's frames. `names` are the user's files.

    If there is no user code, for example because a drawing failed, the library's frames stay.
    """
    frames = []
    while tb is not None:
        frames.append(tb)
        tb = tb.tb_next
    files = [frame.tb_frame.f_code.co_filename for frame in frames]
    start = next((i for i, file in enumerate(files) if file in names), 0)
    kept = [frame for frame, file in zip(frames[start:], files[start:]) if not file.startswith(RUNNER)]
    for frame, following in zip(kept, [*kept[1:], None]):
        frame.tb_next = following
    return kept[0] if kept else None


def exit_code(error: SystemExit) -> int:
    """The exit status that `python` would have; like `python`, prints a code that is not a number to stderr."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr, flush=True)
    return 1


def has_group(error: BaseException | None) -> bool:
    """Whether an exception, or one that led to it, is a group."""
    seen = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, BaseExceptionGroup):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
