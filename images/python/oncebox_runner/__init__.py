"""The runner of the Python language: see `runner.py` beside this package."""
