//! A mix of runs in all languages with all kinds of ends, each with its expected answer. More are requested at once
//! than there may be sandboxes, and every answer is compared: the outcome with its limit, the output, and the usage.

use std::collections::BTreeMap;
use std::time::Instant;

use futures::{StreamExt, stream};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::actions::{Action, End, Run, choose};
use crate::support::{Server, stderr, stdout};

/// The number of actions, and the wrong answers.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The number of actions of each kind.
    pub(crate) done: BTreeMap<&'static str, usize>,
    /// The wrong answers: the action's number, its kind, and the answer.
    pub(crate) wrong: Vec<String>,
}

impl Tally {
    /// The number of all actions.
    pub(crate) fn total(&self) -> usize {
        self.done.values().sum()
    }
}

/// Performs `runs` actions, `clients` at a time, until `deadline` at the latest; calls `progress` after each.
pub(crate) async fn load(
    server: &Server,
    seed: u64,
    runs: usize,
    clients: usize,
    deadline: Instant,
    mut progress: impl FnMut(&Tally),
) -> Tally {
    let numbers = stream::iter(0..runs).take_while(|_| std::future::ready(Instant::now() < deadline));
    let mut done = numbers
        .map(|number| async move {
            let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
            let (kind, action) = choose(&mut random, number);
            (number, kind, do_it(server, action).await)
        })
        .buffer_unordered(clients);
    let mut tally = Tally::default();
    while let Some((number, kind, done)) = done.next().await {
        *tally.done.entry(kind).or_default() += 1;
        if let Err(wrong) = done {
            eprintln!("number {number} of seed {seed}, {kind}: {wrong:.2000}");
            tally.wrong.push(format!("number {number}, {kind}: {wrong:.800}"));
        }
        progress(&tally);
    }
    tally
}

async fn do_it(server: &Server, action: Action) -> Result<(), String> {
    match action {
        Action::Run(run) => {
            let (status, answer) = send(server, &run.request).await?;
            let wrong = if status == 200 { wrong(&run, &answer) } else { Some("status") };
            wrong.map_or(Ok(()), |what| Err(format!("{what}: {status} {} for {}", shortened(answer), run.request)))
        }
        Action::HangUp { request, after } => match tokio::time::timeout(after, send(server, &request)).await {
            Ok(answer) => Err(format!("answered before its time: {answer:?}")),
            Err(_) => Ok(()),
        },
        Action::Keep => {
            let post = server.http.post(format!("{}/sandboxes", server.url)).header("x-api-key", KEY);
            let created = post.json(&json!({"templateID": "base", "timeout": 60})).send().await.map_err(text_of)?;
            let status = created.status().as_u16();
            let created: Value = created.json().await.map_err(text_of)?;
            let Some(id) = created["sandboxID"].as_str().filter(|_| status == 201) else {
                return Err(format!("{status} {created}"));
            };
            let delete = server.http.delete(format!("{}/sandboxes/{id}", server.url)).header("x-api-key", KEY);
            let killed = delete.send().await.map_err(text_of)?.status().as_u16();
            if killed == 204 { Ok(()) } else { Err(format!("{killed} when it was killed")) }
        }
    }
}

/// The part of an answer that is wrong.
fn wrong(run: &Run, answer: &Value) -> Option<&'static str> {
    let printed = stdout(answer);
    let is_ok = matches!(run.end, End::Ok);
    let all = [
        ("outcome", ended(run.end, answer)),
        ("stdout", printed == run.stdout || run.hasty && run.stdout.starts_with(&printed)),
        ("stderr", !is_ok || stderr(answer).is_empty()),
        ("results", answer["results"] == run.results),
        ("error", answer.get("error").is_none() == is_ok),
        ("usage", used(run, answer)),
    ];
    all.into_iter().find_map(|(what, is_so)| (!is_so).then_some(what))
}

fn ended(end: End, answer: &Value) -> bool {
    let (outcome, error) = (&answer["outcome"], answer["error"].as_str().unwrap_or_default());
    let is = |kind: &str, message: String| *outcome == json!({"kind": kind, "message": message}) && error == message;
    match end {
        End::Ok => outcome["kind"] == "ok" && outcome.get("limit").is_none(),
        End::Exception(text) => {
            let exception = &answer["exception"];
            let has = |member: &str| exception[member].as_str().is_some_and(|member| member.contains(text));
            outcome["kind"] == "exception" && outcome.get("limit").is_none() && (has("name") || has("value"))
        }
        End::Exit(status) => is("exit", format!("the code exited with status {status}")),
        End::Signal(signal) => is("signal", format!("the interpreter was killed by signal {signal}")),
        End::Limit(kind, name, value) => {
            let message = outcome["message"].as_str().unwrap_or_default();
            outcome["kind"] == kind
                && outcome["limit"] == json!({"name": name, "value": value})
                && message.contains(&format!("{name} = {value}"))
                && error.starts_with(message)
        }
    }
}

/// Limits of the templates.
const TIMEOUT_MS: u64 = 30_000;
const MEMORY_BYTES: u64 = 1 << 30;

/// The agent ends a run at its time limit, and the server ends it a little later. On an overloaded machine both may be
/// late.
const LATE_MS: u64 = 10_000;

/// Whether the usage is within the limits of what such a run can use.
fn used(run: &Run, answer: &Value) -> bool {
    let usage = |name: &str| answer["usage"][name].as_u64();
    let figures = (usage("wall_ms"), usage("cpu_ms"), usage("peak_memory_bytes"));
    let (Some(wall_ms), Some(cpu_ms), Some(peak)) = figures else { return false };
    let wall_fits = match run.end {
        End::Limit("timeout", _, timeout_ms) => (timeout_ms..timeout_ms + LATE_MS).contains(&wall_ms),
        _ => wall_ms <= TIMEOUT_MS,
    };
    // At most the time of its own processor; spinning code uses at least its share of the processors.
    let cpu_fits = cpu_ms <= wall_ms * 3 / 2 + 1000 && (!run.spins || run.hasty || cpu_ms >= wall_ms / 50);
    let peak_fits = match run.end {
        // Java's heap is smaller than the memory.
        End::Limit("out_of_memory", _, limit) if run.request["language"] == "java" => {
            (limit * 7 / 10..=limit).contains(&peak)
        }
        End::Limit("out_of_memory", _, limit) => (limit * 9 / 10..=limit).contains(&peak),
        _ => (1_000_000..=MEMORY_BYTES).contains(&peak),
    };
    wall_fits && cpu_fits && peak_fits
}

/// The answer with long output shortened.
fn shortened(mut answer: Value) -> Value {
    for stream in ["stdout", "stderr"] {
        let Some(pieces) = answer["logs"][stream].as_array_mut() else { continue };
        for piece in pieces.iter_mut() {
            let text = piece.as_str().unwrap_or_default();
            if text.len() > 200 {
                *piece = json!(format!("{text:.200}... {} bytes", text.len()));
            }
        }
    }
    answer
}

/// The server has no keys, so any key is accepted.
const KEY: &str = "e2b_1111111111111111111111111111111111111111";

async fn send(server: &Server, request: &Value) -> Result<(u16, Value), String> {
    let response = server.http.post(format!("{}/v1/run", server.url)).json(request).send().await.map_err(text_of)?;
    Ok((response.status().as_u16(), response.json().await.map_err(text_of)?))
}

fn text_of(err: reqwest::Error) -> String {
    format!("{err:?}")
}
