//! How abuse ends, in every language: the outcome names the right kind, the earlier output is kept, and the usage is
//! reported. Cases that other tests cover for a language are not repeated here.

mod causes;
mod kept;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::case;
use crate::support::{server, stderr, stdout};

/// The expected end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Succeeds, with this as the last result.
    Value(&'static str),
    /// Succeeds, and prints exactly this after the first line.
    Printed(&'static str),
    /// Succeeds, and its last line on standard error is this.
    Complaint(&'static str),
    /// An exception whose text contains this.
    Exception(&'static str),
    Signal(u8),
    Exit(u8),
    /// An outcome kind, the name and value of its limit, and a sign that the limit was really hit.
    Limit(&'static str, &'static str, u64, Sign),
}

/// Evidence, beside its name, that a limit was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// No evidence: the outcome is enough.
    None,
    /// Nearly all of the memory was used.
    Peak,
    /// The processor was busy for the whole time limit.
    Spun,
    /// The standard output is this text, repeated up to the limit.
    Stdout(&'static str),
    /// The standard error is this text, repeated up to the limit that both streams share.
    Stderr(&'static str),
    /// The code printed nothing more.
    Quiet,
}

const MEMORY: End = End::Limit("out_of_memory", "memory_bytes", 402_653_184, Sign::Peak);
/// Memory that a language refuses by itself was never used, so there is no peak.
const REFUSED_MEMORY: End = End::Limit("out_of_memory", "memory_bytes", 402_653_184, Sign::None);
const TIME: End = End::Limit("timeout", "timeout_ms", 2500, Sign::Quiet);
const SPUN_TIME: End = End::Limit("timeout", "timeout_ms", 2500, Sign::Spun);
const PROCESSES: End = End::Limit("process_limit", "processes", 64, Sign::None);
const DISK: End = End::Limit("disk_full", "disk_bytes", 16_777_216, Sign::None);

/// The output limit, reached by this output.
const fn output(sign: Sign) -> End {
    End::Limit("output_limit", "output_bytes", 1_000_000, sign)
}

/// A cause of an end: code for each language in which it is possible, with the end there.
struct Cause {
    name: &'static str,
    codes: Vec<(&'static str, String, End)>,
}

/// Every cause in every language.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for cause in causes::all() {
        for (language, code, end) in cause.codes {
            let name = format!("{language}::{}", cause.name);
            trials.push(case("ends", &name, move || ends_as_it_should(language, code, end)));
        }
    }
    trials.extend(kept::trials());
    trials
}

/// Prefixes code with a line of output, to check that earlier output is kept.
fn printing_first(language: &str, code: &str) -> String {
    let print = match language {
        "python" => "print('before', flush=True)",
        "js" | "ts" => "console.log('before');",
        "r" => "cat('before\\n')",
        _ => "System.out.println(\"before\");",
    };
    format!("{print}\n{code}")
}

async fn ends_as_it_should(language: &str, code: String, end: End) {
    let mut request = json!({"language": language, "code": printing_first(language, &code)});
    match end {
        End::Limit(_, name @ "timeout_ms", value, _) => request[name] = json!(value),
        End::Limit(_, name, value, _) => request["limits"] = json!({name: value}),
        _ => {}
    }
    let mut answer = server().run_with(request.clone()).await;
    if let End::Limit(_, _, value, sign @ Sign::Spun) = end {
        // One success is enough: other tests may have used the whole machine in between.
        for _ in 0..2 {
            if !shows(sign, value, &answer) {
                answer = server().run_with(request.clone()).await;
            }
        }
    }
    let outcome = &answer["outcome"];
    let has = |part: &str, text: &Value| text.to_string().contains(part);
    match end {
        End::Value(text) => {
            assert_eq!(outcome["kind"], "ok", "{answer:.2000}");
            let results = answer["results"].as_array().expect("a list");
            assert_eq!(results.last(), Some(&json!(text)), "{answer:.2000}");
        }
        End::Printed(text) => {
            assert_eq!(outcome["kind"], "ok", "{answer:.2000}");
            assert_eq!(stdout(&answer), format!("before\n{text}"), "{answer:.2000}");
            // The text may also have been printed after the end: it must not appear in the next run.
            let next = json!({"language": language, "code": printing_first(language, "")});
            assert_eq!(stdout(&server().run_with(next).await), "before\n");
        }
        End::Complaint(line) => {
            assert_eq!(outcome["kind"], "ok", "{answer:.2000}");
            assert!(stderr(&answer).ends_with(&format!("\n{line}")), "{answer:.2000}");
        }
        End::Exception(text) => {
            assert_eq!(outcome["kind"], "exception", "{answer:.2000}");
            assert!(has(text, &answer["exception"]), "{answer:.2000}");
        }
        End::Signal(number) => {
            assert_eq!(outcome["kind"], "signal", "{answer:.2000}");
            assert!(has(&format!("signal {number} "), &outcome["message"]), "{answer:.2000}");
        }
        End::Exit(status) => {
            let expected = json!({"kind": "exit", "message": format!("the code exited with status {status}")});
            assert_eq!(*outcome, expected, "{answer:.2000}");
        }
        End::Limit(kind, name, value, sign) => {
            assert_eq!(outcome["kind"], kind, "{answer:.2000}");
            assert_eq!(outcome["limit"], json!({"name": name, "value": value}), "{answer:.2000}");
            assert!(shows(sign, value, &answer), "no {sign:?}: {answer:.2000}");
        }
    }
    assert!(stdout(&answer).starts_with("before\n"), "what was printed before is lost: {answer:.2000}");
    assert_eq!(answer.get("error").is_none(), outcome["kind"] == "ok", "{answer:.2000}");
    assert!(used(&answer, "peak_memory_bytes") > 1_000_000, "{answer:.2000}");
    let least_ms = if let End::Limit("timeout", _, value, _) = end { value } else { 0 };
    assert!((least_ms..60_000).contains(&used(&answer, "wall_ms")), "{answer:.2000}");
    assert!(used(&answer, "cpu_ms") < 60_000, "{answer:.2000}");
}

fn used(answer: &Value, name: &str) -> u64 {
    answer["usage"][name].as_u64().unwrap_or_else(|| panic!("no {name}: {answer:.2000}"))
}

fn shows(sign: Sign, limit: u64, answer: &Value) -> bool {
    let (stdout, stderr) = (stdout(answer), stderr(answer));
    let fill = |text: &str, already: usize| {
        let bytes = (limit as usize).saturating_sub(already);
        let mut filled = text.repeat(bytes / text.len() + 1);
        filled.truncate(bytes);
        filled
    };
    match sign {
        Sign::None => true,
        // Java's heap is three quarters of the memory.
        Sign::Peak => (limit * 7 / 10..=limit).contains(&used(answer, "peak_memory_bytes")),
        // Other tests run at the same time.
        Sign::Spun => used(answer, "cpu_ms") >= limit / 10,
        Sign::Stdout(text) => stdout == format!("before\n{}", fill(text, "before\n".len())) && stderr.is_empty(),
        Sign::Stderr(text) => stdout == "before\n" && stderr == fill(text, stdout.len()),
        Sign::Quiet => stdout == "before\n" && answer["results"] == json!([]),
    }
}
