"""Interpreters beside the default ones."""

import threading
import time

import pytest
from e2b import InvalidArgumentException, NotFoundException, SandboxException


@pytest.mark.covers("sandbox.create_code_context", "sandbox.run_code")
def test_a_context_has_a_directory_and_variables_of_its_own(shared):
    context = shared.create_code_context(cwd="/tmp")
    assert (context.language, context.cwd) == ("python", "/tmp")
    assert shared.run_code("import os; os.getcwd()", context=context).text == "/tmp"
    shared.run_code("own = 1", context=context)
    assert shared.run_code("'own' in globals()").text == "False"
    assert shared.run_code("own", context=context).text == "1"


@pytest.mark.covers("sandbox.create_code_context")
@pytest.mark.parametrize(("language", "name", "code"), [("js", "javascript", "process.cwd()"), ("r", "r", "cat(getwd())")])
def test_a_context_of_another_language(shared, language, name, code):
    context = shared.create_code_context(cwd="/tmp", language=language)
    assert (context.language, context.cwd) == (name, "/tmp")
    execution = shared.run_code(code, context=context)
    assert "/tmp" in "".join(execution.logs.stdout) + str(execution.text)


@pytest.mark.covers("sandbox.create_code_context")
def test_a_directory_that_is_not_there_leaves_the_interpreter_where_it_is(shared):
    context = shared.create_code_context(cwd="/no/such/directory")
    assert shared.run_code("1", context=context).text == "1"


@pytest.mark.covers("sandbox.create_code_context", "sandbox.run_code")
def test_contexts_run_beside_each_other(shared):
    contexts = [shared.create_code_context() for _ in range(2)]
    spans = []

    def run(context):
        begin = time.monotonic()
        shared.run_code("import time; time.sleep(1.5)", context=context)
        spans.append((begin, time.monotonic()))

    threads = [threading.Thread(target=run, args=(context,)) for context in contexts]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert max(end for _, end in spans) - min(begin for begin, _ in spans) < 2.6


@pytest.mark.covers("sandbox.run_code")
def test_a_context_and_a_language_together_are_refused(shared):
    context = shared.create_code_context()
    with pytest.raises((InvalidArgumentException, SandboxException, ValueError)):
        shared.run_code("1", language="python", context=context)


@pytest.mark.covers("sandbox.list_code_contexts", "sandbox.create_code_context")
def test_contexts_are_listed(sandbox):
    before = {context.id for context in sandbox.list_code_contexts()}
    made = [sandbox.create_code_context(cwd="/tmp"), sandbox.create_code_context(language="js")]
    listed = [context for context in sandbox.list_code_contexts() if context.id not in before]
    assert [(c.id, c.language, c.cwd) for c in listed] == [(c.id, c.language, c.cwd) for c in made]


@pytest.mark.covers("sandbox.list_code_contexts")
def test_python_is_there_from_the_start(sandbox):
    assert [(context.language, context.cwd) for context in sandbox.list_code_contexts()][:1] == [("python", "/home/user")]


@pytest.mark.covers("sandbox.restart_code_context")
def test_a_restarted_context_keeps_its_name_and_nothing_else(sandbox):
    context = sandbox.create_code_context()
    sandbox.run_code("own = 1", context=context)
    sandbox.restart_code_context(context)
    execution = sandbox.run_code("'own' in globals()", context=context)
    assert (execution.text, execution.execution_count) == ("False", 1)
    assert context.id in [context.id for context in sandbox.list_code_contexts()]


@pytest.mark.covers("sandbox.restart_code_context")
def test_a_restart_ends_what_the_context_runs(sandbox, later):
    context = sandbox.create_code_context()
    later(1, lambda: sandbox.restart_code_context(context))
    error = sandbox.run_code("import time; time.sleep(60)", context=context, timeout=20).error
    assert (error.name, error.value) == ("ContextRestarting", "Context was restarted")


@pytest.mark.covers("sandbox.remove_code_context", "sandbox.list_code_contexts")
def test_a_removed_context_is_gone(sandbox):
    context = sandbox.create_code_context()
    sandbox.remove_code_context(context)
    assert context.id not in [context.id for context in sandbox.list_code_contexts()]
    for call in (lambda: sandbox.run_code("1", context=context), lambda: sandbox.restart_code_context(context)):
        with pytest.raises((NotFoundException, SandboxException), match=f"Context {context.id} not found"):
            call()
