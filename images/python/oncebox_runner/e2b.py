"""Adds the features that E2B's interpreter has and Jupyter's lacks.

Imported when a request first asks for one of its formats.
Charts and tables are described as data, PIL shows the images it saves, plotly's `show` gives HTML too, and a few names
are predefined. A library is only touched once the user's code imports it.
"""

import contextlib
import functools
import os
import sys
import warnings
from typing import Any

import IPython
from IPython.core.formatters import BaseFormatter
from IPython.display import display
from traitlets import ObjectName, Unicode

from . import mime
from .imports import after_import

# A larger description is left out; the picture, the text and the HTML are still sent.
MAX_BYTES = 16 << 20
# Every point of a chart takes some microseconds to describe, and nobody reads more points than this.
MAX_POINTS = 200_000


class Extras:
    """Installs these features in a shell; `enable` chooses the formats before each execution."""

    def __init__(self, shell):
        self._shell = shell
        self._on = False
        self._knows_image = False
        self._formatters = [ChartFormatter(parent=shell.display_formatter), DataFormatter(parent=shell.display_formatter)]
        for formatter in self._formatters:
            shell.display_formatter.formatters[formatter.format_type] = formatter
        self._predefine(IPython=IPython, ip=shell, Any=Any)
        after_import("matplotlib.axes", self._remember_boxes)
        after_import("PIL.Image", self._show_saved_images)
        after_import("PIL.ImageShow", _show_here)
        after_import("plotly.io", _add_html)

    def enable(self, formats: list[str], code: str) -> None:
        """Prepares the execution of `code` for a caller that asks for `formats`."""
        self._on = bool(formats)
        for formatter in self._formatters:
            formatter.enabled = formatter.format_type in formats
        # PIL's class takes 10 ms to import: too long for code that does not mention it.
        if self._on and not self._knows_image and "Image" in code:
            self._knows_image = True
            # If PIL cannot be imported, the code runs without the predefined name.
            with contextlib.suppress(Exception):
                from PIL.Image import Image

                self._predefine(Image=Image)

    def _predefine(self, **names) -> None:
        for name, value in names.items():
            self._shell.user_ns.setdefault(name, value)
            self._shell.user_ns_hidden.setdefault(name, value)

    def _remember_boxes(self, module) -> None:
        from .charts import remember_boxes

        remember_boxes(module)

    def _show_saved_images(self, module) -> None:
        save = module.Image.save

        @functools.wraps(save)
        def save_and_show(image, fp, *args, **params):
            save(image, fp, *args, **params)
            # Images saved to memory are not shown: that is how images and figures are encoded for display.
            if self._on and isinstance(fp, (str, os.PathLike)):
                display(image)

        module.Image.save = save_and_show


class ChartFormatter(BaseFormatter):
    """Describes a matplotlib figure; `{}` stands for a figure that cannot be described."""

    format_type = Unicode("e2b/chart")
    print_method = ObjectName("_repr_e2b_chart_")
    _return_type = dict

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # Registered for the base class, because IPython removes the entry for `Figure` when a backend is chosen.
        self.for_type_by_name("matplotlib.figure", "FigureBase", _chart)


class DataFormatter(BaseFormatter):
    """Describes a table: its columns as lists."""

    format_type = Unicode("e2b/data")
    print_method = ObjectName("_repr_e2b_data_")
    _return_type = dict

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # Since pandas 3, the class names `pandas` as its module.
        for module in ("pandas", "pandas.core.frame"):
            self.for_type_by_name(module, "DataFrame", _table)


def _chart(figure) -> dict:
    try:
        points = sum(len(line.get_xdata()) for axes in figure.axes for line in axes.lines)
        points += sum(len(dots.get_offsets()) for axes in figure.axes for dots in axes.collections)
        if points > MAX_POINTS:
            return {}
        # Hides warnings about NaN and about deprecations in the libraries, which the user did not cause.
        with warnings.catch_warnings(action="ignore"):
            from .charts import describe

            return mime.json_value(describe(figure), MAX_BYTES, _plain)
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
    """The JSON form of a value in a cell or point: times as ISO 8601, missing values as null, all else as text."""
    if value is getattr(sys.modules.get("pandas"), "NA", ...):
        return None
    if hasattr(value, "isoformat") and not hasattr(value, "total_seconds"):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def _show_here(module) -> None:
    """Makes `image.show()` display the image. PIL's other viewers find no screen, and print long errors about it."""
    module._viewers[:] = [module.IPythonViewer()]


def _add_html(io) -> None:
    """Makes `figure.show()` send plotly's HTML too, library included, unless the user chose another renderer."""
    io.renderers["oncebox"] = io.base_renderers.HtmlRenderer()
    if io.renderers.default == "plotly_mimetype":
        io.renderers.default = "plotly_mimetype+oncebox"
