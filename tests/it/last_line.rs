//! What comes after the last line: a single run ends as the language's own program does, a kept context at its last line.

use serde_json::{Value, json};

use crate::e2b::Sandbox;
use crate::support::{run, run_with, stderr, stdout};

trials![
    a_run_waits_for_threads_and_processes_and_then_runs_exit_handlers_in_python,
    a_run_that_fails_or_exits_ends_as_a_program_too_in_python,
    a_run_runs_exit_handlers_at_its_end_in_javascript,
    a_run_runs_exit_handlers_at_its_end_in_typescript,
    a_run_waits_for_threads_and_then_runs_shutdown_hooks_in_java,
    a_run_calls_last_and_runs_finalizers_at_its_end_in_r,
    what_still_runs_when_time_is_up_is_a_timeout_that_keeps_what_was_printed,
    a_kept_context_answers_at_its_last_line,
];

/// Runs code that must end well; what it printed.
async fn printed(language: &str, code: &str) -> String {
    let answer = run(language, code).await;
    assert_eq!(answer["outcome"]["kind"], "ok", "{answer}");
    assert_eq!(stderr(&answer), "", "{answer}");
    stdout(&answer)
}

async fn a_run_waits_for_threads_and_processes_and_then_runs_exit_handlers_in_python() {
    let thread = "import threading, time\ndef work(): time.sleep(0.5); print('late')\n\
                  print('main')\nthreading.Thread(target=work).start()";
    assert_eq!(printed("python", thread).await, "main\nlate\n");
    let daemon = "import threading, time\ndef work(): time.sleep(60); print('late')\n\
                  threading.Thread(target=work, daemon=True).start()\nprint('main')";
    assert_eq!(printed("python", daemon).await, "main\n");
    let timer = "import threading\nprint('main')\nthreading.Timer(0.3, print, ['timer']).start()";
    assert_eq!(printed("python", timer).await, "main\ntimer\n");
    let pool = "import time\nfrom concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(2)\nprint('main')\n\
                future = pool.submit(lambda: (time.sleep(0.3), print('pool')))";
    assert_eq!(printed("python", pool).await, "main\npool\n");
    let process = "import multiprocessing, time\ndef work(): time.sleep(0.3); print('process', flush=True)\n\
                   print('main', flush=True)\nmultiprocessing.get_context('fork').Process(target=work).start()";
    assert_eq!(printed("python", process).await, "main\nprocess\n");
    let handlers = "import atexit, threading, time\natexit.register(print, 'first')\natexit.register(print, 'second')\n\
                    print('main')\nthreading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()";
    assert_eq!(printed("python", handlers).await, "main\nthread\nsecond\nfirst\n");
    let own = "class Own:\n    def __del__(self): print('deleted')\nown = Own()\nprint('main')";
    assert_eq!(printed("python", own).await, "main\ndeleted\n");
}

async fn a_run_that_fails_or_exits_ends_as_a_program_too_in_python() {
    let late = "import atexit, sys, threading, time\natexit.register(print, 'bye')\n\
                threading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start()\n";
    let failed = run("python", &format!("{late}1 / 0")).await;
    assert_eq!((&failed["exception"]["name"], stdout(&failed).as_str()), (&json!("ZeroDivisionError"), "late\nbye\n"));
    let exited = run("python", &format!("{late}sys.exit(3)")).await;
    assert_eq!((&exited["outcome"]["kind"], stdout(&exited).as_str()), (&json!("exit"), "late\nbye\n"), "{exited}");
    // An exception in a handler is printed on standard error, and changes nothing.
    let raises = run("python", "import atexit\natexit.register(lambda: 1 / 0)\nprint('main')\n7").await;
    assert_eq!((&raises["outcome"]["kind"], &raises["results"]), (&json!("ok"), &json!(["7"])), "{raises}");
    assert!(stderr(&raises).contains("ZeroDivisionError"), "{raises}");
}

async fn a_run_runs_exit_handlers_at_its_end_in_javascript() {
    exit_handlers("js").await;
}

async fn a_run_runs_exit_handlers_at_its_end_in_typescript() {
    exit_handlers("ts").await;
}

async fn exit_handlers(language: &str) {
    let exit = "process.on('exit', c => console.log('bye', c)); setTimeout(() => console.log('timer'), 20); console.log('main')";
    assert_eq!(printed(language, exit).await, "main\ntimer\nbye 0\n");
    let before = "let once = true; process.on('beforeExit', c => { console.log('before', c); \
                  if (once) setTimeout(() => console.log('more'), 20); once = false }); console.log('main')";
    assert_eq!(printed(language, before).await, "main\nbefore 0\nmore\nbefore 0\n");
    let code = run(language, "process.on('exit', () => { process.exitCode = 3 }); console.log('main')").await;
    assert_eq!((&code["outcome"]["kind"], stdout(&code).as_str()), (&json!("exit"), "main\n"), "{code}");
    let failed = run(language, "process.on('exit', c => console.log('bye', c)); null.x").await;
    assert_eq!((&failed["outcome"]["kind"], stdout(&failed).as_str()), (&json!("exception"), "bye 1\n"), "{failed}");
    let raises = run(language, "process.on('exit', () => { throw new RangeError('late') }); console.log('main')").await;
    assert_eq!((&raises["exception"]["name"], stdout(&raises).as_str()), (&json!("RangeError"), "main\n"), "{raises}");
    let asked = run(language, "process.on('exit', c => console.log('bye', c)); process.exit(2)").await;
    assert_eq!((&asked["outcome"]["kind"], stdout(&asked).as_str()), (&json!("exit"), "bye 2\n"), "{asked}");
}

