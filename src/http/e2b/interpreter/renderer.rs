//! Rendering of events as a notebook's interpreter reports them, where that differs from a console.

use std::mem;

use bytes::{Bytes, BytesMut};

use super::events::{self, Style};
use crate::protocol::{End, Event, Exception, Notebook, Pieces};

/// The largest amount of printed text that is held back until its piece is complete.
const MAX_PENDING_BYTES: usize = 1 << 20;

/// Renders the events of one execution.
pub(in crate::http::e2b) struct Renderer {
    notebook: Notebook,
    style: Style,
    /// The incomplete piece of standard output.
    pending_stdout: String,
    /// The incomplete piece of standard error.
    pending_stderr: String,
}

impl Renderer {
    pub(in crate::http::e2b) fn new(notebook: Notebook, style: Style) -> Self {
        Self { notebook, style, pending_stdout: String::new(), pending_stderr: String::new() }
    }

    /// Returns the lines that `event` completes, which may be none.
    pub(in crate::http::e2b) fn render(&mut self, event: Event) -> Bytes {
        let mut rendered = BytesMut::new();
        match (event, self.notebook.pieces) {
            (Event::Stdout { text }, Pieces::Lines) => {
                let text = mem::take(&mut self.pending_stdout) + &text;
                let (complete, pending) = text.split_at(text.rfind('\n').map_or(0, |end| end + 1));
                for line in complete.split_inclusive('\n') {
                    rendered.extend(self.lines(Event::Stdout { text: line.to_owned() }));
                }
                self.pending_stdout = pending.to_owned();
            }
            (Event::Stdout { text }, Pieces::Whole) => self.pending_stdout += &text,
            (Event::Stderr { text }, Pieces::Whole) => self.pending_stderr += &text,
            (Event::Stdout { text }, Pieces::LineEnds) => {
                for text in split_line_ends(&text) {
                    rendered.extend(self.lines(Event::Stdout { text }));
                }
            }
            (Event::Stderr { text }, Pieces::LineEnds) => {
                for text in split_line_ends(&text) {
                    rendered.extend(self.lines(Event::Stderr { text }));
                }
            }
            (event, _) => {
                rendered.extend(self.flush());
                rendered.extend(self.lines(self.as_in_notebook(event)));
            }
        }
        if self.pending_stdout.len().max(self.pending_stderr.len()) > MAX_PENDING_BYTES {
            rendered.extend(self.flush());
        }
        rendered.freeze()
    }

    fn lines(&self, event: Event) -> Bytes {
        events::lines(event, self.style)
    }

    /// Renders the incomplete pieces.
    fn flush(&mut self) -> Bytes {
        let mut rendered = BytesMut::new();
        if !self.pending_stdout.is_empty() {
            let text = mem::take(&mut self.pending_stdout);
            rendered.extend(self.lines(Event::Stdout { text }));
        }
        if !self.pending_stderr.is_empty() {
            let text = mem::take(&mut self.pending_stderr);
            rendered.extend(self.lines(Event::Stderr { text }));
        }
        rendered.freeze()
    }

    /// Changes an event to the form that the notebook's interpreter gives it.
    fn as_in_notebook(&self, mut event: Event) -> Event {
        match &mut event {
            Event::Output(output) => output.main &= !self.notebook.displays_values,
            Event::End(End { exception: Some(exception), .. }) => {
                if let Some(name) = &self.notebook.error_name {
                    exception.value = console_text(exception);
                    exception.name.clone_from(name);
                }
                if self.notebook.simple_error_names {
                    let simple = exception.name.rsplit(['.', '$']).next().map(str::to_owned);
                    exception.name = simple.unwrap_or_default();
                }
            }
            Event::End(_) | Event::Stdout { .. } | Event::Stderr { .. } => {}
        }
        event
    }
}

/// Returns the beginning of the traceback, up to the message, and a newline: the first text that a console prints about
/// an error.
fn console_text(exception: &Exception) -> String {
    let traceback = &exception.traceback;
    match traceback.find(&exception.value) {
        Some(at) => format!("{}\n", &traceback[..at + exception.value.len()]),
        None => exception.value.clone(),
    }
}

