"""Runs Python for the agent, one execution after another, in an IPython shell that keeps its variables."""

import sys

from oncebox_runner.main import main

if __name__ == "__main__":
    # The module path begins as for `python` without a script: with the current directory, not the runner's.
    sys.path[0] = ""
    sys.argv = [""]
    main()
