//! Python programs, written as a whole file, run as `python main.py` runs them.

use serde_json::{Value, json};

use crate::e2b::Sandbox;
use crate::e2b_execute::context;
use crate::support::{run, run_with, stderr, stdout};

trials![
    processes_that_start_afresh_find_the_programs_functions,
    a_program_that_needs_no_file_leaves_none,
    a_program_has_a_file_beside_its_data,
    a_file_that_is_there_stays,
    sources_can_be_inspected,
    tests_of_unittest_and_doctest_run,
    arguments_are_those_of_a_program,
    strings_and_lines_stay_as_they_are,
    a_hook_for_exceptions_is_called,
    event_loops_of_all_kinds_run,
    a_program_can_start_itself_anew,
    in_a_notebook_processes_that_start_afresh_find_its_definitions,
];

/// What a program prints that ends well.
async fn printed(code: &str) -> String {
    let answer = run("python", code).await;
    assert_eq!((&answer["outcome"]["kind"], stderr(&answer).as_str()), (&json!("ok"), ""), "{code}: {answer}");
    stdout(&answer)
}

async fn processes_that_start_afresh_find_the_programs_functions() {
    let code = "\
import glob, multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import Enum

FACTOR = 3
Kind = Enum('Kind', 'A B')

@dataclass
class Job:
    number: int
    kind: Kind = Kind.A

def triple(n): return n * FACTOR

def run(job): return Job(triple(job.number), Kind.B)

def start_another(queue):
    process = multiprocessing.get_context('spawn').Process(target=queue.put, args=(__name__,))
    process.start()
    process.join()

if __name__ == '__main__':
    for method in 'spawn', 'forkserver', 'fork':
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            print(method, pool.map(triple, range(3)), pool.map(run, [Job(2)]))
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            print(list(executor.map(triple, [4])))
    queue = multiprocessing.get_context('spawn').Queue()
    process = multiprocessing.get_context('spawn').Process(target=start_another, args=[queue])
    process.start()
    print(queue.get())
    process.join()
    print(glob.glob('*'))
";
    let each = |method: &str| format!("{method} [0, 3, 6] [Job(number=6, kind=<Kind.B: 2>)]\n[12]\n");
    let expected = ["spawn", "forkserver", "fork"].map(each).concat() + "__mp_main__\n[]\n";
    assert_eq!(printed(code).await, expected);
    // A program that only IPython understands gives them its definitions.
    let code = "import multiprocessing\n!echo command\ndef double(n): return 2 * n\n\
                if __name__ == '__main__':\n    with multiprocessing.get_context('spawn').Pool(1) as pool: print(pool.map(double, [1]))";
    assert_eq!(printed(code).await, "command\n[2]\n");
}

async fn a_program_that_needs_no_file_leaves_none() {
    let list = "import atexit, glob\natexit.register(lambda: print(glob.glob('/tmp/.main*'), glob.glob('*')))\n";
    for code in ["print('ran')", "import logging, threading\nlogging.warning('x')\nraise ValueError('no')"] {
        let answer = run("python", &format!("{list}{code}")).await;
        assert!(stdout(&answer).ends_with("[] []\n"), "{answer}");
    }
}

async fn a_program_has_a_file_beside_its_data() {
    let code = "\
import __main__, os, subprocess, sys
from pathlib import Path
if 'child' in sys.argv:
    sys.exit('from the child')
here = Path(__file__).resolve().parent
print(here, os.path.basename(__file__), __main__.__file__ == __file__, (here / 'data.txt').read_text())
print(subprocess.run([sys.executable, __file__, 'child'], capture_output=True, text=True).stderr, end='')
print(Path(__file__).read_text().count('é'))
";
    let request = json!({"language": "python", "code": code, "files": [{"path": "data.txt", "content": "data"}]});
    let answer = run_with(request).await;
    assert_eq!(stdout(&answer), "/home/user main.py True data\nfrom the child\n1\n", "{answer}");
}

async fn a_file_that_is_there_stays() {
    let code = "import main, os\nprint(main.own, os.path.basename(__file__), os.path.dirname(__file__))";
    let files = json!([{"path": "main.py", "content": "own = 'mine'"}]);
    let answer = run_with(json!({"language": "python", "code": code, "files": files})).await;
    assert_eq!(stdout(&answer), "mine __main__.py /home/user\n", "{answer}");
}

async fn sources_can_be_inspected() {
    let code = "\
import copyreg, inspect, pickle, traceback, typing

class Shape:
    sides: int = 4

    def count(self) -> 'Shape': return self

def plain(n): return n

print(inspect.getsource(Shape), inspect.getsource(plain), inspect.getsource(Shape.count))
print(typing.get_type_hints(Shape.count)['return'] is Shape, pickle.loads(pickle.dumps(Shape())).sides)
copyreg.pickle(Shape, lambda shape: (plain, (7,)))
print(pickle.loads(pickle.dumps(Shape())))
try:
    plain()
except TypeError as error:
    place = traceback.extract_tb(error.__traceback__)[-1]
    print(place.filename, place.lineno, place.line)
";
    let shape = "class Shape:\n    sides: int = 4\n\n    def count(self) -> 'Shape': return self\n";
    let (plain, count) = ("def plain(n): return n\n", "    def count(self) -> 'Shape': return self\n");
    assert_eq!(printed(code).await, format!("{shape} {plain} {count}\nTrue 4\n7\nmain.py 15 plain()\n"));
}

