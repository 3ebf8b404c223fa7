//! The rules for the source that no compiler checks.

use std::fs;
use std::path::Path;

use crate::repository::{documents, files, has_end, root};
use crate::support::panics;

trials![
    the_engines_library_is_named_only_by_its_engine,
    the_web_framework_is_named_only_where_http_is_spoken,
    http_does_not_name_the_link,
    a_dialect_is_named_only_in_its_folder,
    no_language_is_named_by_the_program,
    no_path_of_a_machine_is_in_the_repository,
    every_test_that_the_documents_name_is_there,
    every_link_of_the_documents_leads_somewhere,
    a_test_that_fails_on_a_flood_of_output_prints_little_of_it,
];

async fn a_test_that_fails_on_a_flood_of_output_prints_little_of_it() {
    let flood = format!("head{}tail", "é".repeat(1 << 20));
    let failed = panics::caught(|| panic!("{flood}")).expect_err("it failed");
    let message = failed.message().expect("a message");
    assert!(message.len() < 5000, "{} bytes", message.len());
    assert!(message.starts_with("head") && message.ends_with("tail") && message.contains("2097160 bytes"), "{message}");
    let failed = panics::caught(|| panic!("{}", "short")).expect_err("it failed");
    assert_eq!(failed.message(), Some("short"));
}

/// The text of a page outside of its fenced blocks.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(page).expect("a page");
    let mut is_fenced = false;
    let is_prose = |line: &&str| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        !is_fence && !is_fenced
    };
    text.lines().filter(is_prose).map(|line| format!("{line}\n")).collect()
}

/// The lines of the source files, without comments and without the tests at the end of a file.
fn code() -> Vec<(String, String)> {
    let sources = files(&root().join("src")).into_iter().filter(|path| has_end(path, "rs"));
    let mut lines = Vec::new();
    for path in sources {
        let text = fs::read_to_string(&path).expect("a source");
        let name = path.strip_prefix(root()).expect("it is below").display().to_string();
        let program = text.split("#[cfg(test)]\nmod tests").next().expect("a first part");
        let statements = program.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.extend(statements.map(|line| (name.clone(), line.to_owned())));
    }
    assert!(lines.len() > 1000, "the source was not found");
    lines
}

/// Whether a line contains a word on its own.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric();
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(is_part)
            && !line[at + word.len()..].chars().next().is_some_and(is_part)
    })
}

fn named_only_in(word: &str, allowed: &[&str]) {
    let mut named = false;
    for (name, line) in code() {
        if has_word(&line, word) {
            named = true;
            assert!(allowed.iter().any(|place| name.starts_with(place)), "{name} names {word}: {line}");
        }
    }
    assert!(named, "{word} is named nowhere, so the rule is out of date");
}

async fn the_engines_library_is_named_only_by_its_engine() {
    named_only_in("bollard", &["src/engine/docker"]);
}

async fn the_web_framework_is_named_only_where_http_is_spoken() {
    named_only_in("axum", &["src/http/", "src/main.rs", "src/cli/"]);
}

async fn http_does_not_name_the_link() {
    for (name, line) in code() {
        let named = ["link::", "Link", ".link()"].iter().any(|word| has_word(&line, word));
        assert!(!(name.starts_with("src/http/") && named), "{name} names the link: {line}");
    }
}

/// Below `http`, no code knows which API is served: everything that a caller needs is a field of a request.
async fn a_dialect_is_named_only_in_its_folder() {
    for (name, line) in code() {
        let is_below = ["sandbox", "link", "engine", "protocol", "agent"]
            .iter()
            .any(|room| name.starts_with(&format!("src/{room}")));
        let named = ["e2b", "letta", "mcp"].iter().any(|dialect| line.to_lowercase().contains(dialect));
        assert!(!(is_below && named), "{name} names a dialect: {line}");
    }
}

