//! Features of Python: IPython's shell and display system, and the packages.

use serde_json::{Value, json};

use crate::support::{decoded, png_size, run, run_with, stderr, stdout};

trials![
    the_packages_people_expect_are_there,
    pkg_resources_lists_what_is_installed,
    a_missing_module_is_pythons_own_error,
    the_value_is_that_of_the_last_expression,
    rich_values_come_in_every_form_they_have,
    displays_come_before_the_value,
    figures_come_back_without_being_asked_for,
    a_figure_that_was_shown_comes_back_once,
    an_image_is_a_png,
    a_dataframe_is_text_and_html,
    further_formats_are_only_for_clients_of_e2b,
    data_of_a_type_of_its_own_stays_data,
    help_is_printed,
    questions_are_answered_from_stdin,
    magics_work,
    matplotlib_inline_is_harmless,
    shell_commands_print_in_order_and_can_be_captured,
    a_cell_of_bash_that_fails_is_an_exception,
    await_works_at_top_level,
    pip_installs_for_the_user,
    processes_and_threads_work,
    warnings_go_to_stderr,
    a_traceback_has_the_users_frames_only,
    causes_are_in_the_traceback,
    escape_codes_in_a_message_are_not_in_the_traceback,
    an_exception_in_a_thread_is_printed,
    exit_with_a_text_prints_it_and_is_1,
    forked_children_stay_silent,
    a_fork_bomb_ends_at_the_process_limit,
    a_crash_of_native_code_is_a_signal,
];

async fn value(code: &str) -> String {
    let answer = ok(code).await;
    let main = answer["outputs"].as_array().expect("a list").iter().find(|output| output["main"] == true);
    main.unwrap_or_else(|| panic!("no value: {answer}"))["text/plain"].as_str().expect("text").to_owned()
}

async fn ok(code: &str) -> Value {
    let answer = run("python", code).await;
    assert_eq!(answer["outcome"]["kind"], "ok", "{answer}");
    answer
}

async fn the_packages_people_expect_are_there() {
    let code = "import numpy as np, pandas as pd, scipy.optimize, sklearn.linear_model, requests, aiohttp, yaml, io\n\
                import matplotlib.pyplot, bs4, PIL.Image\n\
                root = scipy.optimize.brentq(lambda x: x * x - 4, 0, 5)\n\
                fit = sklearn.linear_model.LinearRegression().fit([[0], [1], [2]], [1, 3, 5])\n\
                frame = pd.read_csv(io.StringIO('a,b\\n1,2\\n3,4'))\n\
                (int(np.arange(4).sum()), round(root, 6), round(float(fit.coef_[0]), 6), int(frame.b.sum()),\n\
                 yaml.safe_load('a: [1, x]'), bs4.BeautifulSoup('<p>x</p>', 'html.parser').p.text,\n\
                 PIL.Image.new('L', (2, 3)).size, requests.Request('GET', 'http://a').prepare().url, aiohttp.ClientTimeout().total)";
    assert_eq!(
        value(code).await.split_whitespace().collect::<Vec<_>>().join(" "),
        "(6, 2.0, 2.0, 6, {'a': [1, 'x']}, 'x', (2, 3), 'http://a/', None)"
    );
}

async fn pkg_resources_lists_what_is_installed() {
    let code = "import pkg_resources\n\
                names = {found.project_name.lower() for found in pkg_resources.working_set}\n\
                sorted({'numpy', 'pandas', 'scipy', 'scikit-learn', 'requests', 'aiohttp', 'beautifulsoup4', 'matplotlib', 'pyyaml',\n\
                'pillow'} - names)";
    assert_eq!(value(code).await, "[]");
}

async fn a_missing_module_is_pythons_own_error() {
    let answer = run("python", "import no_such_module").await;
    assert_eq!(answer["exception"]["name"], "ModuleNotFoundError");
    assert_eq!(answer["exception"]["value"], "No module named 'no_such_module'");
}

async fn the_value_is_that_of_the_last_expression() {
    assert_eq!(ok("1\n2\n3").await["results"], json!(["3"]));
    assert_eq!(ok("1\nNone").await["results"], json!([]));
    assert_eq!(ok("4;").await["results"], json!([]));
    assert_eq!(ok("for n in range(3): n").await["results"], json!([]));
    let answer = ok("{'a': [1, 2.5, None]}").await;
    let output =
        json!({"text/plain": "{'a': [1, 2.5, None]}", "application/json": {"a": [1, 2.5, null]}, "main": true});
    assert_eq!(answer["outputs"], json!([output]));
}

