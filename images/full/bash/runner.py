"""Runs bash for the agent: one interactive shell, without a terminal, that reads what it is to do from a pipe.

Interactive, because only such a shell survives an interrupt with its variables. Nothing of the runner is in it: no
variable and no function. While the user's code runs, its descriptors are the user's; the runner's are put aside, where
programs that it starts do not inherit them.
"""

import json
import os
import re
import select
import signal
import subprocess
import sys
from typing import NoReturn

# What the shell knows its pipes by: numbers that neither scripts use nor bash by itself.
REPORTS, STDIN, STDOUT = 241, 242, 243

# For the user's code: the user's stdin and stdout, stderr merged into it. What is replaced bash puts aside, under numbers
# above that of the replacement and out of the way of `exec 10>file`; with `241>&-` it would begin at 10.
USERS = f"<&{STDIN} >&{STDOUT} 2>&{STDOUT} {REPORTS}>&{STDOUT}"

# Its prompts go nowhere. The rest an interactive shell does by itself, but would let these files read the runner's pipe.
START = "exec 2>/dev/null; [ -r /etc/bash.bashrc ] && . /etc/bash.bashrc </dev/null; [ -r ~/.bashrc ] && . ~/.bashrc </dev/null"

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Ended(Exception):
    """The shell is gone."""


class Shell:
    """A bash; it ends by itself when its pipe is closed."""

    def __init__(self):
        commands, self._commands = os.pipe()
        self._reports, reports = os.pipe()
        os.dup2(reports, REPORTS)
        # Bash sets its terminal right after a program was killed, and complains if it has none.
        self._terminal, terminal = os.openpty()
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "--noediting", "-i", "+m", "+H", "+o", "history"],
            executable="/bin/bash",
            stdin=commands,
            stdout=subprocess.DEVNULL,
            stderr=terminal,
            pass_fds=(REPORTS, STDIN, STDOUT),
        )
        for end in (commands, reports, REPORTS, terminal):
            os.close(end)
        self._buffer = b""
        self._count = 0
        self._do(START)

    def close(self) -> None:
        for end in (self._commands, self._reports, self._terminal):
            os.close(end)

    def execute(self, code: str, env: dict, cwd: str | None) -> int:
        """Executes code and returns its status. Raises `Ended` if the shell ended instead."""
        names = [name for name in env if NAME.fullmatch(name)]
        before = []
        if names:
            # What the variables are now comes back as the commands that make them so again.
            before.append(f"\\builtin declare -p {' '.join(names)} >&{REPORTS} 2>/dev/null; \\builtin printf '\\0' >&{REPORTS}")
            before += [f"\\builtin export {name}={quote(env[name])}" for name in names]
        if cwd is not None:
            before.append(f"\\builtin cd -- {quote(cwd)}")
        saved, status = self._do(*before, f"\\builtin eval {quote(code)} {USERS}")
        if names:
            self._send(f"\\builtin unset -v {' '.join(names)}", saved)
        return status

    def _do(self, *commands: str) -> tuple[str, int]:
        """Has the shell do something; returns what it said, and the status of the last command."""
        self._count += 1
        # The number tells this report from one that was asked for again.
        report = f"\\builtin printf '%s\\0' \"{self._count} $?\" >&{REPORTS}"
        forget_signals()
        self._send(*commands, report)
        said = b""
        while True:
            record = self._next_report()
            if record is None:
                # An interrupted shell drops the line it is at, which may be the one that reports.
                self._send(report)
            elif record.startswith(b"%d " % self._count):
                return said.decode(errors="replace"), int(record.split()[1])
            else:
                said = record

    def _send(self, *lines: str) -> None:
        text = "".join(f"{line}\n" for line in lines).encode(errors="replace")
        try:
            while text:
                text = text[os.write(self._commands, text) :]
        except BrokenPipeError:
            self._end()

    def _next_report(self) -> bytes | None:
        """The next record, or `None` after an interrupt."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._reports, WAKE], [], [])
            if self._reports in ready:
                piece = os.read(self._reports, 65536)
                if not piece:
                    self._end()
                self._buffer += piece
            elif signal.SIGINT in forget_signals():
                return None
            # What it left in the background may hold the other end of its pipe.
            elif self._process.poll() is not None:
                self._end()
        record, self._buffer = self._buffer.split(b"\0", 1)
        return record

    def _end(self) -> NoReturn:
        # Its pipes are closed, but the program that it has become by `exec` may still run.
        self._process.wait()
        raise Ended


def quote(text: str) -> str:
    """Text as bash reads it back, on one line: half of a line is nothing that an interrupt could leave behind."""
    for letter, escape in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\0", "")):
        text = text.replace(letter, escape)
    return f"$'{text}'"


def unterminated(code: str) -> str | None:
    """What bash says of code that ends within quotes. E2B prints nothing for such code, and does not begin to run it."""
    if not any(letter in code for letter in "'\"`({"):
        return None
    with os.fdopen(os.memfd_create("code"), "w+b") as file:
        file.write(code.encode(errors="replace"))
        file.seek(0)
        command = ["bash", "--norc", "-n", "-O", "extglob"]
        said = subprocess.run(command, executable="/bin/bash", stdin=file, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE).stderr
    text = said.decode(errors="replace").strip()
    return text if "unexpected EOF while looking for matching" in text else None


def forget_signals() -> bytes:
    """The numbers of the signals that came since the last time."""
    try:
        return os.read(WAKE, 4096)
    except BlockingIOError:
        return b""


def say(message: dict) -> None:
    os.write(ANSWERS, json.dumps(message).encode() + b"\n")


def serve(shell: Shell, request: dict) -> tuple[Shell, dict]:
    """Executes one request; returns the shell for the next one, and how this one ended."""
    message = unterminated(request["code"])
    if message is not None:
        return shell, failure(2, message)
    try:
        status = shell.execute(request["code"], request.get("env") or {}, request.get("cwd"))
    except Ended:
        shell.close()
        os.write(STDOUT, b"Restarting Bash\n")
        return Shell(), {}
    return shell, failure(status, "") if status else {}


def failure(status: int, traceback: str) -> dict:
    return {"error": {"name": "", "value": str(status), "traceback": traceback}}


def main() -> None:
    shell = Shell()
    say({"ready": {}})
    for line in REQUESTS:
        shell, done = serve(shell, json.loads(line))
        say({"done": done})


if __name__ == "__main__":
    # Not inherited by the shell, unlike what is ignored. Python writes the numbers of signals to the pipe.
    for number in (signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    WAKE, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    os.dup2(0, STDIN)
    os.dup2(1, STDOUT)
    REQUESTS = open(os.environ.pop("RUNNER_IN"), encoding="utf-8", newline="\n")
    ANSWERS = os.open(os.environ.pop("RUNNER_OUT"), os.O_WRONLY | os.O_CLOEXEC)
    sys.exit(main())
