"""Acts on a library when the user's code imports it, and imports nothing by itself."""

import contextlib
import importlib.abc
import importlib.util
import sys


def after_import(name: str, action) -> None:
    """Calls `action` with a module as soon as it is imported."""
    if name in sys.modules:
        action(sys.modules[name])
    else:
        sys.meta_path.insert(0, _AfterImport(name, action))


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds one module as the other finders do, and calls the action when it is loaded."""

    def __init__(self, name, action):
        self._name, self._action = name, action

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_act(module):
            load(module)
            # With an unexpected version of the library the action may fail; the user's code can use the library all the
            # same.
            with contextlib.suppress(Exception):
                self._action(module)

        spec.loader.exec_module = load_and_act
        return spec
