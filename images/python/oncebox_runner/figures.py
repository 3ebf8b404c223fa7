"""Makes figures of matplotlib outputs of the code, whichever backend it chooses.

The default is the backend of notebooks, which closes a figure once it is shown. Others, such as Agg, keep it open.
"""

import sys
import weakref
from contextlib import suppress

from IPython.core.formatters import DisplayFormatter

from .imports import after_import

DEFAULT_BACKEND = "module://matplotlib_inline.backend_inline"


class Formatter(DisplayFormatter):
    """IPython's formatter of values and displays, which remembers what it made of each figure."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        #: The figures that were sent, and a hash of the forms in which they were.
        self._sent = weakref.WeakKeyDictionary()
        after_import("matplotlib", _set_default_backend)
        after_import("matplotlib.backend_bases", self._show_without_screen)
        after_import("matplotlib_inline.backend_inline", self._replace_flush)

    def format(self, value, include=None, exclude=None):
        """Returns the forms of a value, and their metadata."""
        if not isinstance(value, getattr(sys.modules.get("matplotlib.figure"), "Figure", ())):
            return super().format(value, include, exclude)
        self._prepare_for_figures()
        data, metadata = super().format(value, include, exclude)
        self._sent[value] = hash(tuple((mime, form if isinstance(form, bytes) else repr(form)) for mime, form in data.items()))
        # Whatever changes the figure from here on sets it again.
        value.stale = False
        return data, metadata

    def send_open_figures(self):
        """Sends every open figure that was not sent as it is, and closes them if the backend does that."""
        managers = _managers()
        for manager in managers:
            self._send(manager.canvas.figure)
        if managers and _closes_figures():
            sys.modules["matplotlib.pyplot"].close("all")

    def _send(self, figure):
        before = self._sent.get(figure)
        if before is not None and not figure.stale:
            return
        data, metadata = self.format(figure)
        # Saving a figure, for one, makes it stale but does not change it.
        if self._sent[figure] != before:
            self.parent.display_pub.publish(data, metadata)

    def _prepare_for_figures(self):
        from matplotlib_inline.backend_inline import configure_inline_support

        # The notebooks' backend does this for itself.
        if not hasattr(configure_inline_support, "current_backend"):
            configure_inline_support(self.parent, "agg")

    def _show_without_screen(self, module):
        """Makes `show` of the backends without a screen send figures. Without it, the method does nothing."""
        module.FigureManagerBase.show = lambda manager: self._send(manager.canvas.figure)

    def _replace_flush(self, backend):
        """Keeps the notebooks' backend from sending all open figures at the end of the code."""
        with suppress(ValueError):
            self.parent.events.unregister("post_execute", backend.flush_figures)
        backend.flush_figures = lambda: None


def _managers():
    helpers = sys.modules.get("matplotlib._pylab_helpers")
    return helpers.Gcf.get_all_fig_managers() if helpers else []


def _closes_figures():
    from matplotlib import get_backend
    from matplotlib_inline.config import InlineBackend

    return get_backend() in ("inline", DEFAULT_BACKEND) and InlineBackend.instance().close_figures


def _set_default_backend(matplotlib):
    """Chooses the backend, unless a variable or a file of the user does. A variable would reach child processes too,
    where that backend has nobody to send figures to, and prints about them.
    """
    if dict.__getitem__(matplotlib.rcParams, "backend") is matplotlib.rcsetup._auto_backend_sentinel:
        matplotlib.rcParams["backend"] = DEFAULT_BACKEND