async fn a_run_waits_for_threads_and_then_runs_shutdown_hooks_in_java() {
    let hooks = "Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println(\"bye\")));\n\
                 System.out.println(\"main\");\n\
                 new Thread(() -> { try { Thread.sleep(200); } catch (InterruptedException e) { } System.out.println(\"late\"); }).start();";
    assert_eq!(printed("java", hooks).await, "main\nlate\nbye\n");
    // An exit waits for no thread.
    let exit = run("java", &format!("{}\nSystem.exit(3);", hooks.replace("sleep(200)", "sleep(60_000)"))).await;
    assert_eq!((&exit["outcome"]["kind"], stdout(&exit).as_str()), (&json!("exit"), "main\nbye\n"), "{exit}");
    let failed = run("java", &format!("{hooks}\nint x = 1 / 0;")).await;
    assert_eq!(failed["outcome"]["kind"], "exception", "{failed}");
    assert_eq!(stdout(&failed), "main\nlate\nbye\n");
}

async fn a_run_calls_last_and_runs_finalizers_at_its_end_in_r() {
    let code = "reg.finalizer(globalenv(), function(e) cat('finalizer\\n'), onexit = TRUE)\n\
                .Last <- function() cat('last\\n')\ncat('main\\n')\ninvisible(1)";
    assert_eq!(printed("r", code).await, "main\nlast\nfinalizer\n");
    let quit = run("r", &code.replace("invisible(1)", "quit(status = 3)")).await;
    assert_eq!(
        (&quit["outcome"]["kind"], stdout(&quit).as_str()),
        (&json!("exit"), "main\nlast\nfinalizer\n"),
        "{quit}"
    );
    // Not after an error, as `Rscript`.
    let failed = run("r", &code.replace("invisible(1)", "stop('no')")).await;
    assert_eq!(
        (&failed["outcome"]["kind"], stdout(&failed).as_str()),
        (&json!("exception"), "main\nfinalizer\n"),
        "{failed}"
    );
}

async fn what_still_runs_when_time_is_up_is_a_timeout_that_keeps_what_was_printed() {
    for (language, code) in [
        ("python", "import threading, time\nthreading.Thread(target=time.sleep, args=[60]).start()\nprint('main')"),
        ("python", "import atexit, time\natexit.register(time.sleep, 60)\nprint('main')"),
        ("js", "setTimeout(() => {}, 60_000); console.log('main')"),
        ("js", "process.on('exit', () => { for (;;); }); console.log('main')"),
        ("ts", "process.on('exit', () => { for (;;); }); console.log('main')"),
        ("r", ".Last <- function() Sys.sleep(60)\ncat('main\\n')"),
        (
            "java",
            "Runtime.getRuntime().addShutdownHook(new Thread(() -> { for (;;); }));\nSystem.out.println(\"main\");",
        ),
    ] {
        let answer: Value = run_with(json!({"language": language, "code": code, "timeout_ms": 3000})).await;
        assert_eq!(
            (&answer["outcome"]["kind"], stdout(&answer).as_str()),
            (&json!("timeout"), "main\n"),
            "{code}: {answer}"
        );
    }
}

async fn a_kept_context_answers_at_its_last_line() {
    let sandbox = Sandbox::create(json!({"templateID": "code-interpreter-v1", "timeout": 300})).await;
    for (language, code, next) in [
        (
            "python",
            "import atexit, threading, time\natexit.register(print, 'bye')\ndone = threading.Event()\n\
             threading.Thread(target=lambda: (time.sleep(0.5), done.set())).start()",
            "done.wait()",
        ),
        (
            "javascript",
            "process.on('exit', () => console.log('bye')); var done = new Promise(resolve => setTimeout(resolve, 500, true));",
            "await done",
        ),
    ] {
        let execute = async |code: &str| sandbox.execute(&json!({"code": code, "language": language})).await;
        let lines = execute(code).await;
        assert_eq!(lines.last().map(|line| &line["type"]), Some(&json!("end_of_execution")), "{language}");
        assert!(lines.iter().all(|line| line["type"] != "stdout" && line["type"] != "error"), "{}", json!(lines));
        // What it started goes on, and the interpreter is the same one.
        let lines = execute(next).await;
        let value = lines.iter().find(|line| line["type"] == "result").unwrap_or_else(|| panic!("{}", json!(lines)));
        assert_eq!(value["text"].as_str().map(str::to_lowercase).as_deref(), Some("true"), "{language}");
    }
    sandbox.kill().await;
}