async fn no_language_is_named_by_the_program() {
    let languages =
        ["python", "ipython", "javascript", "typescript", "java", "jshell", "node", "nodejs", "rscript", "java"];
    for (name, line) in code() {
        // The code that builds the images has to name them.
        if name.starts_with("src/engine/docker/images") {
            continue;
        }
        // A registered mime type is not the name of a language, nor is the member that E2B uses in its answers, nor what
        // a client sends as its name.
        if line.contains("(\"application/") || line.contains("USER_AGENT: &str") {
            continue;
        }
        // If a line is split at quotes, every other part is in a literal.
        for literal in line.split('"').skip(1).step_by(2) {
            let literal = literal.to_lowercase();
            for language in languages {
                assert!(!has_word(&literal, language), "{name} names {language}: {line}");
            }
        }
    }
}

async fn no_path_of_a_machine_is_in_the_repository() {
    let top = ["Cargo.toml", "Makefile"].map(|name| root().join(name)).into_iter().chain(documents());
    let below = ["src", "tests", "config", "scripts", "docs"].iter().flat_map(|name| files(&root().join(name)));
    // Joined here, so that this file does not contain them.
    let paths =
        ["/ro", "/wo", "/Us"].into_iter().zip(["ot/", "rk/", "ers/"]).map(|(left, right)| format!("{left}{right}"));
    let paths: Vec<_> = paths.collect();
    for path in top.chain(below).filter(|path| path.exists()) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for line in text.lines() {
            for machine in &paths {
                // Except at the end of another path, which is one in a sandbox.
                let starts = |at: usize| !line[..at].ends_with(|before: char| before.is_alphanumeric());
                let named = line.match_indices(machine.as_str()).any(|(at, _)| starts(at));
                assert!(!named, "{}: {line}", path.display());
            }
        }
    }
}

/// `SECURITY.md` names a test or a class of attacks for each promise; other pages name some too.
async fn every_test_that_the_documents_name_is_there() {
    let read = |path: &Path| fs::read_to_string(path).expect("a file");
    let sources: String =
        files(&root().join("tests")).iter().filter(|path| has_end(path, "rs")).map(|path| read(path)).collect();
    let text = read(&root().join("SECURITY.md"));
    let documents = documents().iter().map(|page| prose(page)).collect::<Vec<_>>();
    let quoted: Vec<_> = documents.iter().flat_map(|text| text.split('`').skip(1).step_by(2)).collect();
    let shown_by = text.split("| shown by |").skip(1).flat_map(|table| {
        let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
        rows.filter_map(|row| row.trim_end_matches(['|', ' ']).rsplit('|').next())
    });
    for cell in shown_by {
        for name in cell.split('`').skip(1).step_by(2) {
            assert!(name.contains("::") || name.starts_with("abuse "), "`{name}` is no test and no class of attacks");
        }
    }
    let tests = quoted.iter().filter(|name| **name != "file::test").filter_map(|name| name.split_once("::"));
    // A method of a type is not a test.
    let tests = tests.filter(|(file, _)| file.starts_with(char::is_lowercase));
    let mut named = 0;
    for (file, test) in tests.clone() {
        let places = ["it", "http"].map(|ring| root().join(format!("tests/{ring}/{file}.rs")));
        let path = places.iter().find(|path| path.exists()).unwrap_or_else(|| panic!("there is no {file}.rs"));
        assert!(read(path).contains(&format!("async fn {test}(")), "{} has no {test}", path.display());
        named += 1;
    }
    for class in quoted.iter().filter_map(|name| name.strip_prefix("abuse ")).filter(|class| *class != "CLASS") {
        assert!(sources.contains(&format!("\"{class}\"")), "there is no class `{class}` of attacks");
        named += 1;
    }
    assert!(named > 30, "the promises were not found");
}

/// The anchor of a heading, as links use it.
fn anchor(heading: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    heading.to_lowercase().chars().filter(kept).map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

async fn every_link_of_the_documents_leads_somewhere() {
    let mut followed = 0;
    for page in documents() {
        let text = prose(&page);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target)) {
            if target.starts_with("https://") || target.starts_with("http://") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { page.clone() } else { page.with_file_name(path) };
            assert!(path.exists(), "{}: {target} leads nowhere", page.display());
            if !heading.is_empty() {
                let text = prose(&path);
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                let is_there = headings.any(|line| anchor(line.trim_start_matches('#').trim()) == heading);
                assert!(is_there, "{}: {} has no heading for #{heading}", page.display(), path.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 30, "the links were not found");
}
