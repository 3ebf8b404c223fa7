//! Attempts from inside a sandbox, in the files of `probes/CLASS/`. The first line of each section of a file names
//! something that must not happen, and the code tries it. Code that fails was held; code that ends normally has
//! succeeded. Where the protection is missing the same section must succeed, which reveals attempts that cannot succeed
//! anywhere.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::case;
use crate::support::Server;
use crate::weak::{Servers, servers};

/// The time limit of one attempt.
const PATIENCE: Duration = Duration::from_secs(60);

/// The languages, by the extension of their files.
const LANGUAGES: [Language; 6] = [
    Language { extension: "py", name: "python", template: "python", common: include_str!("probes/common.py") },
    Language {
        extension: "js",
        name: "js",
        template: "js",
        common: concat!(include_str!("probes/common.js"), include_str!("probes/node.js")),
    },
    Language {
        extension: "ts",
        name: "ts",
        template: "ts",
        common: concat!(include_str!("probes/common.ts"), include_str!("probes/node.js")),
    },
    Language { extension: "R", name: "r", template: "r", common: include_str!("probes/common.R") },
    Language { extension: "java", name: "java", template: "java", common: include_str!("probes/common.java") },
    // The image with all languages is the only one with bash.
    Language { extension: "sh", name: "bash", template: "base", common: include_str!("probes/common.sh") },
];

/// A language in which attempts are written.
struct Language {
    extension: &'static str,
    name: &'static str,
    /// The template for attempts; kept sandboxes use the template with all languages instead.
    template: &'static str,
    /// Code that defines the functions shared by all attempts.
    common: &'static str,
}

impl Language {
    fn named(name: &str) -> &'static Self {
        LANGUAGES.iter().find(|language| language.name == name).expect("a language")
    }
}

/// The kinds of sandboxes in which attempts are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Ground {
    /// A single run of the language.
    Strict,
    /// A single run without a network.
    Closed,
    /// The sandbox that an SDK keeps, as its user.
    Machine,
    /// The sandbox that an SDK keeps, as root by `sudo`.
    Root,
    /// A weakened sandbox, in which attempts must succeed.
    Weak,
    /// A weakened sandbox in this machine's own network.
    Open,
}

/// The classes: their directories, the sandboxes in which attempts must be held, and the one in which they must
/// succeed.
const CLASSES: [(&str, &[&str], &[Ground], Ground); 7] = [
    ("escape", &["escape"], &[Ground::Strict, Ground::Machine], Ground::Weak),
    ("syscalls", &["syscalls"], &[Ground::Strict, Ground::Machine], Ground::Weak),
    ("agent", &["agent"], &[Ground::Strict, Ground::Machine], Ground::Weak),
    // The same attempts as root inside.
    ("root", &["escape", "syscalls"], &[Ground::Root], Ground::Weak),
    ("root", &["network"], &[Ground::Root], Ground::Open),
    ("network", &["network"], &[Ground::Strict, Ground::Closed, Ground::Machine], Ground::Open),
    ("closed", &["closed"], &[Ground::Closed], Ground::Open),
];

/// One attempt.
#[derive(Debug, Clone)]
struct Section {
    language: &'static str,
    /// The thing that must not happen.
    title: String,
    code: String,
    grounds: Vec<Ground>,
    control: Option<Ground>,
    /// Whether the attempt needs an interpreter in which only attempts of this kind have run.
    fresh: bool,
}

static SECTIONS: AtomicUsize = AtomicUsize::new(0);
static UNCONTROLLED: AtomicUsize = AtomicUsize::new(0);

/// The sections of all files.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (class, directories, grounds, control) in CLASSES {
        for file in directories.iter().flat_map(|directory| files(directory)) {
            for section in sections(&file, grounds, control) {
                let name = format!("{}::{}", section.language, section.title);
                trials.push(case(class, &name, move || section.hold()));
            }
        }
    }
    trials
}

