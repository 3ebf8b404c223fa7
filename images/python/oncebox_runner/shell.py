"""IPython's shell, which turns results, displays and errors into protocol messages."""

import asyncio
import builtins
import codeop
import gc
import os
import subprocess
import sys
import traceback
from contextlib import nullcontext, suppress

from IPython.core.autocall import ExitAutocall
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import StdinNotImplementedError
from IPython.core.interactiveshell import InteractiveShell
from traitlets import default
from traitlets.config import Config

from . import mime
from .errors import describe, exit_code, has_group, without_runner
from .figures import Formatter
from .program import Program
from .source import Compiler, LoneStrings, find_programs_lines, is_python, keep_empty_lines

# IPython lays out a container item by item, which takes too long for more items than this.
MAX_LAID_OUT = 10_000

INPUT = builtins.input

CONFIG = Config(
    InteractiveShell={"colors": "nocolor", "xmode": "Context"},
    HistoryManager={"enabled": False, "hist_file": ":memory:"},
    PlainTextFormatter={"max_seq_length": 0},
)


class Shell(InteractiveShell):
    """An `InteractiveShell` without a terminal, without files of its own, and with no output but the user's."""

    compiler_class = Compiler

    def __init__(self, **kwargs):
        #: Sends each `result` message; set once the runner is ready.
        self.send_result = lambda message: None
        self._failure: dict | None = None
        self._has_main = False
        self._extras = None
        self._pid = os.getpid()
        #: Whether the code is a cell of a notebook.
        self._is_notebook = False
        #: Whether the code asked to end this interpreter.
        self.quit = False
        self._runner = asyncio.Runner()
        self._program = Program(lambda: self.history_manager.input_hist_parsed)
        super().__init__(config=CONFIG, user_module=self._program.module, **kwargs)
        self.loop_runner = self._run_on_loop
        # Unfinished code is an error here; a terminal would ask for more lines.
        self.compile.flags &= ~codeop.PyCF_ALLOW_INCOMPLETE_INPUT
        find_programs_lines()
        keep_empty_lines(self.input_transformer_manager.cleanup_transforms)
        self.ast_transformers.append(LoneStrings())
        self._process = os.getpid()
        # Registered before pyplot's own action, which would draw each figure once more.
        self.events.register("post_execute", self._send_open_figures)
        self.set_hook("show_in_pager", self._print_help)
        self._prepare_formatters()

    def execute(self, code: str, mode: str | None = None, formats: list[str] = (), stdin: bool = True) -> dict:
        """Executes code and returns the members of its `done` message.

        `mode` is `script` or `notebook`, or `None` for the warm-up. `formats` are the mime types that the caller asks for
        in addition to the usual ones. Without `stdin`, `input` raises an error.
        """
        self._failure = None
        self._has_main = False
        self._is_notebook = mode == "notebook"
        self._enable_formats(formats, code)
        _open_input(stdin)
        self.compile.is_program = mode == "script"
        if mode == "script":
            self._program.begin(code)
        result = self.run_cell(code.removeprefix("\ufeff"), store_history=True)
        if mode == "script" and result.error_in_exec is not None:
            self._call_own_hook(result.error_in_exec)
        error = result.error_in_exec if result.error_before_exec is None else result.error_before_exec
        self.quit = isinstance(error, Quit)
        # In a notebook `SystemExit` is an error like any other, but a child of the user's own `os.fork()` does exit.
        if isinstance(error, SystemExit) and (self.quit or not self._is_notebook or os.getpid() != self._pid):
            return {"exit_code": exit_code(error)}
        # Every traceback that IPython showed is a failure, for example of a script of %run or of a figure that cannot
        # be drawn.
        if self._failure is None and error is not None:
            self._failure = describe(error)
        return self._failure or {}

    def publish(self, bundle: dict, main: bool) -> None:
        """Sends a value or a display, after flushing the output that was printed before it."""
        self.flush()
        # Only the first is the value, because code may call the display hook itself.
        main, self._has_main = main and not self._has_main, self._has_main or main
        self.send_result({"result": {"data": mime.encode(bundle), "main": main}})

    def flush(self) -> None:
        """Flushes the user's streams, and ignores errors, because the code may have replaced or closed them."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass

    def forget(self) -> None:
        """Restores the state before the first execution."""
        self.reset(new_session=True)
        self.compile._filename_map.clear()
        for name in ("last_exc", "last_type", "last_value", "last_traceback"):
            if hasattr(sys, name):
                delattr(sys, name)

    def reset(self, *args, **kwargs):
        """Clears the variables, except the attributes of `__main__`: `multiprocessing` reads its `__spec__`."""
        super().reset(*args, **kwargs)
        self.user_ns.update(dict.fromkeys(("__doc__", "__loader__", "__package__", "__spec__")))

    def _enable_formats(self, formats, code):
        """Enables these formats for outputs; imports nothing if there are none."""
        if formats and self._extras is None:
            from .e2b import Extras

            self._extras = Extras(self)
        if self._extras is not None:
            self._extras.enable(formats, code)

    # Running code

    async def run_code(self, code_obj, result=None, *, async_=False):
        """Executes compiled code like IPython's method, except that `SystemExit` is an outcome and not a warning."""
        try:
            if async_:
                await eval(code_obj, self.user_global_ns, self.user_ns)
            else:
                exec(code_obj, self.user_global_ns, self.user_ns)
        except BaseException as error:
            if async_ and isinstance(error, asyncio.CancelledError) and asyncio.current_task().cancelling():
                # asyncio turns SIGINT into a cancellation; the user expects a KeyboardInterrupt.
                error = KeyboardInterrupt().with_traceback(error.__traceback__)
            if result is not None:
                result.error_in_exec = error
            self.showtraceback((type(error), error, error.__traceback__), running_compiled_code=True)
            return True
        return False

    def _send_open_figures(self):
        """Sends the figures that are open when the code has ended. The code's own failure comes before theirs."""
        failure = self._failure
        self.display_formatter.send_open_figures()
        self._failure = failure or self._failure

    def transform_cell(self, raw_cell):
        """Turns `%` and `!` commands into Python, and leaves Python alone: IPython would drop prompts from its strings."""
        if "\n" not in raw_cell.strip() or not is_python(raw_cell):
            return super().transform_cell(raw_cell)
        return raw_cell if raw_cell.endswith("\n") else raw_cell + "\n"

    def _run_on_loop(self, coroutine):
        if self._runner.get_loop().is_closed():
            self._runner = asyncio.Runner()
        return self._runner.run(coroutine)

    def clear_variables(self):
        """Releases the user's objects, as Python clears the module of a program at its end."""
        collect = "__del__" in self.history_manager.input_hist_raw[-1]
        self.history_manager.output_hist.clear()
        for name in list(self.user_ns):
            if name != "__builtins__":
                self.user_ns[name] = None
        # Takes too long for code without finalizers, which would not notice it.
        if collect:
            gc.collect()

    def close_loop(self):
        """Cancels tasks that are left on the event loop, as `asyncio.run` does at its end."""
        if not self._runner.get_loop().is_closed():
            with suppress(Exception):
                self._runner.close()

    def system(self, cmd):
        """Runs `!cmd` on the runner's own stdout and stderr, so that all output keeps its order."""
        cmd = self.var_expand(cmd, depth=1)
        self.user_ns["_exit_code"] = subprocess.call(cmd, shell=True, executable="/bin/bash")

    system_piped = system_raw = system

    # Errors

    def showtraceback(self, exc_tuple=None, *args, **kwargs):
        """Keeps the error for `done`.

        `SystemExit` is an error in notebooks only; IPython cannot format exception groups.
        """
        etype, error, tb = self._get_exc_info(exc_tuple)
        if isinstance(error, SystemExit):
            if self._is_notebook:
                self._failure = describe(error)
            return
        tb = without_runner(tb, self.compile.names())
        # A forked child reports its error as Python itself does. IPython needs much memory for that, and the children of a
        # fork bomb fail all at once.
        if has_group(error) or os.getpid() != self._process:
            self._showtraceback(etype, error, ["".join(traceback.format_exception(etype, error, tb))])
        else:
            with self._program.hidden():
                super().showtraceback((etype, error, tb), *args, **kwargs)

    def _call_own_hook(self, error):
        """Calls the `sys.excepthook` of a program, if it has set one."""
        if sys.excepthook is not sys.__excepthook__ and not isinstance(error, SystemExit):
            try:
                sys.excepthook(type(error), error, without_runner(error.__traceback__, self.compile.names()))
            except Exception:
                traceback.print_exc()

    def _showtraceback(self, etype, evalue, stb):
        self._failure = describe(evalue, "\n".join(stb))

    def show_usage_error(self, exc):
        """Keeps the error of a wrongly used magic, without a traceback."""
        self._failure = describe(exc)

    def _format_exception_for_storage(self, exception, **kwargs):
        # IPython would format every traceback a second time, to save it in a notebook, which does not exist here.
        return {}

    # Parts of IPython that are disabled or replaced

    def init_ipython_dir(self, ipython_dir):
        """Does nothing: no configuration, extension or history is read from or written to the home directory."""

    def init_profile_dir(self, profile_dir):
        """Uses no directory: the data that magics would store there lives as long as the shell."""
        self.db = {}

    def enable_gui(self, gui=None):
        """Does nothing, because there is no screen. `%matplotlib inline` calls this."""

    def init_user_ns(self):
        """Leaves out IPython's own `open`, which refuses `open(0)`."""
        super().init_user_ns()
        del self.user_ns["open"], self.user_ns_hidden["open"]

    def init_display_formatter(self):
        """Formats figures too."""
        self.display_formatter = Formatter(parent=self)
        self.configurables.append(self.display_formatter)

    def init_displayhook(self):
        """Sends values as protocol messages."""
        self.displayhook_class = ValueHook
        super().init_displayhook()

    def init_display_pub(self):
        """Sends displays as protocol messages."""
        self.display_pub_class = Publisher
        super().init_display_pub()

    def _tee(self, channel):
        # IPython would keep a copy of all output, and replace the streams' `write`.
        return nullcontext()

    @default("exiter")
    def _exiter_default(self):
        return Exit(self)

    def exit(self, code):
        """Ends the code, as in Python itself; in a notebook, ends the interpreter with all its variables."""
        raise Quit(code) if self._is_notebook else SystemExit(code)

    def _print_help(self, shell, data, start, screen_lines):
        """Prints the help text of `print?`, which a terminal shows in a pager. Notebooks show nothing."""
        if not self._is_notebook:
            print(data["text/plain"] if isinstance(data, dict) else data)

    def _prepare_formatters(self):
        formatters = self.display_formatter.formatters
        for kind in (dict, list):
            formatters["application/json"].for_type(kind, _json_or_none)
        # Plotly's own display method sends its whole library first, twice; its mime bundle is sufficient.
        self.display_formatter.ipython_display_formatter.for_type_by_name(
            "plotly.basedatatypes", "BaseFigure", _refuse_own_display
        )
        text = formatters["text/plain"]
        for kind in (dict, list, tuple, set, frozenset):
            text.for_type(kind, _unless_large(text.type_printers[kind]))


