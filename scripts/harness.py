"""What `sdk` and `letta` have in common: environments that are kept, the clients' DNS, a server, and the watch over a suite.

The clients' DNS is a dnsmasq that knows the one domain of the server and refuses every other name, so that nothing but this
machine can be reached by mistake. Listening on its port and giving it to the clients alone takes root.
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
# The control plane, commands and files, and the code interpreter, as clients in debug mode dial them.
DEBUG_PORTS = [3000, 49983, 49999]


class Broken(Exception):
    """What keeps the suites from being run at all."""


def run(*command, **options):
    try:
        subprocess.run([str(part) for part in command], check=True, **options)
    except (OSError, subprocess.CalledProcessError) as err:
        raise Broken(f"an environment could not be made: {err}") from err


def kept(home, wanted, make):
    """A directory that `make` fills, anew only if what is in the wanted files has changed since."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in wanted)).hexdigest()
    stamp = home / "stamp"
    if not stamp.exists() or stamp.read_text() != digest:
        print(f"installing {home.name}", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        make()
        stamp.write_text(digest)
    return home


class Names:
    """A DNS server for one domain, and the file that leads a client to it."""

    def __init__(self, target, domain, wildcard=True):
        number = secrets.randbelow(1 << 16)
        # All of 127.0.0.0/8 is this machine; another run beside this one has another address.
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

    def seen_by(self, command):
        """The command, with this DNS instead of the machine's own: a mount that nobody else sees."""
        return ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', self.file, *command]


class Server:
    """A server of its own, with TLS for a domain, and nothing warm but the code interpreter."""

    def __init__(self, target, name, domain, settings, debug=False):
        self.target, self.name, self.settings, self.debug = target, name, settings, debug
        # In debug mode clients dial ports that nobody can choose.
        ports = [free_port(port) for port in (DEBUG_PORTS if debug else [0])]
        tls = next(port for port in iter(lambda: free_port(0), None) if port not in DEBUG_PORTS)
        self.port, self.domain = ports[0], f"{domain}:{tls}"
        self.origin = f"http://127.0.0.1:{self.port}"
        self.certificates = target / "certificates"
        self.ca = str(self.certificates / "ca.pem")

    def __enter__(self):
        program = os.environ.get("ONCEBOX", str(ROOT / "target" / "release" / "oncebox"))
        run(program, "certs", "--domain", self.domain, "--out", self.certificates, stdout=subprocess.DEVNULL)
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
            self.process = subprocess.Popen([program, "serve"], env={**os.environ, **variables}, stderr=file, stdout=file)
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


def wait_until(process, ready, complaint):
    deadline = time.monotonic() + 120
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise Broken(complaint() if callable(complaint) else complaint)
        time.sleep(0.1)


# What is printed of one line of a suite, and of all that it said: a failed assertion may quote a flood of output.
MAX_LINE, MAX_SAID = 4096, 262_144


def cut(text, most):
    """The beginning and the end of a text that is longer than this, and how long it is."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}\n[... {len(text)} characters ...]\n{text[-half:]}"


def watch(title, command, where, variables, timeout_s):
    """Runs one suite with no `E2B_*` variables but these; whether it went well. One that ends without its last line did not."""
    print(f"== {title}: begins", flush=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("E2B_")}
    said, closed = [f"== {title}: what it said\n"], False
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
        said.append(cut(line, MAX_LINE))
        closed = closed or re.match(r"test result: \w+\. \d+ passed; \d+ failed;", line)
    status = child.wait()
    alarm.cancel()
    if not closed:
        said.append(f"test result: FAILED. 0 passed; 1 failed; the suite ended with status {status} and no result\n")
    # At once, because others run beside it.
    print(cut("".join(said), MAX_SAID), end="", flush=True)
    return bool(closed) and status == 0
