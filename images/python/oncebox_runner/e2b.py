"""What E2B's interpreter does that Jupyter's does not; imported when a request first asks for one of its formats.

Charts and tables are described as data, PIL shows the images it saves, plotly's `show` gives HTML too, and a few names are there
from the start. What these need is imported when the user's code imports what they are about.
"""

import contextlib
import functools
import importlib.abc
import importlib.util
import os
import sys
import warnings
from typing import Any

import IPython
from IPython.core.formatters import BaseFormatter
from IPython.display import display
from traitlets import ObjectName, Unicode

from . import mime

# A description larger than this is left out; picture, text and HTML are still there.
MAX_BYTES = 16 << 20
# In a chart every point takes some microseconds to describe, and more of them than this nobody reads.
MAX_POINTS = 200_000


class Extras:
    """Installs it all in a shell; `enable` says, before each execution, what of it is wanted."""

    def __init__(self, shell):
        self._shell = shell
        self._on = False
        self._knows_image = False
        self._formatters = [ChartFormatter(parent=shell.display_formatter), DataFormatter(parent=shell.display_formatter)]
        for formatter in self._formatters:
            shell.display_formatter.formatters[formatter.format_type] = formatter
        self._name(IPython=IPython, ip=shell, Any=Any)
        _after_import("PIL.Image", self._show_what_is_saved)
        _after_import("PIL.ImageShow", _show_here)
        _after_import("plotly.io", _add_html)

    def enable(self, formats: list[str], code: str) -> None:
        """Prepares the execution of `code` for a caller who wants `formats`."""
        self._on = bool(formats)
        for formatter in self._formatters:
            formatter.enabled = formatter.format_type in formats
        # PIL's class takes 10 ms to import: too long for code that does not know of it.
        if self._on and not self._knows_image and "Image" in code:
            self._knows_image = True
            # Without it, the code runs as far as it can.
            with contextlib.suppress(Exception):
                from PIL.Image import Image

                self._name(Image=Image)

    def _name(self, **names) -> None:
        for name, value in names.items():
            self._shell.user_ns.setdefault(name, value)
            self._shell.user_ns_hidden.setdefault(name, value)

    def _show_what_is_saved(self, module) -> None:
        save = module.Image.save

        @functools.wraps(save)
        def save_and_show(image, fp, *args, **params):
            save(image, fp, *args, **params)
            # Not what is written to memory: that is how images and figures are made ready to be displayed.
            if self._on and isinstance(fp, (str, os.PathLike)):
                display(image)

        module.Image.save = save_and_show


class ChartFormatter(BaseFormatter):
    """Describes a figure of matplotlib's; `{}` is one that cannot be described."""

    format_type = Unicode("e2b/chart")
    print_method = ObjectName("_repr_e2b_chart_")
    _return_type = dict

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # The base of `Figure`, whose own entry is thrown out of all formatters when a backend is chosen.
        self.for_type_by_name("matplotlib.figure", "FigureBase", _chart)


class DataFormatter(BaseFormatter):
    """Gives a table's columns as lists."""

    format_type = Unicode("e2b/data")
    print_method = ObjectName("_repr_e2b_data_")
    _return_type = dict

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # The class says that it is at home in `pandas` since version 3.
        for module in ("pandas", "pandas.core.frame"):
            self.for_type_by_name(module, "DataFrame", _table)


def _chart(figure) -> dict:
    try:
        points = sum(len(line.get_xdata()) for axes in figure.axes for line in axes.lines)
        points += sum(len(dots.get_offsets()) for axes in figure.axes for dots in axes.collections)
        if points > MAX_POINTS:
            return {}
        # Of numbers that are no numbers, and of what is about to change in the libraries, the user need not know.
        with warnings.catch_warnings(action="ignore"):
            from e2b_charts import chart_figure_to_dict

            return mime.json_value(chart_figure_to_dict(figure), MAX_BYTES, _plain)
    except Exception:
        return {}


def _table(frame) -> dict | None:
    if frame.size * 8 > MAX_BYTES:
        return None
    try:
        columns = {name if isinstance(name, str) else str(name): column.tolist() for name, column in frame.items()}
        return mime.json_value(columns, MAX_BYTES, _plain)
    except Exception:
        return None


def _plain(value: object) -> object:
    """The form in JSON of what is in cells and points: times as ISO 8601, missing values as null, the rest as text."""
    if value is getattr(sys.modules.get("pandas"), "NA", ...):
        return None
    if hasattr(value, "isoformat") and not hasattr(value, "total_seconds"):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def _show_here(module) -> None:
    """Lets `image.show()` display it; programs that would open a window find no screen, and say so on stderr at length."""
    module._viewers[:] = [module.IPythonViewer()]


def _add_html(io) -> None:
    """Makes `figure.show()` give plotly's HTML too, with the library in it, as the value does; unless the user chose another."""
    io.renderers["oncebox"] = io.base_renderers.HtmlRenderer()
    if io.renderers.default == "plotly_mimetype":
        io.renderers.default = "plotly_mimetype+oncebox"


def _after_import(name: str, action) -> None:
    """Calls `action` with a module as soon as it is imported."""
    if name in sys.modules:
        action(sys.modules[name])
    else:
        sys.meta_path.insert(0, _AfterImport(name, action))


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds its module where the others do, and acts when it is loaded."""

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
            # A version of the library that is not as expected is the user's to use nevertheless.
            with contextlib.suppress(Exception):
                self._action(module)

        spec.loader.exec_module = load_and_act
        return spec