class ValueHook(DisplayHook):
    """Publishes the value of the last expression."""

    def write_output_prompt(self):
        """Writes nothing: there is no prompt."""

    def write_format_data(self, format_dict, md_dict=None):
        """Sends the value."""
        self.shell.publish(format_dict, main=True)

    def log_output(self, format_dict):
        """Does nothing: there is no log."""

    def finish_displayhook(self):
        """Writes no separator."""
        self._is_active = False


class Publisher(DisplayPublisher):
    """Publishes the code's displays. Updates and clearing have no effect, because they need a screen."""

    def publish(self, data, metadata=None, source=None, *, transient=None, update=False, **kwargs):
        """Sends one display."""
        if not update:
            self.shell.publish(data, main=False)

    def clear_output(self, wait=False):
        """Does nothing: a display that was sent cannot be taken back."""


class Exit(ExitAutocall):
    """`exit`, `exit()` and `exit(3)`."""

    def __call__(self, code=None):
        self._ip.exit(code)


class Quit(SystemExit):
    """Ends an interpreter that would otherwise be kept."""


def _json_or_none(value):
    try:
        return mime.json_value(value)
    except ValueError:
        return None


def _refuse_own_display(figure):
    raise NotImplementedError


def _unless_large(lay_out):
    def printer(value, p, cycle):
        if len(value) > MAX_LAID_OUT:
            p.text(repr(value))
        else:
            lay_out(value, p, cycle)

    return printer


def _open_input(stdin):
    """Gives the code the built-in `input`, or one that raises an error."""
    if builtins.input is (_refuse_input if stdin else INPUT):
        builtins.input = INPUT if stdin else _refuse_input


def _refuse_input(prompt="", /):
    raise StdinNotImplementedError("raw_input was called, but this frontend does not support input requests.")
