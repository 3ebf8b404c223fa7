//! Events of an execution in E2B's format: one JSON object per line, in ASCII.
//!
//! ASCII, because the JavaScript SDK decodes each piece of the stream separately and would lose a character that is
//! split between two.

use std::io;
use std::time::SystemTime;

use bytes::Bytes;
use indexmap::IndexMap;
use serde::Serialize;
use serde_json::json;
use serde_json::ser::{CompactFormatter, Formatter};
use serde_json::value::{RawValue, to_raw_value};

use crate::http::e2b::control::shapes::rfc3339;
use crate::protocol::{End, Event, Exception, Outcome, OutcomeKind, Output};

/// The mime types that have a member of their own; all others go into `extra`.
const MEMBERS: [(&str, &str); 12] = [
    ("text/plain", "text"),
    ("text/html", "html"),
    ("text/markdown", "markdown"),
    ("image/svg+xml", "svg"),
    ("image/png", "png"),
    ("image/jpeg", "jpeg"),
    ("application/pdf", "pdf"),
    ("text/latex", "latex"),
    ("application/json", "json"),
    ("application/javascript", "javascript"),
    ("e2b/data", "data"),
    ("e2b/chart", "chart"),
];

/// The additional formats of figures, tables and values that E2B's clients expect. Other dialects do not use them.
pub(in crate::http::e2b) const FORMATS: [&str; 4] = ["e2b/data", "e2b/chart", "text/markdown", "text/latex"];

/// Returns the first line: the number of executions in the context, including this one.
pub(in crate::http::e2b) fn count(count: u64) -> Bytes {
    line(&json!({"type": "number_of_executions", "execution_count": count}))
}

/// Returns the line that is sent after a time without events.
pub(in crate::http::e2b) fn keep_alive() -> Bytes {
    line(&json!({"type": "keepalive"}))
}

/// The form in which a failure of the code is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http::e2b) enum Failures {
    /// As an `error` event.
    Event,
    /// As text on standard error, as an interpreter in a terminal prints it.
    Text,
}

/// The form of a value that is a string. Runners send it in the notation of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http::e2b) enum Strings {
    /// Without the surrounding quotes but otherwise unchanged, as E2B sends it.
    Unquoted,
    /// The string itself: the notation is parsed.
    Parsed,
}

/// The options of rendering.
#[derive(Debug, Clone, Copy)]
pub(in crate::http::e2b) struct Style {
    pub(in crate::http::e2b) failures: Failures,
    pub(in crate::http::e2b) strings: Strings,
}

/// E2B's style.
impl Default for Style {
    fn default() -> Self {
        Self { failures: Failures::Event, strings: Strings::Unquoted }
    }
}

/// Renders the lines of one event. The lines of the end are the last of the stream.
pub(in crate::http::e2b) fn lines(event: Event, style: Style) -> Bytes {
    let stream =
        |kind: &str, text: String| line(&json!({"type": kind, "text": text, "timestamp": rfc3339(SystemTime::now())}));
    match event {
        Event::Stdout { text } => stream("stdout", text),
        Event::Stderr { text } => stream("stderr", text),
        Event::Output(output) => line(&result(output, style.strings)),
        Event::End(end) => {
            let failure = error(end).map(|error| match style.failures {
                Failures::Event => error_line(&error),
                Failures::Text => stream("stderr", as_text(&error)),
            });
            let mut lines = failure.unwrap_or_default().to_vec();
            lines.extend_from_slice(&line(&json!({"type": "end_of_execution"})));
            lines.into()
        }
    }
}

/// A value in all its formats.
#[derive(Debug, Serialize)]
struct ResultLine {
    r#type: &'static str,
    #[serde(flatten)]
    members: IndexMap<&'static str, Box<RawValue>>,
    extra: IndexMap<String, Box<RawValue>>,
    is_main_result: bool,
}

