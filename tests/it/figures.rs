//! Figures of matplotlib are outputs of the code, whichever backend the code chooses.

use serde_json::{Value, json};

use crate::e2b::Sandbox;
use crate::e2b_execute::context;
use crate::support::{png_size, run, run_with, stderr, stdout};

trials![
    an_open_figure_is_an_output_with_every_backend,
    a_figure_is_an_output_once,
    a_closed_figure_is_none,
    a_figure_comes_where_it_was_shown,
    figures_of_code_that_fails_are_outputs,
    a_variable_of_the_caller_chooses_the_backend,
    a_figure_that_cannot_be_drawn_is_the_exception,
    other_libraries_figures_are_outputs_with_every_backend,
    programs_that_the_code_starts_have_the_backend_of_python,
    code_without_figures_imports_no_matplotlib,
    in_a_notebook_each_execution_has_its_figures,
];

const AGG: &str = "import matplotlib\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as plt\n";
const INLINE: &str = "import matplotlib.pyplot as plt\n";

/// The number of pictures of a run.
async fn figures(code: &str) -> usize {
    let answer = run("python", &format!("{code};None")).await;
    assert_eq!(answer["outcome"]["kind"], "ok", "{code}: {answer}");
    let outputs = answer["outputs"].as_array().expect("a list");
    outputs.iter().for_each(|output| assert!(png_size(output).0 > 100, "{code}: {output}"));
    outputs.len()
}

async fn an_open_figure_is_an_output_with_every_backend() {
    for backend in [
        AGG,
        INLINE,
        "import matplotlib.pyplot as plt\nimport matplotlib\nmatplotlib.use('Agg')\n",
        "import matplotlib.pyplot as plt\nplt.figure()\nplt.close()\nimport matplotlib\nmatplotlib.use('agg')\n",
        "import matplotlib.pyplot as plt\nplt.switch_backend('svg')\n",
        "import matplotlib\nmatplotlib.rcParams['backend'] = 'pdf'\nimport matplotlib.pyplot as plt\n",
        "import os\nos.environ['MPLBACKEND'] = 'Agg'\nimport matplotlib.pyplot as plt\n",
        "import os\nos.environ['MPLBACKEND'] = 'module://matplotlib_inline.backend_inline'\nimport matplotlib.pyplot as plt\n",
        "%matplotlib agg\nimport matplotlib.pyplot as plt\n",
        "import matplotlib.pyplot as plt\nplt.ioff()\n",
    ] {
        for end in ["", "; plt.show()"] {
            let code = format!("{backend}plt.plot([1, 2]){end}");
            assert_eq!(figures(&code).await, 1, "{code}");
        }
    }
}

async fn a_figure_is_an_output_once() {
    for (code, count) in [
        ("plt.savefig('file.png')", 1),
        ("plt.gcf().show()", 1),
        ("plt.show(); plt.show()", 1),
        ("plt.show(); plt.savefig('file.png')", 1),
        ("plt.gcf().show(); plt.show()", 1),
        ("display(plt.gcf())", 1),
        // One that changed is another picture.
        ("plt.show(); plt.title('more')", 2),
        ("plt.figure(); plt.plot([1, 2])", 2),
    ] {
        assert_eq!(figures(&format!("{AGG}plt.plot([1, 2]); {code}")).await, count, "{code}");
    }
    // The notebooks' backend closes what it has shown.
    assert_eq!(figures(&format!("{INLINE}plt.plot([1, 2]); plt.show(); plt.plot([1, 2])")).await, 2);
    assert_eq!(figures(&format!("{INLINE}figure, _ = plt.subplots(); figure.show(); display(figure)")).await, 2);
    for backend in [AGG, INLINE] {
        let answer = run("python", &format!("{backend}figure, axes = plt.subplots()\nfigure")).await;
        let mains: Vec<_> = answer["outputs"].as_array().expect("a list").iter().map(|one| &one["main"]).collect();
        assert_eq!(mains, [true], "{backend}");
    }
}

async fn a_closed_figure_is_none() {
    for backend in [AGG, INLINE] {
        for close in ["plt.close()", "plt.close('all')", "plt.close(plt.gcf())"] {
            let code = format!(
                "{backend}plt.plot([1, 2]); plt.savefig('file.png'); {close}\nimport os\nassert os.path.exists('file.png')"
            );
            assert_eq!(figures(&code).await, 0, "{code}");
        }
    }
    // One without pyplot is a file and nothing else.
    let own = "from matplotlib.figure import Figure\nfigure = Figure()\nfigure.subplots().plot([1, 2])\nfigure.savefig('file.png')";
    assert_eq!(figures(own).await, 0);
}

