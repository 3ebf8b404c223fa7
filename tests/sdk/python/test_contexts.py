"""Contexts in addition to the default ones."""

import threading

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
@pytest.mark.parametrize("language", ["python", "js", "r"])
def test_a_context_in_the_home_of_root(shared, language):
    context = shared.create_code_context(cwd="/root", language=language)
    assert context.cwd == "/root"
    code = {"python": "import os; os.getcwd()", "js": "process.cwd()", "r": "cat(getwd())"}[language]
    execution = shared.run_code(code, context=context)
    assert "/root" in "".join(execution.logs.stdout) + str(execution.text)


@pytest.mark.covers("sandbox.create_code_context")
def test_a_directory_that_is_not_there_is_refused_by_name(shared):
    with pytest.raises(Exception, match="/no/such/directory"):
        shared.create_code_context(cwd="/no/such/directory")


@pytest.mark.covers("sandbox.create_code_context", "sandbox.run_code")
def test_contexts_run_beside_each_other(shared):
    contexts = [shared.create_code_context() for _ in range(2)]
    texts = {}

    def run(own, other):
        wait = f"while not os.path.exists('/tmp/beside-{other}'): time.sleep(.02)"
        code = f"import os, time\nopen('/tmp/beside-{own}', 'w')\n{wait}\n'met'"
        texts[own] = shared.run_code(code, context=contexts[own], timeout=60).text

    # Each context waits for the other: one after the other, the first would wait in vain.
    threads = [threading.Thread(target=run, args=pair) for pair in [(0, 1), (1, 0)]]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert texts == {0: "met", 1: "met"}


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
def test_a_restart_ends_what_the_context_runs(sandbox):
    context = sandbox.create_code_context()
    code = "import time; print('on', flush=True); time.sleep(600)"
    error = sandbox.run_code(code, context=context, timeout=60, on_stdout=lambda _: sandbox.restart_code_context(context)).error
    assert (error.name, error.value) == ("ContextRestarting", "Context was restarted")


@pytest.mark.covers("sandbox.remove_code_context", "sandbox.list_code_contexts")
def test_a_removed_context_is_gone(sandbox):
    context = sandbox.create_code_context()
    sandbox.remove_code_context(context)
    assert context.id not in [context.id for context in sandbox.list_code_contexts()]
    for call in (lambda: sandbox.run_code("1", context=context), lambda: sandbox.restart_code_context(context)):
        with pytest.raises((NotFoundException, SandboxException), match=f"Context {context.id} not found"):
            call()