/// Splits text into lines and their newlines.
fn split_line_ends(text: &str) -> Vec<String> {
    let lines = text.split_inclusive('\n').flat_map(|line| match line.strip_suffix('\n') {
        Some(bare) => [bare, "\n"],
        None => [line, ""],
    });
    lines.filter(|piece| !piece.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::{Outcome, OutcomeKind, Output, Usage};

    fn renderer(notebook: Value) -> Renderer {
        Renderer::new(serde_json::from_value(notebook).expect("a notebook"), Style::default())
    }

    fn stdout(text: &str) -> Event {
        Event::Stdout { text: text.to_owned() }
    }

    fn raised(name: &str, value: &str, traceback: &str) -> Event {
        let outcome = Outcome { kind: OutcomeKind::Exception, message: String::new(), limit: None };
        let [name, value, traceback] = [name, value, traceback].map(str::to_owned);
        let exception = Exception { name, value, traceback };
        Event::End(End { outcome, exception: Some(exception), usage: Usage::default(), lost: false })
    }

    /// Returns one member of each line.
    fn members(rendered: &Bytes, name: &str) -> Vec<Value> {
        let lines = std::str::from_utf8(rendered).expect("text").lines();
        lines.map(|line| serde_json::from_str::<Value>(line).expect("JSON")[name].clone()).collect()
    }

    #[test]
    fn by_default_text_is_rendered_as_it_comes() {
        assert_eq!(members(&renderer(json!({})).render(stdout("a\nb")), "text"), ["a\nb"]);
    }

    #[test]
    fn a_line_can_be_a_piece_that_waits_for_its_newline() {
        let mut renderer = renderer(json!({"pieces": "lines"}));
        assert_eq!(members(&renderer.render(stdout("a\n\nb")), "text"), ["a\n", "\n"]);
        assert!(renderer.render(stdout("c")).is_empty());
        assert_eq!(members(&renderer.render(stdout("d\ne")), "text"), ["bcd\n"]);
        assert_eq!(members(&renderer.render(raised("", "1", "")), "type"), ["stdout", "error", "end_of_execution"]);
        assert_eq!(members(&renderer.render(stdout(&"x".repeat(MAX_PENDING_BYTES + 1))), "type"), ["stdout"]);
    }

    #[test]
    fn all_printed_text_can_be_one_piece() {
        let stderr = |text: &str| Event::Stderr { text: text.to_owned() };
        let mut renderer = renderer(json!({"pieces": "whole"}));
        for event in [stdout("a\n"), stderr("e"), stdout("b"), stderr("f\n")] {
            assert!(renderer.render(event).is_empty());
        }
        let rendered = renderer.render(Event::Output(Output::default()));
        assert_eq!(members(&rendered, "text"), [json!("a\nb"), json!("ef\n"), Value::Null]);
        assert_eq!(members(&renderer.render(stderr(&"x".repeat(MAX_PENDING_BYTES + 1))), "type"), ["stderr"]);
        assert_eq!(members(&renderer.render(raised("", "1", "")), "type"), ["error", "end_of_execution"]);
    }

    #[test]
    fn a_newline_can_be_a_piece_of_its_own() {
        let mut renderer = renderer(json!({"pieces": "line_ends"}));
        assert_eq!(members(&renderer.render(stdout("a\n\nb")), "text"), ["a", "\n", "\n", "b"]);
        assert_eq!(members(&renderer.render(Event::Stderr { text: "e\n".to_owned() }), "type"), ["stderr", "stderr"]);
    }

    #[test]
    fn displayed_values_are_not_the_main_result() {
        let value = || Event::Output(Output { main: true, ..Output::default() });
        assert_eq!(members(&renderer(json!({})).render(value()), "is_main_result"), [true]);
        assert_eq!(members(&renderer(json!({"displays_values": true})).render(value()), "is_main_result"), [false]);
    }

    #[test]
    fn errors_have_the_names_that_the_notebook_uses() {
        let mut plain = renderer(json!({}));
        assert_eq!(members(&plain.render(raised("a.b.C", "v", "a.b.C: v")), "name")[0], "a.b.C");
        let mut simple = renderer(json!({"simple_error_names": true}));
        assert_eq!(members(&simple.render(raised("a.b.C", "v", "a.b.C: v")), "name")[0], "C");
        assert_eq!(members(&simple.render(raised("Own", "v", "Own: v")), "name")[0], "Own");
        let mut same = renderer(json!({"error_name": "OOPS"}));
        let rendered = same.render(raised("kind", "boom", "Error in f() : boom\n1: f()"));
        assert_eq!(members(&rendered, "name")[0], "OOPS");
        assert_eq!(members(&rendered, "value")[0], "Error in f() : boom\n");
    }
}