async fn rich_values_come_in_every_form_they_have() {
    let code = "class Rich:\n    def _repr_html_(self): return '<b>ü</b>'\n    def _repr_png_(self): return bytes(range(256)) * 2\n    \
                def _repr_latex_(self): return '$x$'\n    def __repr__(self): return 'Rich!'\nRich()";
    let output = &ok(code).await["outputs"][0];
    assert_eq!(output["text/plain"], "Rich!");
    assert_eq!(output["text/html"], "<b>ü</b>");
    assert_eq!(output["text/latex"], "$x$");
    assert_eq!(decoded(&output["image/png"]), (0..=255).chain(0..=255).collect::<Vec<u8>>());
}

async fn displays_come_before_the_value() {
    let answer = ok("from IPython.display import HTML\ndisplay('shown')\ndisplay(HTML('<i>x</i>'))\n'value'").await;
    assert_eq!(answer["results"], json!(["'shown'", "<IPython.core.display.HTML object>", "'value'"]));
    let mains: Vec<_> = answer["outputs"].as_array().expect("a list").iter().map(|output| &output["main"]).collect();
    assert_eq!(mains, [false, false, true]);
    assert_eq!(answer["outputs"][1]["text/html"], "<i>x</i>");
}

async fn figures_come_back_without_being_asked_for() {
    let code = "import matplotlib.pyplot as plt\n\
                for n in range(2):\n    plt.figure(figsize=(4, 3), dpi=100)\n    plt.plot([1, 2], [n, 2])";
    let answer = ok(code).await;
    let outputs = answer["outputs"].as_array().expect("a list");
    assert_eq!(outputs.len(), 2);
    for output in outputs {
        assert_eq!(output["text/plain"], "<Figure size 400x300 with 1 Axes>");
        assert_eq!(output["main"], false);
        let (width, height) = png_size(output);
        assert!((300..=400).contains(&width) && (200..=300).contains(&height), "{width} by {height}");
    }
    assert_ne!(outputs[0]["image/png"], outputs[1]["image/png"]);
}

async fn a_figure_that_was_shown_comes_back_once() {
    let answer = ok("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nprint('after')").await;
    assert_eq!(answer["results"], json!(["<Figure size 640x480 with 1 Axes>"]));
    assert_eq!(stdout(&answer), "after\n");
    assert_eq!(stderr(&answer), "");
    let answer = ok("import matplotlib.pyplot as plt\nfigure, axes = plt.subplots()\nfigure").await;
    assert_eq!(answer["outputs"].as_array().map(Vec::len), Some(1));
    assert_eq!(answer["outputs"][0]["main"], true);
}

async fn an_image_is_a_png() {
    let answer = ok("from PIL import Image\nImage.new('RGB', (30, 20))").await;
    assert_eq!(png_size(&answer["outputs"][0]), (30, 20));
}

async fn a_dataframe_is_text_and_html() {
    let answer = ok("import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', '<y>']})").await;
    let output = &answer["outputs"][0];
    assert_eq!(output["text/plain"], "   a    b\n0  1    x\n1  2  <y>");
    let html = output["text/html"].as_str().expect("html");
    assert!(html.contains("<table") && html.contains("<td>&lt;y&gt;</td>"), "{html}");
}

async fn further_formats_are_only_for_clients_of_e2b() {
    let code = "import matplotlib.pyplot as plt, pandas as pd, PIL.Image, sys\n\
                display(pd.DataFrame({'a': [1]}))\n\
                PIL.Image.new('L', (2, 3)).save('/tmp/image.png')\n\
                plt.plot([1, 2])\nplt.show()\n\
                'oncebox_runner.charts' in sys.modules, 'Any' in globals()";
    let answer = ok(code).await;
    let outputs = answer["outputs"].as_array().expect("a list");
    let forms = |at: usize| outputs[at].as_object().expect("an object").keys().collect::<Vec<_>>();
    assert_eq!(forms(0), ["text/plain", "text/html", "main"]);
    assert_eq!(forms(1), ["text/plain", "image/png", "main"]);
    assert_eq!(forms(2), ["text/plain", "main"]);
    assert_eq!(answer["results"][2], "(False, False)");
}

async fn data_of_a_type_of_its_own_stays_data() {
    let code = "import plotly.graph_objects as go\ngo.Figure(go.Bar(y=[1, 2]))";
    let figure = &ok(code).await["outputs"][0]["application/vnd.plotly.v1+json"];
    assert_eq!(figure["data"], json!([{"type": "bar", "y": [1, 2]}]));
    let code = "display({'text/x-own': ['a'], 'own/data': {'a': (1, float('nan'))}, 'own/object': object}, raw=True)";
    let output = &ok(code).await["outputs"][0];
    assert_eq!(output["own/data"], json!({"a": [1, null]}));
    assert_eq!(output["text/x-own"], "[\"a\"]");
    assert_eq!(output["own/object"], "<class 'object'>");
}

