"""Shared by `sdk`, `mcp` and `letta`: cached environments, the clients' DNS, a server, and a runner for suites.

The clients' DNS is a dnsmasq that knows the one domain of the server and refuses every other name, so that clients
cannot reach another machine by mistake. It needs root, to listen on its port and to be the DNS of the clients only.
"""

import hashlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The ports that clients in debug mode dial: the control plane, commands and files, and the code interpreter.
DEBUG_PORTS = [3000, 49983, 49999]


class Broken(Exception):
    """The suites cannot be run."""


def run(*command, **options):
    try:
        subprocess.run([str(part) for part in command], check=True, **options)
    except (OSError, subprocess.CalledProcessError) as err:
        raise Broken(f"an environment could not be made: {err}") from err


def cached(home, inputs, make):
    """A directory that `make` fills, again only if the input files have changed since."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()
    stamp = home / "stamp"
    if not stamp.exists() or stamp.read_text() != digest:
        print(f"installing {home.name}", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        make()
        stamp.write_text(digest)
    return home


class Names:
    """A DNS server for one domain, and a `resolv.conf` that names it."""

    def __init__(self, target, domain, wildcard=True):
        number = secrets.randbelow(1 << 16)
        # All of 127.0.0.0/8 is this machine. A random address, so that parallel runs do not collide.
        self.address = f"127.53.{number >> 8}.{number & 255}"
        self.record = f"--address=/{domain}/127.0.0.1" if wildcard else f"--host-record={domain},127.0.0.1"
        self.file = target / ("resolv.conf" if wildcard else "resolv-one.conf")

    def __enter__(self):
        if os.geteuid() != 0 or not shutil.which("dnsmasq"):
            raise Broken("the clients' DNS needs root, and dnsmasq (on Debian: dnsmasq-base)")
        self.file.write_text(f"nameserver {self.address}\n")
        settings = [f"--listen-address={self.address}", self.record, "--bind-interfaces", "--no-resolv", "--no-hosts"]
        command = ["dnsmasq", "--conf-file=/dev/null", "--keep-in-foreground", "--pid-file", "--user=root", *settings]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_until(self.process, lambda: answers(self.address, 53), "dnsmasq did not start")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def for_command(self, command):
        """The command with this DNS instead of the machine's, by a mount that no other process sees."""
        return ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', self.file, *command]


def program():
    """The program that is tested."""
    return os.environ.get("ONCEBOX", str(ROOT / "target" / "release" / "oncebox"))


class Server:
    """A server with TLS for a domain. Without `settings`, no template has warm sandboxes."""

    def __init__(self, target, name, domain, settings, debug=False):
        self.target, self.name, self.settings, self.debug = target, name, settings, debug
        # The ports that clients dial in debug mode cannot be changed.
        ports = [free_port(port) for port in (DEBUG_PORTS if debug else [0])]
        tls = next(port for port in iter(lambda: free_port(0), None) if port not in DEBUG_PORTS)
        self.port, self.domain = ports[0], f"{domain}:{tls}"
        self.origin = f"http://127.0.0.1:{self.port}"
        self.certificates = target / "certificates"
        self.ca = str(self.certificates / "ca.pem")

    def __enter__(self):
        run(program(), "certs", "--domain", self.domain, "--out", self.certificates, stdout=subprocess.DEVNULL)
        cold = {f"ONCEBOX_TEMPLATES__{name.stem.upper()}__WARM": "0" for name in (ROOT / "config" / "templates").glob("*.toml")}
        variables = {
            **cold,
            "ONCEBOX_CONFIG": str(ROOT / "config"),
            "ONCEBOX_LISTEN": f"127.0.0.1:{self.port}",
            "ONCEBOX_OWNER": f"{self.target.name}-{self.port}",
            "ONCEBOX_DOMAIN": self.domain,
            "ONCEBOX_TLS_LISTEN": f"127.0.0.1:{self.domain.split(':')[1]}",
            "ONCEBOX_TLS_CERTIFICATE": str(self.certificates / "server.pem"),
            "ONCEBOX_TLS_KEY": str(self.certificates / "server-key.pem"),
            "ONCEBOX_DEBUG_PORTS": str(self.debug).lower(),
            **self.settings,
        }
        log = self.target / f"{self.name}.log"
        with log.open("w") as file:
            self.process = subprocess.Popen([program(), "serve"], env={**os.environ, **variables}, stderr=file, stdout=file)
        wait_until(self.process, self.ready, lambda: f"the server did not become ready:\n{log.read_text()}")
        return self

    def ready(self):
        return answers("127.0.0.1", self.port, b"GET /readyz HTTP/1.1\r\nhost: sdk\r\nconnection: close\r\n\r\n", b"HTTP/1.1 200")

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Broken("the server did not stop within a minute") from None


def free_port(port):
    try:
        with socket.create_server(("127.0.0.1", port)) as found:
            return found.getsockname()[1]
    except OSError as err:
        raise Broken(f"port {port}, which clients dial in debug mode, cannot be listened on: {err}") from err


def answers(address, port, request=b"", beginning=b""):
    try:
        with socket.create_connection((address, port), 5) as stream:
            stream.sendall(request)
            return not beginning or stream.recv(len(beginning)) == beginning
    except OSError:
        return False


def wait_until(process, ready, error):
    deadline = time.monotonic() + 120
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise Broken(error() if callable(error) else error)
        time.sleep(0.1)


# The most characters printed of one line of a suite and of its whole output: a failed assertion may quote a flood of
# output.
MAX_LINE, MAX_OUTPUT = 4096, 262_144


def cut(text, most):
    """The text itself, or the beginning, the length and the end of a text with more than `most` characters."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}\n[... {len(text)} characters ...]\n{text[-half:]}"


def watch(title, command, where, variables, timeout_s):
    """Runs one suite with no `E2B_*` variables but these; returns whether it passed.

    A suite without a result line fails.
    """
    print(f"== {title}: begins", flush=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("E2B_")}
    output, has_result = [f"== {title}: output\n"], False
    child = subprocess.Popen(
        [str(part) for part in command],
        cwd=where,
        env={**inherited, **variables, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    alarm = threading.Timer(timeout_s, child.kill)
    alarm.start()
    for line in child.stdout:
        output.append(cut(line, MAX_LINE))
        has_result = has_result or re.match(r"test result: \w+\. \d+ passed; \d+ failed;", line)
    status = child.wait()
    alarm.cancel()
    if not has_result:
        output.append(f"test result: FAILED. 0 passed; 1 failed; the suite ended with status {status} and no result\n")
    # In one piece, because other suites run in parallel.
    print(cut("".join(output), MAX_OUTPUT), end="", flush=True)
    return bool(has_result) and status == 0