async fn a_figure_comes_where_it_was_shown() {
    for backend in [AGG, INLINE] {
        let code = format!("{backend}display('before')\nplt.plot([1, 2])\nplt.show()\ndisplay('after')\nprint('end')");
        let answer = run("python", &code).await;
        let texts = json!(["'before'", "<Figure size 640x480 with 1 Axes>", "'after'"]);
        assert_eq!((&answer["results"], stdout(&answer).as_str(), stderr(&answer).as_str()), (&texts, "end\n", ""));
    }
}

async fn figures_of_code_that_fails_are_outputs() {
    for (end, kind) in [("1 / 0", "exception"), ("raise SystemExit(3)", "exit")] {
        let answer = run("python", &format!("{AGG}plt.plot([1, 2])\n{end}")).await;
        assert_eq!((&answer["outcome"]["kind"], answer["outputs"].as_array().map(Vec::len)), (&json!(kind), Some(1)));
    }
}

async fn a_variable_of_the_caller_chooses_the_backend() {
    let code = format!("{INLINE}plt.plot([1, 2])\nplt.show()\nplt.get_backend(), len(plt.get_fignums())");
    let request = json!({"language": "python", "code": code, "env": {"MPLBACKEND": "agg"}});
    assert_eq!(run_with(request).await["results"], json!(["<Figure size 640x480 with 1 Axes>", "('agg', 1)"]));
}

async fn a_figure_that_cannot_be_drawn_is_the_exception() {
    for backend in [AGG, INLINE] {
        let answer = run("python", &format!("{backend}plt.title(r'$\\nosuch$');None")).await;
        assert_eq!(answer["exception"]["name"], "ValueError", "{answer}");
        // The code's own exception comes first.
        let answer = run("python", &format!("{backend}plt.title(r'$\\nosuch$')\n[][1]")).await;
        assert_eq!(answer["exception"]["name"], "IndexError", "{answer}");
    }
}

async fn other_libraries_figures_are_outputs_with_every_backend() {
    let code = "import pandas as pd, seaborn as sns\nframe = pd.DataFrame({'a': [1, 2], 'b': [3, 1]})\n\
                frame.plot()\nframe.plot.bar()\nplt.figure()\nsns.lineplot(frame)\nsns.jointplot(frame, x='a', y='b')";
    for backend in [AGG, INLINE] {
        assert_eq!(figures(&format!("{backend}{code}")).await, 4, "{backend}");
    }
}

async fn programs_that_the_code_starts_have_the_backend_of_python() {
    let code = "import subprocess, sys\n\
                program = 'import matplotlib.pyplot as plt; plt.plot([1]); plt.show(); print(plt.get_backend())'\n\
                subprocess.run([sys.executable, '-c', program]);";
    assert_eq!(stdout(&run("python", code).await).to_lowercase(), "agg\n");
}

async fn code_without_figures_imports_no_matplotlib() {
    let answer = run("python", "import sys\n[name for name in sys.modules if name.startswith('matplotlib.')]").await;
    assert_eq!(answer["results"], json!(["[]"]));
}

async fn in_a_notebook_each_execution_has_its_figures() {
    let sandbox = Sandbox::interpreted().await;
    for (backend, rest) in [(AGG, 1), (INLINE, 0)] {
        let context = context(sandbox, "python").await;
        let charts = async |code: &str| -> Vec<Value> {
            let lines = sandbox.execute(&json!({"code": format!("{code};None"), "context_id": context})).await;
            assert!(lines.iter().all(|line| line["type"] != "error"), "{code}: {}", json!(lines));
            let results = lines.iter().filter(|line| line["type"] == "result");
            results.map(|line| line["chart"]["title"].clone()).collect()
        };
        assert_eq!(charts(&format!("{backend}plt.plot([1]); plt.title('one')")).await, ["one"]);
        // Not again. Only the notebooks' backend has closed it.
        assert!(charts(&format!("assert len(plt.get_fignums()) == {rest}")).await.is_empty());
        assert_eq!(charts("plt.figure(); plt.plot([1]); plt.title('two'); plt.show()").await, ["two"]);
        assert!(charts("plt.figure(); plt.title('three'); plt.close('all')").await.is_empty());
    }
}