async fn help_is_printed() {
    let answer = ok("len?").await;
    assert!(stdout(&answer).contains("Return the number of items in a container."), "{answer}");
}

async fn questions_are_answered_from_stdin() {
    let answer = run_with(json!({"language": "python", "code": "input('? '), input()", "stdin": "one\ntwo"})).await;
    assert_eq!(answer["results"], json!(["('one', 'two')"]));
    let answer = run("python", "input()").await;
    assert_eq!(answer["exception"]["name"], "EOFError");
}

async fn magics_work() {
    let answer = ok("%cd -q /tmp\n%timeit -n1 -r1 None\n%pwd").await;
    assert_eq!(answer["results"], json!(["'/tmp'"]));
    assert!(stdout(&answer).contains("1 loop each"), "{answer}");
    let answer = run("python", "%no_such_magic").await;
    assert_eq!(answer["exception"]["name"], "UsageError");
    assert_eq!(answer["exception"]["value"], "Line magic function `%no_such_magic` not found.");
}

async fn matplotlib_inline_is_harmless() {
    let answer = ok("%matplotlib inline\nimport matplotlib.pyplot as plt\n_ = plt.plot([1, 2])").await;
    assert_eq!(answer["results"], json!(["<Figure size 640x480 with 1 Axes>"]));
}

async fn shell_commands_print_in_order_and_can_be_captured() {
    let answer =
        ok("print('first')\n!echo second; echo third >&2\nprint('fourth')\nlines = !printf 'a\\nb'\nlines").await;
    assert_eq!(stdout(&answer), "first\nsecond\nfourth\n");
    assert_eq!(stderr(&answer), "third\n");
    assert_eq!(answer["results"], json!(["['a', 'b']"]));
}

async fn a_cell_of_bash_that_fails_is_an_exception() {
    let answer = run("python", "%%bash\necho before\nexit 3").await;
    assert_eq!(stdout(&answer), "before\n");
    assert_eq!(answer["exception"]["name"], "CalledProcessError");
}

async fn await_works_at_top_level() {
    let code = "import asyncio\nasync def double(n):\n    await asyncio.sleep(0.01)\n    return 2 * n\n\
                await asyncio.gather(double(1), double(2))";
    assert_eq!(value(code).await, "[2, 4]");
}

async fn pip_installs_for_the_user() {
    let project = "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n\
                   [project]\nname = 'tiny-thing'\nversion = '1.2'\n";
    // A wheel made by hand, so that building it downloads nothing.
    let backend = "import zipfile\n\
        def build_wheel(directory, config_settings=None, metadata_directory=None):\n    \
        name = 'tiny_thing-1.2-py3-none-any.whl'\n    info = 'tiny_thing-1.2.dist-info/'\n    \
        with zipfile.ZipFile(f'{directory}/{name}', 'w') as wheel:\n        \
        wheel.writestr('tiny_thing.py', 'answer = 42')\n        \
        wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: tiny-thing\\nVersion: 1.2\\n')\n        \
        wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: hand\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n        \
        wheel.writestr(info + 'RECORD', '')\n    return name\n";
    let files = json!([
        {"path": "tiny/pyproject.toml", "content": project},
        {"path": "tiny/backend.py", "content": backend},
    ]);
    let code = "%pip install --quiet --no-index --disable-pip-version-check ./tiny\n\
                import tiny_thing, importlib.metadata\n\
                tiny_thing.answer, importlib.metadata.version('tiny-thing'), tiny_thing.__file__";
    for code in [code.to_owned(), code.replace("%pip install", "!pip install --user")] {
        let request =
            json!({"language": "python", "code": code, "files": files, "network": "none", "timeout_ms": 120_000});
        let answer = run_with(request).await;
        let place = "/home/user/.local/lib/python3.13/site-packages/tiny_thing.py";
        assert_eq!(answer["results"][0].as_str().map(unwrapped), Some(format!("(42, '1.2', '{place}')")), "{answer}");
    }
}

/// Joins the lines, as IPython would print the value on a line that is long enough.
fn unwrapped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(")
}

async fn processes_and_threads_work() {
    let code = "from multiprocessing import Pool\nfrom concurrent.futures import ThreadPoolExecutor, ProcessPoolExecutor\n\
                def square(n): return n * n\n\
                with Pool(2) as pool: squares = pool.map(square, range(4))\n\
                squares, list(ThreadPoolExecutor(4).map(square, range(3))), list(ProcessPoolExecutor(2).map(square, [5]))";
    assert_eq!(value(code).await, "([0, 1, 4, 9], [0, 1, 4], [25])");
}

