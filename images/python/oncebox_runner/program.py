"""The code as a file, for what needs one: `__file__`, and processes that `multiprocessing` starts afresh.

The file is written when something first asks for it.
"""

import ast
import os
import sys
import tempfile
from contextlib import contextmanager, suppress
from types import ModuleType

from .imports import after_import

# The first is the name of the program for those who ask; the second is used where the code has a file of that name.
NAMES = ("main.py", "__main__.py")

# Calls that make something to be found under a name, and do nothing else.
MAKERS = {"NewType", "TypeVar", "getLogger", "namedtuple"}


class Program:
    """The module `__main__`, in which all code runs, and its files. `cells` returns all code that ran in it."""

    def __init__(self, cells):
        program = self

        class Main(ModuleType):
            def __getattr__(self, name):
                if name == "__file__" and program._code is not None and not program._hidden:
                    self.__file__ = program._write(program._code)
                    return self.__file__
                raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

        self.module = Main("__main__")
        self._cells = cells
        #: The code of a program; `None` in a notebook, whose module has no file.
        self._code: str | None = None
        self._hidden = False
        #: The definitions that were last written for other processes, and their file.
        self._definitions = ("", "")
        after_import("multiprocessing.spawn", self._import_in_processes)

    def begin(self, code: str) -> None:
        """Prepares for the execution of a program."""
        self._code = code
        sys.argv = [NAMES[0]]
        # A name that is not in the module is not asked of its `__getattr__`.
        if "__file__" in code:
            with suppress(OSError):
                self.module.__file__ = self._write(code, os.getcwd())

    @contextmanager
    def hidden(self):
        """Has no file meanwhile, for what asks every module for one and needs none."""
        self._hidden = True
        try:
            yield
        finally:
            self._hidden = False

    def _write(self, text: str, directory: str | None = None) -> str:
        """Writes a file into `directory`, if that can be, or else into a hidden one; returns its path."""
        for name in NAMES if directory else ():
            path = os.path.join(directory, name)
            with suppress(OSError), open(path, "x", encoding="utf-8", errors="replace", newline="") as file:
                file.write(text)
                return path
        return self._write(text, tempfile.mkdtemp(prefix=".main-"))

    def _import_in_processes(self, module) -> None:
        prepare = module.get_preparation_data

        def get_preparation_data(name):
            data = prepare(name)
            path = self._file_for_processes()
            if path:
                data["init_main_from_path"] = path
            return data

        module.get_preparation_data = get_preparation_data

    def _file_for_processes(self) -> str:
        """The file from which other processes get the code's functions and classes.

        A program is run once more, as Python does. Of a notebook, and of code that only IPython understands, they get
        definitions alone.
        """
        if self._code is not None and _is_plain(self._code):
            return self.module.__file__
        text = definitions(self._cells())
        if text != self._definitions[0]:
            self._definitions = text, self._write(text)
        return self._definitions[1]


def definitions(cells: list[str]) -> str:
    """The imports, functions, classes and constants of some code. What cannot be defined again is left out."""
    first, rest = [], []
    for cell in cells:
        with suppress(SyntaxError):
            for statement in ast.parse(cell).body:
                if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
                    first.append(statement)
                elif _defines(statement):
                    skip = ast.ExceptHandler(ast.Name("Exception"), None, [ast.Pass()])
                    rest.append(ast.Try([statement], [skip], [], []))
    return ast.unparse(ast.Module(first + rest, []))


def _defines(statement):
    if isinstance(statement, (ast.Assign, ast.AnnAssign)):
        value = statement.value
        if isinstance(value, ast.Call):
            return getattr(value.func, "attr", getattr(value.func, "id", None)) in MAKERS
        with suppress(ValueError, TypeError, SyntaxError):
            ast.literal_eval(value)
            return True
        return False
    if isinstance(statement, ast.Try):
        return all(map(_defines, statement.body))
    return isinstance(statement, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))


def _is_plain(code):
    """Whether Python itself understands the code."""
    try:
        compile(code, NAMES[0], "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True