fn result(output: Output, strings: Strings) -> ResultLine {
    let text = output.text("text/plain").map(|text| match strings {
        Strings::Unquoted => unquoted(&text).to_owned(),
        Strings::Parsed => parse_string(&text).unwrap_or_else(|| unquoted(&text).to_owned()),
    });
    let (mut members, mut extra) = (IndexMap::new(), IndexMap::new());
    for (mime, data) in output.data {
        match MEMBERS.iter().find(|(known, _)| *known == mime) {
            Some((_, member)) => _ = members.insert(*member, data),
            None => _ = extra.insert(mime, data),
        }
    }
    if let Some(text) = text {
        members.insert("text", to_raw_value(&text).expect("text can be written as JSON"));
    }
    ResultLine { r#type: "result", members, extra, is_main_result: output.main }
}

/// Removes one pair of surrounding quotes.
fn unquoted(text: &str) -> &str {
    let inner = |quote| text.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    inner('\'').or_else(|| inner('"')).unwrap_or(text)
}

/// Parses a string literal in the notation that most languages share. `None` if the text is anything else.
fn parse_string(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|letter| matches!(letter, '\'' | '"' | '`'))?;
    let mut letters = text.strip_prefix(quote)?.strip_suffix(quote)?.chars();
    // UTF-16, because the notation may contain a character as two surrogates.
    let mut units = Vec::new();
    while let Some(letter) = letters.next() {
        let letter = match letter {
            '\\' => match letters.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'v' => '\u{b}',
                same @ ('\\' | '\'' | '"' | '`') => same,
                'x' => char::from_u32(parse_hex(&mut letters, 2)?)?,
                'U' => char::from_u32(parse_hex(&mut letters, 8)?)?,
                'u' => {
                    units.push(u16::try_from(parse_hex(&mut letters, 4)?).ok()?);
                    continue;
                }
                _ => return None,
            },
            end if end == quote => return None,
            plain => plain,
        };
        units.extend_from_slice(letter.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16(&units).ok()
}

fn parse_hex(letters: &mut std::str::Chars<'_>, digits: usize) -> Option<u32> {
    (0..digits).try_fold(0, |number: u32, _| Some(number << 4 | letters.next()?.to_digit(16)?))
}

/// Returns the error of an execution: its exception, with the message of the limit that caused it, if any.
fn error(end: End) -> Option<Exception> {
    let End { outcome: Outcome { kind, message, limit }, exception, .. } = end;
    let (name, value) = match kind {
        OutcomeKind::Ok => return None,
        OutcomeKind::Exit => ("SystemExit", message.rsplit(' ').next().unwrap_or_default().to_owned()),
        OutcomeKind::Restarted => ("ContextRestarting", "Context was restarted".to_owned()),
        OutcomeKind::Signal => ("ContextRestarting", format!("Context was restarted: {message}")),
        OutcomeKind::OutOfMemory => ("OutOfMemory", message),
        OutcomeKind::ProcessLimit => ("ProcessLimit", message),
        OutcomeKind::DiskFull => ("DiskFull", message),
        OutcomeKind::OutputLimit => ("OutputLimit", message),
        OutcomeKind::Timeout => ("Timeout", message),
        OutcomeKind::Exception | OutcomeKind::Cancelled | OutcomeKind::Infrastructure => {
            ("UnexpectedEndOfExecution", message)
        }
    };
    Some(match exception {
        Some(exception) if limit.is_none() => exception,
        // Keeps the name, because clients match the language's own names.
        Some(exception) if exception.value.is_empty() => Exception { value, ..exception },
        // In some languages the value ends with a newline.
        Some(exception) => Exception { value: format!("{}; {value}", exception.value.trim_end()), ..exception },
        None => Exception { name: name.to_owned(), value, traceback: String::new() },
    })
}

fn error_line(error: &Exception) -> Bytes {
    line(&json!({"type": "error", "name": error.name, "value": error.value, "traceback": error.traceback}))
}

/// Renders an error as text: the traceback, and name and value unless the traceback already contains the value.
fn as_text(error: &Exception) -> String {
    let (traceback, value) = (error.traceback.trim_end(), error.value.trim());
    match (traceback.is_empty(), traceback.contains(value)) {
        (false, true) => format!("{traceback}\n"),
        (false, false) => format!("{traceback}\n{}: {value}\n", error.name),
        (true, _) => format!("{}: {value}\n", error.name),
    }
}

fn line(value: &impl Serialize) -> Bytes {
    let mut line = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut line, Ascii(CompactFormatter));
    value.serialize(&mut serializer).expect("our own shapes can be written as JSON");
    line.push(b'\n');
    line.into()
}

