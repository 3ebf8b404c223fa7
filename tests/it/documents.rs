//! Runs every example of README.md and docs/, and compares the result with the page.

use std::fs;
use std::mem::discriminant;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Map, Value};

use crate::repository::{documents, root};
use crate::support::{oncebox, png_size, server};

trials![every_request_gives_the_answer_that_its_page_shows, every_command_prints_what_its_page_shows];

/// Stands for omitted parts of an answer on a page: any value, further members of an object, or further elements of a
/// list.
const LEFT_OUT: &str = "...";

/// Members with a measured value, which differs from run to run.
const MEASURED: [&str; 10] =
    ["wall_ms", "cpu_ms", "peak_memory_bytes", "wait_ms", "warm", "idle", "launching", "waiting", "running", "queued"];

/// A block of shell commands, with the block that follows it directly, if any.
struct Example {
    /// The page and the line number.
    place: String,
    commands: String,
    /// The language and the text.
    answer: Option<(String, String)>,
}

/// All examples of a page.
fn examples(page: &Path) -> Vec<Example> {
    let text = fs::read_to_string(page).expect("a page");
    let name = page.strip_prefix(root()).expect("it is below").display();
    let mut examples: Vec<Example> = Vec::new();
    // Whether only blank lines have followed the last block.
    let mut is_next = false;
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            is_next &= line.is_empty();
            continue;
        };
        let block: String = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .map(|line| format!("{line}\n"))
            .collect();
        match (language, examples.last_mut()) {
            ("json" | "text", Some(last)) if is_next => last.answer = Some((language.to_owned(), block)),
            ("sh", _) => {
                examples.push(Example { place: format!("{name}:{}", number + 1), commands: block, answer: None });
            }
            _ => {}
        }
        is_next = language == "sh";
    }
    examples
}

/// All texts between `start` and the next `end`.
fn between<'a>(text: &'a str, start: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(start).skip(1).filter_map(move |rest| rest.split_once(end).map(|(found, _)| found))
}

/// Sends the request of a `curl` command; returns the status and the body.
async fn send(command: &str) -> (u16, String) {
    let path =
        between(command, "localhost:3000", " ").next().or_else(|| command.trim_end().split("localhost:3000").nth(1));
    let url = format!("{}{}", server().url, path.expect("the server's address"));
    let request = match between(command, "-d '", "'").next() {
        Some(body) => server().http.post(url).body(body.to_owned()),
        None => server().http.get(url),
    };
    let request = between(command, "-H '", "'").fold(request, |request, header| {
        let (name, value) = header.split_once(": ").expect("a name and a value");
        request.header(name, value)
    });
    let response = request.send().await.expect("an answer");
    (response.status().as_u16(), response.text().await.expect("text"))
}

/// The names of events with their data. The pieces of one text count as one event.
fn events(stream: &str) -> Vec<(String, Value)> {
    let mut events: Vec<(String, Value)> = Vec::new();
    for event in stream.trim().split("\n\n").filter(|event| !event.starts_with(':')) {
        // One without a name is a message.
        let (name, data) = event.split_once('\n').unwrap_or(("event: message", event));
        let name = name.strip_prefix("event: ").expect("a name").to_owned();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
        match (events.last_mut(), data["text"].as_str()) {
            (Some((last, whole)), Some(text)) if *last == name => {
                whole["text"] = format!("{}{text}", whole["text"].as_str().expect("text")).into();
            }
            _ => events.push((name, data)),
        }
    }
    events
}

/// Compares an answer with the page; the error names the first difference.
fn compare(shown: &Value, given: &Value, at: &str) -> Result<(), String> {
    let differ = || Err(format!("{at} is shown as {shown} and is {given}"));
    match (shown, given) {
        (Value::String(text), _) if text == LEFT_OUT => Ok(()),
        (Value::Object(shown), Value::Object(given)) => compare_members(shown, given, at),
        (Value::Array(shown), Value::Array(given)) => {
            let is_shortened = shown.last().is_some_and(|last| last == LEFT_OUT);
            let shown = &shown[..shown.len() - usize::from(is_shortened)];
            if given.len() < shown.len() || (given.len() > shown.len() && !is_shortened) {
                return Err(format!("{at} is shown with {} elements and has {}", shown.len(), given.len()));
            }
            let mut pairs = shown.iter().zip(given).enumerate();
            pairs.try_for_each(|(index, (shown, given))| compare(shown, given, &format!("{at}[{index}]")))
        }
        _ if shown == given => Ok(()),
        _ => differ(),
    }
}

