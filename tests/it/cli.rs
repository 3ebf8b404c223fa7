//! `oncebox run` and the other commands.

use std::io::Write;
use std::process::{Output, Stdio};
use std::time::Duration;

use crate::support::{docker, eventually, oncebox};

trials![
    a_file_is_run_by_its_ending_and_its_results_come_last,
    code_that_fails_is_exit_code_1,
    standard_input_is_run_in_the_language_that_is_named,
    a_language_that_cannot_be_chosen_is_an_error,
    pictures_are_saved_where_asked,
    output_comes_as_it_happens_and_whoever_is_stopped_leaves_nothing,
    version_and_help_are_printed,
];

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn ended(output: Output) -> Ended {
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs `oncebox` with these arguments in a new directory with one file.
fn run(file: &str, code: &str, arguments: &[&str]) -> Ended {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join(file), code).expect("a file");
    ended(oncebox().args(arguments).current_dir(directory.path()).output().expect("oncebox"))
}

async fn a_file_is_run_by_its_ending_and_its_results_come_last() {
    let code = "console.log('out'); console.error('err'); 6 * 7";
    let ended = run("code.js", code, &["run", "code.js"]);
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "out\n42\n", "err\n"));
    // A named language takes precedence over the file's extension.
    let ended = run("code.js", "print(6 * 7)", &["run", "--language", "Python", "code.js"]);
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "42\n", ""));
    let owners = docker(&["ps", "-a", "--format", "{{.Label \"oncebox.owner\"}}"]);
    assert!(!owners.lines().any(|owner| owner == format!("run-{}", std::process::id())), "{owners}");
}

async fn code_that_fails_is_exit_code_1() {
    let ended = run("code.js", "console.log('before'); null.x", &["run", "code.js"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), "before\n"));
    assert!(ended.stderr.contains("TypeError: Cannot read properties of null"), "{}", ended.stderr);
    let ended = run("code.js", "for (;;);", &["run", "--timeout-ms", "500", "code.js"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.starts_with("oncebox: the code ran longer than timeout_ms = 500"), "{}", ended.stderr);
    let ended = run("code.js", "process.exit(3)", &["run", "code.js"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), "oncebox: the code exited with status 3\n"));
}

async fn standard_input_is_run_in_the_language_that_is_named() {
    let mut child = oncebox()
        .args(["run", "-", "-l", "js"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("oncebox");
    child.stdin.take().expect("stdin").write_all(b"'from ' + 'stdin'").expect("it reads");
    let ended = ended(child.wait_with_output().expect("its end"));
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "'from stdin'\n", ""));
}

async fn a_language_that_cannot_be_chosen_is_an_error() {
    let expected = "oncebox: cannot choose a language: set --language to one of java, js, python, r, ts\n";
    for arguments in [
        ["run", "code.cob"].as_slice(),
        &["run", "-"],
        &["run", "--language", "cobol", "code.cob"],
        &["run", "--language", "full", "code.cob"],
    ] {
        let ended = run("code.cob", "", arguments);
        assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(1), "", expected));
    }
    let ended = run("code.js", "", &["run", "other.js"]);
    assert_eq!(ended.stderr, "oncebox: cannot read other.js: No such file or directory (os error 2)\n");
    assert_eq!(ended.code, Some(1));
}

async fn pictures_are_saved_where_asked() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("plot.py");
    std::fs::write(&file, "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()").expect("a file");
    let save = directory.path().join("pictures");
    let output = oncebox().arg("run").arg(&file).arg("--save").arg(&save).output().expect("oncebox");
    let ended = ended(output);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let saved: Vec<_> = std::fs::read_dir(&save).expect("pictures").map(|entry| entry.expect("one").path()).collect();
    assert_eq!(saved.len(), 1, "{saved:?}");
    assert_eq!(ended.stderr, format!("saved {}\n", saved[0].display()));
    assert_eq!(saved[0].extension().and_then(|ending| ending.to_str()), Some("png"));
    assert!(std::fs::read(&saved[0]).expect("a picture").starts_with(b"\x89PNG\r\n\x1a\n"));
}

async fn output_comes_as_it_happens_and_whoever_is_stopped_leaves_nothing() {
    for signal in ["-INT", "-TERM"] {
        is_stopped_by(signal).await;
    }
}

async fn is_stopped_by(signal: &str) {
    use std::io::BufRead;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("code.js");
    std::fs::write(&file, "console.log('begun'); void setTimeout(() => {}, 600_000)").expect("a file");
    let mut child =
        oncebox().arg("run").arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("oncebox");
    let owner = format!("label=oncebox.owner=run-{}", child.id());
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
    assert_eq!(line, "begun\n");
    assert_ne!(docker(&["ps", "-q", "--filter", &owner]), "");
    let killed = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(killed.expect("kill").success());
    eventually("it ends", async || {
        tokio::time::sleep(Duration::from_millis(20)).await;
        child.try_wait().expect("a status").is_some()
    })
    .await;
    let ended = ended(child.wait_with_output().expect("its end"));
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), "oncebox: interrupted\n"));
    assert_eq!(docker(&["ps", "-aq", "--filter", &owner]), "");
    assert_eq!(docker(&["network", "ls", "-q", "--filter", &owner]), "");
}

async fn version_and_help_are_printed() {
    let said = |arguments: &[&str]| ended(oncebox().args(arguments).output().expect("oncebox"));
    let version = said(&["--version"]);
    assert_eq!((version.code, version.stdout), (Some(0), format!("oncebox {}\n", env!("CARGO_PKG_VERSION"))));
    let help = said(&["--help"]);
    assert_eq!(help.code, Some(0));
    for word in ["Usage: oncebox", "serve", "run", "images", "doctor", "--config"] {
        assert!(help.stdout.contains(word), "{word} is not in {}", help.stdout);
    }
    let run = said(&["run", "--help"]);
    for word in ["--language", "--save", "--timeout-ms", "`-` for standard input"] {
        assert!(run.stdout.contains(word), "{word} is not in {}", run.stdout);
    }
    assert_eq!(said(&["nonsense"]).code, Some(2));
}