async fn tests_of_unittest_and_doctest_run() {
    let tests = "import unittest\nclass Tests(unittest.TestCase):\n    def test_one(self): self.assertEqual(1, 1)\n    \
                 def test_two(self): self.assertEqual(1, 2)\nif __name__ == '__main__':\n    unittest.main()";
    let failed = run("python", tests).await;
    assert_eq!(failed["outcome"], json!({"kind": "exit", "message": "the code exited with status 1"}));
    let text = stderr(&failed);
    assert!(text.contains("Ran 2 tests") && text.contains("File \"main.py\", line 4, in test_two"), "{text}");
    let code = "def add(a, b):\n    '''\n    >>> add(1, 2)\n    3\n    >>> add(1, 1)\n    3\n    '''\n    return a + b\n\
                import doctest\nprint(doctest.testmod())";
    let text = printed(code).await;
    assert!(
        text.contains("line 5, in __main__.add") && text.ends_with("TestResults(failed=1, attempted=2)\n"),
        "{text}"
    );
}

async fn arguments_are_those_of_a_program() {
    let code = "\"\"\"Greets.\"\"\"\nimport argparse\n\"\"\"A comment.\"\"\"\nparser = argparse.ArgumentParser(description=__doc__)\n\
                parser.add_argument('-n', type=int, default=2)\nprint(parser.parse_args().n)\nparser.print_help()\nparser.parse_args(['-x'])";
    let answer = run("python", code).await;
    assert_eq!(answer["outcome"]["kind"], "exit");
    assert!(stdout(&answer).starts_with("2\nusage: main.py [-h] [-n N]\n\nGreets.\n"), "{answer}");
    assert!(stderr(&answer).ends_with("main.py: error: unrecognized arguments: -x\n"), "{answer}");
}

async fn strings_and_lines_stay_as_they_are() {
    let code = "\u{feff}\n\nusage = '''\n>>> add(1)\n    >>> two\n... three\n!bang\n%d\n'''\nprint(usage)\n1 / 0";
    let answer = run("python", code).await;
    assert_eq!(stdout(&answer), "\n>>> add(1)\n    >>> two\n... three\n!bang\n%d\n\n");
    assert!(answer["exception"]["traceback"].as_str().expect("text").contains("line 11"), "{answer}");
    assert!(run("python", "\n\nx = (").await["exception"]["traceback"].as_str().expect("text").contains("line 3"));
    // What only IPython understands still does what it did.
    assert_eq!(printed("\n\n%%bash\necho $((1 + 1))").await, "2\n");
    assert_eq!(printed(">>> print(1)\n1\n").await, "1\n");
    assert_eq!(printed("    print(1)\n    print(2)").await, "1\n2\n");
}

async fn a_hook_for_exceptions_is_called() {
    let hook = "import sys, traceback\ndef hook(kind, error, place): print('hook', kind.__name__, error, traceback.extract_tb(place)[0].lineno)\n\
                sys.excepthook = hook\n";
    let answer = run("python", &format!("{hook}raise ValueError('no')")).await;
    assert_eq!(
        (&answer["exception"]["name"], stdout(&answer).as_str()),
        (&json!("ValueError"), "hook ValueError no 4\n")
    );
    let answer = run("python", &format!("{hook}sys.exit(3)")).await;
    assert_eq!((&answer["outcome"]["kind"], stdout(&answer).as_str()), (&json!("exit"), ""));
    let answer = run("python", "import sys\nsys.excepthook = lambda *_: 1 / 0\nraise ValueError('no')").await;
    assert_eq!(answer["exception"]["name"], "ValueError");
    assert!(stderr(&answer).contains("ZeroDivisionError"), "{answer}");
}

async fn event_loops_of_all_kinds_run() {
    let code = "import asyncio, threading\nasync def work(): return threading.current_thread().name\n\
                loop = asyncio.get_event_loop()\nprint(loop.run_until_complete(work()))\nloop.close()\n\
                print(asyncio.run(work()))\nwith asyncio.Runner() as runner: print(runner.run(work()))\n\
                thread = threading.Thread(target=lambda: print(asyncio.run(work())), name='other')\nthread.start()\nthread.join()";
    assert_eq!(printed(code).await, "MainThread\nMainThread\nMainThread\nother\n");
}

async fn a_program_can_start_itself_anew() {
    let code = "import os, sys\nif 'again' in sys.argv: sys.exit(print('again'))\nprint('first', flush=True)\n\
                os.execv(sys.executable, [sys.executable, __file__, 'again'])";
    let answer = run("python", code).await;
    assert_eq!(stdout(&answer), "first\nagain\n", "{answer}");
}

async fn in_a_notebook_processes_that_start_afresh_find_its_definitions() {
    let sandbox = Sandbox::interpreted().await;
    let context = context(sandbox, "python").await;
    let run = async |code: &str| -> Vec<Value> {
        let lines = sandbox.execute(&json!({"code": code, "context_id": context})).await;
        lines.into_iter().filter(|line| line["type"] != "number_of_executions").collect()
    };
    let cells = "from collections import namedtuple\nimport multiprocessing\nPoint = namedtuple('Point', 'x y')\nFACTOR = 2\n\
                 made = open('/tmp/made', 'a').write('x')\ndef scale(n): return n * FACTOR\n%pwd\n";
    run(cells).await;
    let pools = "def swap(point): return Point(scale(point.y), point.x)\n\
                 for method in 'spawn', 'forkserver':\n    \
                 with multiprocessing.get_context(method).Pool(1) as pool: print(pool.map(swap, [Point(1, 2)]))";
    for factor in [2, 3] {
        let lines = run(&format!("FACTOR = {factor}\n{pools}")).await;
        let line = format!("[Point(x={}, y=1)]\n", 2 * factor);
        assert_eq!(lines[0]["text"], line.repeat(2), "{}", json!(lines));
    }
    // What the cells did is not done again.
    assert_eq!(run("open('/tmp/made').read()").await[0]["text"], "x");
    assert_eq!(run("__file__").await[0]["name"], "NameError");
}
