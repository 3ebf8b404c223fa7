"""Runs bash for the agent: one interactive shell without a terminal, which reads its commands from a pipe.

The shell is interactive because only an interactive shell keeps its variables after an interrupt. The runner defines no
variable and no function in it. While the user's code runs, descriptors 0 to 2 are the user's. The shell's own are saved
under numbers that programs started by the code do not inherit.
"""

import json
import os
import re
import select
import signal
import subprocess
import sys
from typing import NoReturn

# Descriptors in the shell. Neither scripts nor bash itself use such high numbers.
REPORTS, STDIN, STDOUT = 241, 242, 243

# Give the code the user's stdin and stdout, with stderr merged into stdout. Bash saves the descriptors that it replaces
# under numbers above the replacement's, so that `exec 10>file` does not hit them. With `241>&-` bash would save them
# from 10 on.
USER_REDIRECTIONS = f"<&{STDIN} >&{STDOUT} 2>&{STDOUT} {REPORTS}>&{STDOUT}"

# Discards the prompts, then reads the start-up files. An interactive shell would read these files by itself, but their
# commands could then read from the runner's pipe.
START = "exec 2>/dev/null; [ -r /etc/bash.bashrc ] && . /etc/bash.bashrc </dev/null; [ -r ~/.bashrc ] && . ~/.bashrc </dev/null"

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Ended(Exception):
    """The shell has ended."""


class Shell:
    """A bash process, which ends when its command pipe is closed."""

    def __init__(self):
        commands, self._commands = os.pipe()
        self._reports, reports = os.pipe()
        os.dup2(reports, REPORTS)
        # Bash resets its terminal after a program was killed, and complains if there is none.
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
        self._run(START)

    def close(self) -> None:
        for end in (self._commands, self._reports, self._terminal):
            os.close(end)

    def execute(self, code: str, env: dict, cwd: str | None) -> int:
        """Executes code and returns its status. Raises `Ended` if the shell ended instead."""
        names = [name for name in env if NAME.fullmatch(name)]
        before = []
        if names:
            # `declare -p` prints the commands that restore the variables as they are now.
            before.append(f"\\builtin declare -p {' '.join(names)} >&{REPORTS} 2>/dev/null; \\builtin printf '\\0' >&{REPORTS}")
            before += [f"\\builtin export {name}={quote(env[name])}" for name in names]
        if cwd is not None:
            before.append(f"\\builtin cd -- {quote(cwd)}")
        saved, status = self._run(*before, f"\\builtin eval {quote(code)} {USER_REDIRECTIONS}")
        if names:
            self._send(f"\\builtin unset -v {' '.join(names)}", saved)
        return status

    def _run(self, *commands: str) -> tuple[str, int]:
        """Runs commands in the shell; returns the record that they wrote, and the status of the last command."""
        self._count += 1
        # The number distinguishes this report from a repeated report of earlier commands.
        report = f"\\builtin printf '%s\\0' \"{self._count} $?\" >&{REPORTS}"
        forget_signals()
        self._send(*commands, report)
        written = b""
        while True:
            record = self._next_report()
            if record is None:
                # An interrupted shell drops its current line, which may be the line with the report.
                self._send(report)
            elif record.startswith(b"%d " % self._count):
                return written.decode(errors="replace"), int(record.split()[1])
            else:
                written = record

    def _send(self, *lines: str) -> None:
        text = "".join(f"{line}\n" for line in lines).encode(errors="replace")
        try:
            while text:
                text = text[os.write(self._commands, text) :]
        except BrokenPipeError:
            self._end()

    def _next_report(self) -> bytes | None:
        """Waits for the next record; returns `None` after an interrupt."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._reports, WAKE], [], [])
            if self._reports in ready:
                piece = os.read(self._reports, 65536)
                if not piece:
                    self._end()
                self._buffer += piece
            elif signal.SIGINT in forget_signals():
                return None
            # A background process of the shell may keep the other end of the pipe open after the shell has ended.
            elif self._process.poll() is not None:
                self._end()
        record, self._buffer = self._buffer.split(b"\0", 1)
        return record

    def _end(self) -> NoReturn:
        # The pipes are closed, but after an `exec` the new program may still run in the shell's place.
        self._process.wait()
        raise Ended


def quote(text: str) -> str:
    """Quotes a text for bash on one line. An interrupt drops whole lines, and so never leaves half of one behind."""
    for letter, escape in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\0", "")):
        text = text.replace(letter, escape)
    return f"$'{text}'"


def unterminated(code: str) -> str | None:
    """Returns bash's error for code that ends within quotes, or `None`.

    As in E2B, such code is not run and prints nothing.
    """
    if not any(letter in code for letter in "'\"`({"):
        return None
    with os.fdopen(os.memfd_create("code"), "w+b") as file:
        file.write(code.encode(errors="replace"))
        file.seek(0)
        command = ["bash", "--norc", "-n", "-O", "extglob"]
        stderr = subprocess.run(command, executable="/bin/bash", stdin=file, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE).stderr
    text = stderr.decode(errors="replace").strip()
    return text if "unexpected EOF while looking for matching" in text else None


def forget_signals() -> bytes:
    """Returns the numbers of the signals that arrived since the last call, and forgets them."""
    try:
        return os.read(WAKE, 4096)
    except BlockingIOError:
        return b""


def send(message: dict) -> None:
    os.write(ANSWERS, json.dumps(message).encode() + b"\n")


def serve(shell: Shell, request: dict) -> tuple[Shell, dict]:
    """Executes one request; returns the shell for the next request, and the members of this one's `done` message."""
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
    send({"ready": {}})
    for line in REQUESTS:
        shell, done = serve(shell, json.loads(line))
        send({"done": done})


if __name__ == "__main__":
    # The shell does not inherit handlers, but would inherit ignored signals. Python writes the signal numbers to the
    # wakeup pipe.
    for number in (signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    WAKE, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    os.dup2(0, STDIN)
    os.dup2(1, STDOUT)
    REQUESTS = open(os.environ.pop("RUNNER_IN"), encoding="utf-8", newline="\n")
    ANSWERS = os.open(os.environ.pop("RUNNER_OUT"), os.O_WRONLY | os.O_CLOEXEC)
    sys.exit(main())
