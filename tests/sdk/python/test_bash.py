"""Bash as a language of the code interpreter: it prints lines, keeps its variables, and ends with a status."""

import time

import pytest
from e2b import TimeoutException

pytestmark = pytest.mark.covers("sandbox.run_code")


@pytest.fixture
def bash(shared):
    return lambda code, **options: shared.run_code(code, language="bash", **options)


def test_each_line_is_an_event_and_errors_are_among_them(bash):
    execution = bash("echo 'Hello, World!'; echo wrong >&2; printf 'two\\nlines'")
    assert execution.logs.stdout == ["Hello, World!\n", "wrong\n", "two\n", "lines"]
    assert (execution.logs.stderr, execution.results, execution.error) == ([], [], None)


def test_lines_arrive_whole_however_long_and_many(bash):
    assert bash("seq 30000").logs.stdout == [f"{i}\n" for i in range(1, 30_001)]
    assert bash("head -c 300000 /dev/zero | tr '\\0' x; echo").logs.stdout == ["x" * 300_000 + "\n"]
    assert bash("printf 'a\\0\\xff\\n'").logs.stdout == ["a\0\ufffd\n"]


def test_lines_arrive_as_they_are_printed(bash, shared):
    seen = []

    def hear(message):
        seen.append(message.line)
        shared.files.write(f"/tmp/heard-{len(seen)}", "")

    # The code waits until the callback has received a line.
    bash("for i in 1 2 3; do echo $i; until [ -e /tmp/heard-$i ]; do sleep .02; done; done", on_stdout=hear, timeout=60)
    assert seen == ["1\n", "2\n", "3\n"]


@pytest.mark.parametrize(("code", "status"), [("false", "1"), ("no_such_command", "127"), ("(exit 3)", "3"), ("true | false", "1")])
def test_a_status_that_is_not_zero_is_an_error(bash, code, status):
    error = bash(code).error
    assert (error.name, error.value, error.traceback) == ("", status, "")


def test_variables_functions_and_the_directory_stay(bash):
    bash("kept='a  b'; greet() { echo \"hi $1\"; }; cd /tmp; shopt -s extglob; alias now='echo aliased'; exec 10>/tmp/ten")
    execution = bash('echo "$kept"; greet you; pwd; now; echo through >&10; cat /tmp/ten')
    assert "".join(execution.logs.stdout) == "a  b\nhi you\n/tmp\naliased\nthrough\n"


def test_code_within_open_quotes_prints_nothing_and_does_not_run(bash):
    execution = bash("echo before; open=1\necho 'unfinished")
    assert execution.logs.stdout == [] and execution.error.value == "2"
    assert bash('echo "[$open]"').logs.stdout == ["[]\n"]
    error = bash("echo )")
    assert "syntax error" in error.logs.stdout[0] and error.error.value == "2"


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("exit 3", "exit\n"),
        ("echo last; exit", "last\nexit\n"),
        ("kill -9 $$", ""),
        ("set -e; false; echo unreached", ""),
        ("exec echo instead", "instead\n"),
        ("trap 'echo trapped' EXIT; exit", "exit\ntrapped\n"),
    ],
)
def test_a_shell_that_ends_is_followed_by_a_fresh_one(bash, code, printed):
    bash("gone=1")
    execution = bash(code)
    assert "".join(execution.logs.stdout) == printed + "Restarting Bash\n" and execution.error is None
    assert bash('echo "[$gone]"; pwd').logs.stdout == ["[]\n", "/home/user\n"]


@pytest.mark.parametrize("code", ["sleep 1000", "while :; do :; done", "while :; do sleep .1; done", "x=$(sleep 100)", "sleep 100 | cat"])
def test_an_interrupt_ends_the_code_and_keeps_its_variables(bash, code):
    bash("before=kept")
    begin = time.monotonic()
    with pytest.raises(TimeoutException):
        bash(code, timeout=1)
    assert bash("echo $before", timeout=30).logs.stdout == ["kept\n"]
    assert time.monotonic() - begin < 20


def test_variables_of_one_execution_are_data_and_are_gone_after_it(bash):
    value = "quo'te \"double\" $HOME `id` \\ é\nline"
    assert "".join(bash('printf %s "$ONLY_NOW"; env | grep -c ^ONLY_NOW', envs={"ONLY_NOW": value}).logs.stdout) == f"{value}1\n"
    assert bash("echo ${ONLY_NOW-unset}").logs.stdout == ["unset\n"]
    bash("COVERED=mine")
    assert bash("echo $COVERED; COVERED=changed", envs={"COVERED": "theirs"}).logs.stdout == ["theirs\n"]
    assert bash("echo $COVERED; env | grep COVERED").logs.stdout == ["mine\n"]


@pytest.mark.covers(needs=["sandbox.create"])
def test_the_sandboxes_own_variables_are_seen(fresh):
    assert fresh(envs={"LEVEL": "sandbox"}).run_code("echo $LEVEL", language="bash").logs.stdout == ["sandbox\n"]


def test_a_closed_output_is_open_again_for_the_next_code(bash):
    assert bash("exec 1>&- 2>&-; echo nobody").error.value == "1"
    assert bash("echo somebody; echo else >&2").logs.stdout == ["somebody\n", "else\n"]


def test_what_is_left_in_the_background_goes_on(bash):
    execution = bash("(until [ -e /tmp/go ]; do sleep .02; done; echo late; touch /tmp/gone) & echo now")
    assert execution.logs.stdout[-1] == "now\n"
    assert "late\n" in bash("touch /tmp/go; until [ -e /tmp/gone ]; do sleep .02; done", timeout=60).logs.stdout


def test_nothing_waits_for_input(bash):
    execution = bash('read line; echo "$? [$line]"; cat')
    assert execution.logs.stdout == ["1 []\n"]


def test_the_runner_leaves_nothing_in_the_shell(bash):
    names = bash("compgen -v; compgen -A function").logs.stdout
    assert not [name for name in names if "RUNNER" in name.upper() or "ONCEBOX" in name.upper()]
    assert bash("ls -A ~ | grep -c history").logs.stdout == ["0\n"]


def test_contexts_have_a_directory_and_variables_of_their_own(shared):
    context = shared.create_code_context(language="bash", cwd="/tmp")
    shared.run_code("own=1", context=context)
    assert shared.run_code("pwd; echo $own", context=context).logs.stdout == ["/tmp\n", "1\n"]
    assert shared.run_code("echo [$own]", language="bash").logs.stdout == ["[]\n"]
