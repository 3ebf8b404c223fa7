"""The two FIFOs between the agent and this runner: one JSON object per line, in both directions."""

import errno
import io
import json
import os
import signal
import threading
from contextlib import contextmanager


class Link:
    """Receives requests and sends results. A forked child closes its copy, so that only the runner itself answers."""

    def __init__(self, read_path: str, write_path: str):
        # Python opens files close-on-exec, so no program started by the user's code inherits them.
        self._in = open(read_path, "rb")
        self._out = open(write_path, "wb", buffering=0)
        self._sending = threading.RLock()
        self.closed = False
        os.register_at_fork(after_in_child=self._close_in_child)

    def receive(self) -> dict | None:
        """Waits for the next request; returns `None` when the agent has closed its end."""
        line = self._in.readline()
        return json.loads(line) if line else None

    def send(self, message: dict) -> None:
        """Writes one whole line, even if a signal handler of the user's code raises meanwhile."""
        if self.closed:
            return
        # Lone surrogates are legal in a Python string, but not in UTF-8.
        line = json.dumps(message, ensure_ascii=False, allow_nan=False).encode(errors="replace") + b"\n"
        with self._sending, _uninterrupted():
            # The line fits into the buffer, so `write` only copies it, and an interrupted `flush` can be repeated.
            # A writer that is dropped early must not close the FIFO.
            out = io.FileIO(self._out.fileno(), "w", closefd=False)
            writer = io.BufferedWriter(out, len(line) + 1)
            writer.write(line)
            raised = None
            while True:
                try:
                    writer.flush()
                    break
                except BaseException as error:
                    if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.EBADF):
                        os._exit(1)  # The agent is gone, so the runner ends too.
                    raised = error
            writer.detach()
        if raised is not None:
            raise raised

    def _close_in_child(self) -> None:
        if self.closed:
            return  # A child of a child: the descriptors may be the user's by now.
        self.closed = True
        # Not `self._in.close()`: it takes a lock that a thread of the parent may have held at the fork.
        os.close(self._in.fileno())
        os.close(self._out.fileno())


@contextmanager
def _uninterrupted():
    """Defers an interrupt: between two steps of a write it could close the FIFO or leave half a line in it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came, raised = [], None
    handler = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, lambda *_: came.append(True))
        yield
    finally:
        while signal.getsignal(signal.SIGINT) is not handler:
            try:
                signal.signal(signal.SIGINT, handler)
            except BaseException as error:  # Another signal's handler has raised first.
                raised = error
    if raised is not None:
        raise raised
    if came:
        signal.raise_signal(signal.SIGINT)