fn files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/abuse/probes")).join(directory);
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|err| panic!("{}: {err}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

/// The number of attempts that are not known to succeed anywhere, and the number of all attempts.
pub(crate) fn without_control() -> (usize, usize) {
    (UNCONTROLLED.load(Ordering::Relaxed), SECTIONS.load(Ordering::Relaxed))
}

/// Reads a file. A section's first line is `#@ THING THAT MUST NOT HAPPEN`; `#! no control: why`, `#! control by IPv6:
/// why`, `#! only strict: why`, `#! only root: why`, `#! not root: why` and `#! fresh interpreter: why` may follow it.
fn sections(file: &Path, grounds: &[Ground], control: Ground) -> Vec<Section> {
    let control = Some(control);
    let extension = file.extension().and_then(|extension| extension.to_str()).expect("an extension");
    let found = LANGUAGES.iter().find(|language| language.extension == extension);
    let language = found.unwrap_or_else(|| panic!("{}: of no language", file.display())).name;
    let comment = if matches!(extension, "js" | "ts" | "java") { "//" } else { "#" };
    let text = std::fs::read_to_string(file).expect("a file of attempts");
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines() {
        let remark = |mark: char| line.strip_prefix(comment).and_then(|rest| rest.strip_prefix(mark)).map(str::trim);
        if let Some(title) = remark('@') {
            let title = title.to_owned();
            let (code, grounds) = (String::new(), grounds.to_vec());
            sections.push(Section { language, title, code, grounds, control, fresh: false });
        } else if let Some(section) = sections.last_mut() {
            match remark('!') {
                Some(wish) if wish.starts_with("no control: ") => section.control = None,
                // Without IPv6 on this machine there is no control.
                Some(wish) if wish.starts_with("control by IPv6: ") => section.control = control.filter(|_| has_ipv6()),
                Some(wish) if wish.starts_with("only strict: ") => section.grounds.retain(|one| *one == Ground::Strict),
                Some(wish) if wish.starts_with("only root: ") => section.grounds.retain(|one| *one == Ground::Root),
                Some(wish) if wish.starts_with("not root: ") => section.grounds.retain(|one| *one != Ground::Root),
                Some(wish) if wish.starts_with("fresh interpreter: ") => section.fresh = true,
                Some(wish) => panic!("{}: {wish}", file.display()),
                None => section.code.extend([line, "\n"]),
            }
        } else {
            assert!(
                line.is_empty() || line.starts_with(comment),
                "{}: before its first section: {line}",
                file.display()
            );
        }
    }
    // As root, only attempts that a shell can start are made.
    sections.retain(|section| !section.grounds.is_empty());
    if grounds.contains(&Ground::Root) {
        sections.retain(|section| matches!(section.language, "python" | "bash"));
    }
    sections
}

/// Whether this machine's interfaces have IPv6 addresses.
fn has_ipv6() -> bool {
    std::fs::read_to_string("/proc/net/if_inet6").is_ok_and(|addresses| !addresses.is_empty())
}

impl Section {
    /// Makes the attempt in all its sandboxes. Panics if it succeeds where it must not, or is held where it must
    /// succeed.
    async fn hold(self) {
        SECTIONS.fetch_add(1, Ordering::Relaxed);
        UNCONTROLLED.fetch_add(usize::from(self.control.is_none()), Ordering::Relaxed);
        for ground in self.grounds.iter().copied() {
            let refusal = self.attempt(ground).await;
            assert!(refusal.is_some(), "REACHED ({ground:?}): {}\n{}", self.title, self.code);
        }
        if let Some(control) = self.control {
            let mut refusal = self.attempt(control).await;
            // One success shows that the attempt can succeed.
            for _ in 0..2 {
                if refusal.is_some() {
                    refusal = self.attempt(control).await;
                }
            }
            assert!(refusal.is_none(), "an attempt that succeeds nowhere ({control:?}): {}: {refusal:?}", self.title);
        }
    }

    /// Makes the attempt; returns the error with which it ended.
    async fn attempt(&self, ground: Ground) -> Option<String> {
        let (language, code) = match (self.language, ground) {
            // Braces give the attempt a scope of its own.
            ("js" | "ts" | "java", _) => (self.language, format!("{{\n{}}}", self.code)),
            ("r", _) => ("r", format!("local({{\n{}}})", self.code)),
            ("bash", Ground::Root) => ("bash", sudo("bash", &self.alone())),
            ("bash", _) => ("bash", format!("(set -e\n{})", self.code)),
            ("python", Ground::Root) => ("bash", sudo("python3", &self.alone())),
            _ => (self.language, self.code.clone()),
        };
        let work = async {
            let interpreter = Interpreter::get(ground, language, self.fresh).await;
            interpreter.execute(&code, true).await
        };
        let ended = tokio::time::timeout(PATIENCE, work).await;
        ended.unwrap_or_else(|_| panic!("an attempt that does not end ({ground:?}): {}", self.title))
    }

    /// The attempt as a complete program.
    fn alone(&self) -> String {
        let common = Language::named(self.language).common;
        let strict = if self.language == "bash" { "set -e\n" } else { "" };
        format!("{common}\n{strict}{}", self.code)
    }
}

/// A shell command that runs a program as root. If root cannot run it, or has no variables, the command succeeds, so
/// that the attempt does not count as held.
fn sudo(interpreter: &str, program: &str) -> String {
    format!(
        "if [ \"$(sudo -n -E sh -c 'id -u; echo $HOST')\" = \"0\n$HOST\" ]; then\n\
         sudo -n -E {interpreter} - <<'END OF PROGRAM'\n{program}\nEND OF PROGRAM\nfi"
    )
}

/// A context in a sandbox.
struct Interpreter {
    servers: Arc<Servers>,
    ground: Ground,
    sandbox: String,
    context: String,
}

type Cells<K> = Mutex<Option<HashMap<K, Arc<OnceCell<String>>>>>;

static SANDBOXES: Cells<(Ground, &str)> = Mutex::new(None);
static CONTEXTS: Cells<(Ground, &str, bool)> = Mutex::new(None);

fn cell<K: Eq + std::hash::Hash>(cells: &Cells<K>, key: K) -> Arc<OnceCell<String>> {
    Arc::clone(cells.lock().expect("the cells").get_or_insert_default().entry(key).or_default())
}

impl Interpreter {
    /// The interpreter of a language in a kind of sandbox, shared by all attempts; those that need a fresh one share
    /// another.
    async fn get(ground: Ground, language: &'static str, fresh: bool) -> Self {
        let servers = servers();
        // The user and root share a sandbox.
        let place = if ground == Ground::Root { Ground::Machine } else { ground };
        let template = if place == Ground::Machine { "full" } else { Language::named(language).template };
        let mut interpreter = Self { servers, ground, sandbox: String::new(), context: String::new() };
        let sandbox = cell(&SANDBOXES, (place, template));
        let create = async || {
            let body = json!({"templateID": template, "timeout": 7200});
            let (status, created) = interpreter.server().post("/v2/sandboxes", &body).await;
            assert_eq!(status, 201, "{created}");
            created["sandboxID"].as_str().expect("an id").to_owned()
        };
        let id = sandbox.get_or_init(create).await.clone();
        interpreter.sandbox = id;
        let context = cell(&CONTEXTS, (place, language, fresh));
        let create = async || {
            let created = interpreter.call("/contexts", json!({"language": language})).await;
            let created: Value = serde_json::from_str(&created).expect("JSON");
            let fresh = Self {
                servers: Arc::clone(&interpreter.servers),
                ground,
                sandbox: interpreter.sandbox.clone(),
                context: created["id"].as_str().expect("an id").to_owned(),
            };
            let common = Language::named(language).common;
            assert_eq!(fresh.execute(common, false).await, None, "{language}: what is common");
            fresh.context
        };
        let id = context.get_or_init(create).await.clone();
        interpreter.context = id;
        interpreter
    }

    fn server(&self) -> &Server {
        match self.ground {
            Ground::Weak => self.servers.weak(),
            Ground::Open => self.servers.open(),
            Ground::Closed => self.servers.closed(),
            Ground::Strict | Ground::Machine | Ground::Root => self.servers.guarded(),
        }
    }

    /// Executes code; returns the error with which it ended.
    async fn execute(&self, code: &str, told: bool) -> Option<String> {
        let variables = if told { self.servers.world().variables() } else { json!({}) };
        let body = json!({"context_id": self.context, "code": code, "env_vars": variables});
        let answer = self.call("/execute", body).await;
        let lines: Vec<Value> = answer.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
        let ended = lines.iter().any(|line| line["type"] == "end_of_execution");
        assert!(ended, "it broke off ({:?}): {answer}", self.ground);
        let error = lines.iter().find(|line| line["type"] == "error")?;
        let printed = lines.iter().filter(|line| line["type"] == "stderr" || line["type"] == "stdout");
        let printed: String = printed.filter_map(|line| line["text"].as_str()).collect();
        Some(format!("{}: {} {printed:.600}", error["name"], error["value"]))
    }

    async fn call(&self, path: &str, body: Value) -> String {
        let server = self.server();
        let request = server.http.post(format!("{}{path}", server.url));
        let request = request.header("E2b-Sandbox-Id", &self.sandbox).header("E2b-Sandbox-Port", 49999).json(&body);
        let response = request.send().await.expect("an answer");
        let status = response.status();
        let text = response.text().await.unwrap_or_else(|err| panic!("it broke off ({:?}): {err}", self.ground));
        assert_eq!(status, 200, "{path}: {text}");
        text
    }
}