fn compare_members(shown: &Map<String, Value>, given: &Map<String, Value>, at: &str) -> Result<(), String> {
    for (name, shown) in shown.iter().filter(|(name, _)| *name != LEFT_OUT) {
        let at = format!("{at}.{name}");
        let given = given.get(name).ok_or_else(|| format!("{at} is shown and is not there"))?;
        if !MEASURED.contains(&name.as_str()) {
            compare(shown, given, &at)?;
        } else if discriminant(shown) != discriminant(given) {
            return Err(format!("{at} is shown as {shown} and is {given}"));
        }
    }
    // Every run has these two members, and most examples are about something else.
    let may_miss = |name: &str| given.contains_key("outcome") && matches!(name, "usage" | "sandbox");
    match given.keys().find(|name| !shown.contains_key(*name) && !may_miss(name)) {
        Some(name) if !shown.contains_key(LEFT_OUT) => Err(format!("{at}.{name} is there and is not shown")),
        _ => Ok(()),
    }
}

/// Runs one `curl` command; the error names the difference.
async fn try_request(Example { commands, answer, .. }: &Example) -> Result<(), String> {
    let (status, body) = send(commands).await;
    let Some((language, shown)) = answer else {
        let answer: Value = serde_json::from_str(&body).map_err(|err| format!("{err}: {body}"))?;
        return is_the_plot(&answer);
    };
    if commands.contains("text/event-stream") {
        let (shown, given) = (events(shown), events(&body));
        let names = |events: &[(String, Value)]| events.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        if names(&shown) != names(&given) {
            return Err(format!("the events are {:?}", names(&given)));
        }
        return shown.iter().zip(&given).try_for_each(|((name, shown), (_, given))| compare(shown, given, name));
    }
    if language == "text" {
        let given = format!("{body}\n{status}\n");
        return if given == *shown { Ok(()) } else { Err(format!("it gives {given}")) };
    }
    let shown: Value = serde_json::from_str(shown).map_err(|err| format!("what is shown: {err}"))?;
    let given: Value = serde_json::from_str(&body).map_err(|err| format!("{err}: {body}"))?;
    compare(&shown, &given, "the answer")
}

/// The example whose answer the page shows as a picture.
fn is_the_plot(answer: &Value) -> Result<(), String> {
    let picture = fs::read(root().join("docs/images/plot.png")).expect("the picture");
    let number = |at: usize| u32::from_be_bytes(picture[at..at + 4].try_into().expect("four bytes"));
    let (shown, given) = ((number(16), number(20)), png_size(&answer["outputs"][0]));
    if shown == given { Ok(()) } else { Err(format!("the picture's size is {shown:?} and the plot's {given:?}")) }
}

async fn every_request_gives_the_answer_that_its_page_shows() {
    let mut compared = 0;
    let mut wrong = Vec::new();
    for example in documents().iter().flat_map(|page| examples(page)).filter(|one| one.commands.starts_with("curl ")) {
        if let Err(difference) = try_request(&example).await {
            wrong.push(format!("{}: {difference}", example.place));
        }
        compared += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared >= 15, "only {compared} examples were found");
}

async fn every_command_prints_what_its_page_shows() {
    let directory = tempfile::tempdir().expect("a directory");
    let program = Path::new(env!("CARGO_BIN_EXE_oncebox")).parent().expect("its directory").display();
    let path = format!("{program}:{}", std::env::var("PATH").expect("a PATH"));
    let mut compared = 0;
    for Example { place, commands, answer } in documents().iter().flat_map(|page| examples(page)) {
        let Some((_, shown)) = answer.filter(|(language, _)| language == "text") else { continue };
        if commands.starts_with("curl ") {
            continue;
        }
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec 2>&1\n{commands}")]).current_dir(&directory).stdin(Stdio::null());
        shell.env("PATH", &path).envs(oncebox().get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = shell.output().expect("a shell");
        assert_eq!(String::from_utf8_lossy(&output.stdout), shown, "{place}");
        compared += 1;
    }
    assert!(compared >= 3, "only {compared} examples were found");
}
