"""A small Python runner, for tests that are not about a language. It has none of the features that the images add.

It speaks the protocol of `src/protocol/runner.rs` on the FIFOs that RUNNER_IN and RUNNER_OUT name.
"""

import ast
import json
import os
import signal
import sys
import traceback

requests = open(os.environ["RUNNER_IN"])
answers = open(os.environ["RUNNER_OUT"], "w", buffering=1)
variables = {"__name__": "__main__"}


def send(message):
    sys.stdout.flush()
    sys.stderr.flush()
    print(json.dumps(message), file=answers)


def execute(code):
    """Executes code and sends the value of its last expression as a result, in the formats that it has as `formats` too."""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<code>", "exec"), variables)
    value = last and eval(compile(ast.Expression(last.value), "<code>", "eval"), variables)
    if value is not None:
        data = {"text/plain": repr(value), **getattr(value, "formats", {})}
        send({"result": {"data": data, "main": True}})


def serve(request):
    os.environ.update(request["env"])
    if request["cwd"] is not None:
        os.chdir(request["cwd"])
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        execute(request["code"])
    except SystemExit as exit:
        return {"exit_code": exit.code if isinstance(exit.code, int) else 0}
    except BaseException as error:
        text = traceback.format_exc()
        return {"error": {"name": type(error).__name__, "value": str(error), "traceback": text}}
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return {}


signal.signal(signal.SIGINT, signal.SIG_IGN)
send({"ready": {}})
for line in requests:
    send({"done": serve(json.loads(line))})