async fn warnings_go_to_stderr() {
    let answer = ok("import warnings\nwarnings.warn('careful')\n'value'").await;
    assert!(stderr(&answer).contains(":2: UserWarning: careful\n"), "{answer}");
    assert_eq!(stdout(&answer), "");
    assert_eq!(answer["results"], json!(["'value'"]));
}

async fn a_traceback_has_the_users_frames_only() {
    let answer = run("python", "def divide(n):\n    return 1 / n\n\ndivide(0)").await;
    let expected = "---------------------------------------------------------------------------\n\
        ZeroDivisionError                         Traceback (most recent call last)\n\
        Cell In[1], line 4\n      1 def divide(n):\n      2     return 1 / n\n----> 4 divide(0)\n\n\
        Cell In[1], line 2, in divide(n)\n      1 def divide(n):\n----> 2     return 1 / n\n\n\
        ZeroDivisionError: division by zero";
    assert_eq!(answer["error"], expected);
}

async fn causes_are_in_the_traceback() {
    let answer = run(
        "python",
        "class Own(Exception): pass\ntry:\n    [][1]\nexcept IndexError as cause:\n    raise Own('ü\\nx') from cause",
    )
    .await;
    assert_eq!(answer["exception"]["name"], "Own");
    assert_eq!(answer["exception"]["value"], "ü\nx");
    assert_eq!(answer["outcome"]["message"], "Own: ü");
    let error = answer["error"].as_str().expect("text");
    let parts = ["IndexError: list index out of range", "The above exception was the direct cause", "Own: ü\nx"];
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
}

async fn escape_codes_in_a_message_are_not_in_the_traceback() {
    let answer = crate::support::server().run("python", "raise ValueError('\\x1b[31mred\\x1b[0m')").await;
    let traceback = answer["exception"]["traceback"].as_str().expect("text");
    assert!(traceback.ends_with("ValueError: red"), "{traceback:?}");
}

async fn an_exception_in_a_thread_is_printed() {
    let code = "import threading\ndef fail(): raise ValueError('in a thread')\nthread = threading.Thread(target=fail)\n\
                thread.start()\nthread.join()";
    let answer = ok(code).await;
    assert!(stderr(&answer).ends_with("\nValueError: in a thread\n"), "{answer}");
}

async fn exit_with_a_text_prints_it_and_is_1() {
    let answer = run("python", "import sys\nsys.exit('that was it')").await;
    assert_eq!(answer["outcome"], json!({"kind": "exit", "message": "the code exited with status 1"}));
    assert_eq!(stderr(&answer), "that was it\n");
}

async fn forked_children_stay_silent() {
    let code = "import os\nif os.fork() == 0:\n    if os.fork() == 0:\n        print('grandchild')\n        os._exit(0)\n    \
                os.wait()\n    print('child')\n    os._exit(7)\nprint(os.waitstatus_to_exitcode(os.wait()[1]))\n'parent'";
    let answer = ok(code).await;
    assert_eq!(stdout(&answer), "grandchild\nchild\n7\n");
    assert_eq!(stderr(&answer), "");
    assert_eq!(answer["results"], json!(["'parent'"]));
    // A forked child that reaches the end of the code ends like a script, and sends no result.
    let answer = ok("import os\nchild = os.fork()\nif child: os.waitpid(child, 0)\n'end'").await;
    assert_eq!(answer["results"], json!(["'end'"]));
    assert_eq!(stderr(&answer), "");
}

async fn a_fork_bomb_ends_at_the_process_limit() {
    let answer = run("python", "import os\nfor i in range(1000): os.fork()").await;
    assert_eq!(answer["outcome"]["kind"], "process_limit", "{answer}");
    assert_eq!(answer["outcome"]["limit"], json!({"name": "processes", "value": 256}));
    assert_eq!(answer["exception"]["name"], "BlockingIOError");
    assert!(!stderr(&answer).contains("oncebox"), "{answer}");
}

async fn a_crash_of_native_code_is_a_signal() {
    let answer = run("python", "print('before')\nimport ctypes\nctypes.string_at(0)").await;
    let message = "the interpreter was killed by signal 11 (SIGSEGV)";
    assert_eq!(answer["outcome"], json!({"kind": "signal", "message": message}));
    assert_eq!(stdout(&answer), "before\n");
    assert!(stderr(&answer).starts_with("Fatal Python error: Segmentation fault\n"), "{answer}");
}
