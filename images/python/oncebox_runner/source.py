"""Keeps IPython from changing code that is Python already."""

import ast
import warnings

from IPython.core import ultratb
from IPython.core.compilerop import CachingCompiler
from IPython.core.inputtransformer2 import leading_empty_lines

from .program import NAMES


class Compiler(CachingCompiler):
    """A compiler that gives a program the file name of a program."""

    #: Whether the code is a program, and not a cell of a notebook.
    is_program = False

    def get_code_name(self, raw_code, transformed_code, number):
        """The name of the file in tracebacks, warnings and logs."""
        return NAMES[0] if self.is_program else super().get_code_name(raw_code, transformed_code, number)

    def names(self):
        """The names of the files of all code so far."""
        return self._filename_map


class LoneStrings(ast.NodeTransformer):
    """Drops strings between statements. IPython compiles each statement by itself, so that each would be `__doc__`."""

    def visit_Module(self, module):
        """Keeps the first statement, which is the docstring, and the last, which is the value."""
        body = module.body
        body[1:-1] = [node for node in body[1:-1] if not (isinstance(node, ast.Expr) and _is_string(node.value))]
        return module


def is_python(code: str) -> bool:
    """Whether the code is Python, also if it awaits outside a function."""
    try:
        # What it warns of is reported when it is compiled.
        with warnings.catch_warnings(action="ignore"):
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def find_programs_lines() -> None:
    """Lets IPython's tracebacks find the lines of a program in memory, where it would look for a file."""
    count = ultratb.get_line_number_of_frame
    ultratb.get_line_number_of_frame = lambda frame: 0 if frame.f_code.co_filename == NAMES[0] else count(frame)


def keep_empty_lines(transformers: list) -> None:
    """Lets code begin with empty lines, so that the numbers of its lines are right."""
    transformers[transformers.index(leading_empty_lines)] = _drop_empty_lines_before_cell_magic


def _drop_empty_lines_before_cell_magic(lines):
    rest = leading_empty_lines(lines)
    return rest if rest and rest[0].startswith("%%") else lines


def _is_string(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