/// Writes characters outside ASCII as `\uXXXX`.
struct Ascii(CompactFormatter);

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|letter: char| !letter.is_ascii()) {
            let (plain, other) = rest.split_at(at);
            self.0.write_string_fragment(writer, plain)?;
            let mut letters = other.chars();
            let letter = letters.next().expect("it was found");
            for unit in letter.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = letters.as_str();
        }
        self.0.write_string_fragment(writer, rest)
    }

    /// Characters outside ASCII occur only within strings, so the same replacement is valid here.
    fn write_raw_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        self.write_string_fragment(writer, fragment)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::protocol::{LimitHit, Usage};

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).expect("UTF-8")
    }

    fn one(mime: &str, data: Value) -> Output {
        Output { data: IndexMap::from([(mime.to_owned(), to_raw_value(&data).expect("JSON"))]), main: true }
    }

    fn output(mime: &str, data: Value) -> Event {
        Event::Output(one(mime, data))
    }

    fn rendered(event: Event) -> Bytes {
        lines(event, Style::default())
    }

    #[test]
    fn lines_are_ascii_and_parse_back() {
        let line = line(&json!({"text": "\u{e9}\u{1f600}\n\"z"}));
        assert_eq!(text(&line), "{\"text\":\"\\u00e9\\ud83d\\ude00\\n\\\"z\"}\n");
        let back: Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(back["text"], "\u{e9}\u{1f600}\n\"z");
    }

    #[test]
    fn a_result_has_members_by_mime_type() {
        let known = rendered(output("text/plain", json!("'str'")));
        assert_eq!(text(&known), "{\"type\":\"result\",\"text\":\"str\",\"extra\":{},\"is_main_result\":true}\n");
        let other = rendered(output("x/y", json!({"\u{e9}": [1]})));
        assert!(text(&other).contains("\"extra\":{\"x/y\":{\"\\u00e9\":[1]}}"), "{other:?}");
    }

    #[test]
    fn one_pair_of_quotes_is_removed() {
        for (given, bare) in [("'a'", "a"), ("\"it's\"", "it's"), ("b'a'", "b'a'"), ("'", "'"), ("''a''", "'a'")] {
            assert_eq!(unquoted(given), bare);
        }
    }

    #[test]
    fn a_string_literal_is_parsed() {
        for (given, meant) in [
            ("'a'", "a"),
            (r#"'{"a":"it\'s\\n"}'"#, r#"{"a":"it's\n"}"#),
            (r#"`{"a":"it's"}`"#, r#"{"a":"it's"}"#),
            (r"'\x1b\u00e9\ud83d\ude00\U0001f600\n'", "\u{1b}\u{e9}\u{1f600}\u{1f600}\n"),
            ("''", ""),
        ] {
            assert_eq!(parse_string(given).as_deref(), Some(meant), "{given}");
        }
        for other in ["'a' + 'b'", "'", "", "a", "'a\\", r"'\q'", r"'\ud83d'", r"'\x1'", "b'a'"] {
            assert_eq!(parse_string(other), None, "{other}");
        }
        let output = one("text/plain", json!("'a' + 'b'"));
        assert_eq!(result(output, Strings::Parsed).members["text"].get(), "\"a' + 'b\"");
    }

    #[test]
    fn the_error_comes_before_the_end() {
        let outcome = |kind, message: &str| Outcome { kind, message: message.to_owned(), limit: None };
        let end = |outcome| Event::End(End { outcome, exception: None, usage: Usage::default(), lost: false });
        assert_eq!(text(&rendered(end(outcome(OutcomeKind::Ok, "")))), "{\"type\":\"end_of_execution\"}\n");
        let exit = rendered(end(outcome(OutcomeKind::Exit, "the code exited with status 3")));
        assert!(
            text(&exit)
                .starts_with("{\"type\":\"error\",\"name\":\"SystemExit\",\"value\":\"3\",\"traceback\":\"\"}\n")
        );
    }

    #[test]
    fn a_limit_is_reported_together_with_the_languages_error() {
        let rendered = |own: Option<(&str, &str)>| {
            let limit = Some(LimitHit { name: "processes".to_owned(), value: 64 });
            let outcome = Outcome { kind: OutcomeKind::ProcessLimit, message: "more than 64".to_owned(), limit };
            let exception = own.map(|(name, value)| Exception {
                name: name.to_owned(),
                value: value.to_owned(),
                traceback: String::new(),
            });
            let error = error(End { outcome, exception, usage: Usage::default(), lost: false }).expect("an error");
            (error.name, error.value)
        };
        let is = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(rendered(None), is("ProcessLimit", "more than 64"));
        assert_eq!(rendered(Some(("BlockingIOError", "no"))), is("BlockingIOError", "no; more than 64"));
        assert_eq!(rendered(Some(("ERROR", "Error: no\n"))), is("ERROR", "Error: no; more than 64"));
        assert_eq!(rendered(Some(("MemoryError", ""))), is("MemoryError", "more than 64"));
    }

    #[test]
    fn a_failure_can_be_reported_as_text() {
        let failed = |exception| {
            let outcome = Outcome { kind: OutcomeKind::Exception, message: "raised".to_owned(), limit: None };
            let end = End { outcome, exception, usage: Usage::default(), lost: false };
            let lines = lines(Event::End(end), Style { failures: Failures::Text, ..Style::default() });
            let first = text(&lines).lines().next().expect("a line").to_owned();
            let first: Value = serde_json::from_str(&first).expect("JSON");
            assert_eq!(first["type"], "stderr");
            first["text"].as_str().expect("text").to_owned()
        };
        let exception = |traceback: &str| Exception {
            name: "TypeError".to_owned(),
            value: "no".to_owned(),
            traceback: traceback.to_owned(),
        };
        assert_eq!(failed(Some(exception("line 1\nTypeError: no"))), "line 1\nTypeError: no\n");
        assert_eq!(failed(Some(exception("line 1"))), "line 1\nTypeError: no\n");
        assert_eq!(failed(None), "UnexpectedEndOfExecution: raised\n");
    }
}
