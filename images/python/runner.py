"""Runs Python for the agent, one execution after another, in an IPython shell that keeps its variables."""

import sys

from oncebox_runner.main import main

if __name__ == "__main__":
    # From here on the path is that of `python` without a script: the current directory, not the runner's.
    sys.path[0] = ""
    sys.argv = [""]
    main()
