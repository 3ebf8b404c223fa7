"""The main loop: receives a request, executes it, sends its outcome."""

import atexit
import builtins
import gc
import importlib
import os
import signal
import site
import sys
import threading
from builtins import callable
from contextlib import contextmanager

from .errors import describe
from .link import Link
from .shell import Shell

# Covers every path that the first request may take: value, output, error, syntax error, top-level await.
WARM_UP = ("x = [1]\nprint(end='')\nx", "def f(): 1/0\nf()", "1 +", "import asyncio\nawait asyncio.sleep(0)", "")

# The builtins that the runner and IPython need.
BUILTIN_FUNCTIONS = {name: value for name, value in vars(builtins).items() if callable(value)}


def main() -> None:
    """Serves the agent until it closes its end; never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = Link(os.environ.pop("RUNNER_IN"), os.environ.pop("RUNNER_OUT"))
    _add_user_site()
    os.environ.setdefault("PLOTLY_RENDERER", "plotly_mimetype")
    shell = Shell.instance()
    # This handler prepares the shell for another session, which takes several times as long as a short program.
    atexit.unregister(shell.atexit_operations)
    _warm_up(shell)
    # The objects of the runner live as long as it does. A collection need not visit them, in forked children above all:
    # there each visited object costs memory of the child's own.
    gc.collect()
    gc.freeze()
    shell.send_result = link.send
    link.send({"ready": {}})
    while True:
        try:
            request = link.receive()
        except Exception as error:  # A timer that the user's code left behind raised here.
            sys.excepthook(type(error), error.with_traceback(None), None)
            continue
        if request is None:
            os._exit(0)
        done = _serve(shell, request, link)
        if link.closed:
            _end_forked_child(done)
        if shell.quit:
            # The agent starts another interpreter for the next request.
            os._exit(done.get("exit_code", 0))
        link.send({"done": done})
        if request.get("mode") == "script":
            # The program has ended. The agent starts another interpreter for the next request.
            os._exit(0)


def _serve(shell: Shell, request: dict, link: Link | None = None) -> dict:
    """Executes one request with its environment and directory; an interrupt at any point ends it."""
    done = {}
    try:
        with _environment(request.get("env") or {}):
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                # Modules may have been installed since the last execution, in any way.
                importlib.invalidate_caches()
                if request.get("cwd") is not None:
                    os.chdir(request["cwd"])
                formats, stdin = request.get("formats") or [], request.get("stdin", True)
                mode = request.get("mode")
                done = shell.execute(request["code"], mode, formats, stdin)
                if mode == "script":
                    shell.flush()
                    link.send({"ending": done})
                    # The children of a fork bomb fail all at once. Together they have no memory for more than that.
                    if not (link.closed and "error" in done):
                        _end_program(shell)
                return done
            finally:
                try:
                    _repair_builtins()
                finally:
                    signal.signal(signal.SIGINT, signal.SIG_IGN)
    except BaseException as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # What goes wrong at the end of failed code does not hide the failure.
        return done if "error" in done else describe(error)
    finally:
        shell.flush()


def _end_program(shell: Shell) -> None:
    """Ends the code as Python ends a program: waits for its threads and processes, then runs its exit handlers."""
    shell.close_loop()
    threading._shutdown()
    # `multiprocessing` waits for its processes in one of them.
    atexit._run_exitfuncs()
    shell.clear_variables()


def _repair_builtins() -> None:
    """Puts back builtins that were deleted or made useless, as by `builtins.len = None`; other changes stay."""
    now = builtins.__dict__
    for name, value in BUILTIN_FUNCTIONS.items():
        if not callable(now.get(name)):
            now[name] = value


@contextmanager
def _environment(variables: dict):
    """Sets environment variables, and restores them afterwards."""
    before = {name: os.environ.get(name) for name in variables}
    try:
        os.environ.update(variables)
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _end_forked_child(done: dict) -> None:
    """Ends a child of the user's own `os.fork()` that ran to the end of the code, as a script would end."""
    if "error" in done:
        print(done["error"]["traceback"], file=sys.stderr, flush=True)
    os._exit(1 if "error" in done else done.get("exit_code", 0))


def _add_user_site() -> None:
    """Adds the user's package directory to the path, even if it does not exist yet, so that `pip install` works."""
    user_site = site.getusersitepackages()
    if site.ENABLE_USER_SITE and user_site not in sys.path:
        packages = next((i for i, path in enumerate(sys.path) if path.endswith("-packages")), len(sys.path))
        sys.path.insert(packages, user_site)


def _warm_up(shell: Shell) -> None:
    """Runs examples, so that everything is imported before the first request, then forgets them."""
    for code in WARM_UP:
        _serve(shell, {"code": code})
    shell.forget()
