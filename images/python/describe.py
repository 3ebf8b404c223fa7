"""Prints `language.json`: the command that starts the runner, and the installed versions of Python and the packages."""

import json
import platform
import re
from importlib.metadata import version
from pathlib import Path

requirements = Path(__file__).with_name("requirements.in").read_text()
names = re.findall(r"^[A-Za-z][\w.-]*", requirements, re.MULTILINE)
language = {
    "name": "python",
    # `-u` is for C's stdio too, so that the output of native code and child processes keeps its place.
    "command": ["/usr/bin/python3", "-u", "-X", "faulthandler", "/opt/oncebox/python/runner.py"],
    "version": platform.python_version(),
    "packages": {name: version(name) for name in sorted(names, key=str.lower)},
}
print(json.dumps(language, indent=2))
