"""Prints `language.json`: how to start the runner, and what is installed, asked of the installation itself."""

import json
import platform
import re
from importlib.metadata import version
from pathlib import Path

requirements = Path(__file__).with_name("requirements.in").read_text()
names = re.findall(r"^[A-Za-z][\w.-]*", requirements, re.MULTILINE)
language = {
    "name": "python",
    # Unbuffered, C's stdio included: the output of native code and child processes keeps its place.
    "command": ["/usr/bin/python3", "-u", "-X", "faulthandler", "/opt/oncebox/python/runner.py"],
    "version": platform.python_version(),
    "packages": {name: version(name) for name in sorted(names, key=str.lower)},
}
print(json.dumps(language, indent=2))
