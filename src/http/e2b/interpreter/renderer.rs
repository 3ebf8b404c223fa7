//! Events as an interpreter for notebooks tells them, where it does otherwise than a console.

use std::mem;

use bytes::{Bytes, BytesMut};

use super::events::{self, Style};
use crate::protocol::{End, Event, Exception, Notebook, Pieces};

/// The most of printed text that is held back, bytes, while the end of its piece is waited for.
const LONGEST: usize = 1 << 20;

/// Tells the events of one execution.
pub(in crate::http::e2b) struct Renderer {
    notebook: Notebook,
    style: Style,
    /// The beginning of a piece of standard output.
    begun: String,
    /// The beginning of a piece of standard error.
    begun_error: String,
}

impl Renderer {
    pub(in crate::http::e2b) fn new(notebook: Notebook, style: Style) -> Self {
        Self { notebook, style, begun: String::new(), begun_error: String::new() }
    }

    /// What is to be said after `event`, which may be nothing yet.
    pub(in crate::http::e2b) fn render(&mut self, event: Event) -> Bytes {
        let mut rendered = BytesMut::new();
        match (event, self.notebook.pieces) {
            (Event::Stdout { text }, Pieces::Lines) => {
                let text = mem::take(&mut self.begun) + &text;
                let (whole, begun) = text.split_at(text.rfind('\n').map_or(0, |end| end + 1));
                for line in whole.split_inclusive('\n') {
                    rendered.extend(self.lines(Event::Stdout { text: line.to_owned() }));
                }
                self.begun = begun.to_owned();
            }
            (Event::Stdout { text }, Pieces::Whole) => self.begun += &text,
            (Event::Stderr { text }, Pieces::Whole) => self.begun_error += &text,
            (Event::Stdout { text }, Pieces::LineEnds) => {
                for text in with_ends_apart(&text) {
                    rendered.extend(self.lines(Event::Stdout { text }));
                }
            }
            (Event::Stderr { text }, Pieces::LineEnds) => {
                for text in with_ends_apart(&text) {
                    rendered.extend(self.lines(Event::Stderr { text }));
                }
            }
            (event, _) => {
                rendered.extend(self.rest());
                rendered.extend(self.lines(self.in_its_words(event)));
            }
        }
        if self.begun.len().max(self.begun_error.len()) > LONGEST {
            rendered.extend(self.rest());
        }
        rendered.freeze()
    }

    fn lines(&self, event: Event) -> Bytes {
        events::lines(event, self.style)
    }

    /// The pieces that have begun, as they are.
    fn rest(&mut self) -> Bytes {
        let mut rendered = BytesMut::new();
        if !self.begun.is_empty() {
            let text = mem::take(&mut self.begun);
            rendered.extend(self.lines(Event::Stdout { text }));
        }
        if !self.begun_error.is_empty() {
            let text = mem::take(&mut self.begun_error);
            rendered.extend(self.lines(Event::Stderr { text }));
        }
        rendered.freeze()
    }

    fn in_its_words(&self, mut event: Event) -> Event {
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

/// What the console says first of all: the traceback's beginning, up to the message and the end of its line.
fn console_text(exception: &Exception) -> String {
    let said = &exception.traceback;
    match said.find(&exception.value) {
        Some(at) => format!("{}\n", &said[..at + exception.value.len()]),
        None => exception.value.clone(),
    }
}

fn with_ends_apart(text: &str) -> Vec<String> {
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

    /// One member of each line.
    fn members(rendered: &Bytes, name: &str) -> Vec<Value> {
        let lines = std::str::from_utf8(rendered).expect("text").lines();
        lines.map(|line| serde_json::from_str::<Value>(line).expect("JSON")[name].clone()).collect()
    }

    #[test]
    fn text_is_told_as_it_comes_where_nothing_else_is_said() {
        assert_eq!(members(&renderer(json!({})).render(stdout("a\nb")), "text"), ["a\nb"]);
    }

    #[test]
    fn each_line_is_a_piece_and_waits_for_its_end() {
        let mut renderer = renderer(json!({"pieces": "lines"}));
        assert_eq!(members(&renderer.render(stdout("a\n\nb")), "text"), ["a\n", "\n"]);
        assert!(renderer.render(stdout("c")).is_empty());
        assert_eq!(members(&renderer.render(stdout("d\ne")), "text"), ["bcd\n"]);
        assert_eq!(members(&renderer.render(raised("", "1", "")), "type"), ["stdout", "error", "end_of_execution"]);
        assert_eq!(members(&renderer.render(stdout(&"x".repeat(LONGEST + 1))), "type"), ["stdout"]);
    }

    #[test]
    fn all_that_is_printed_can_be_one_piece() {
        let stderr = |text: &str| Event::Stderr { text: text.to_owned() };
        let mut renderer = renderer(json!({"pieces": "whole"}));
        for event in [stdout("a\n"), stderr("e"), stdout("b"), stderr("f\n")] {
            assert!(renderer.render(event).is_empty());
        }
        let rendered = renderer.render(Event::Output(Output::default()));
        assert_eq!(members(&rendered, "text"), [json!("a\nb"), json!("ef\n"), Value::Null]);
        assert_eq!(members(&renderer.render(stderr(&"x".repeat(LONGEST + 1))), "type"), ["stderr"]);
        assert_eq!(members(&renderer.render(raised("", "1", "")), "type"), ["error", "end_of_execution"]);
    }

    #[test]
    fn the_end_of_a_line_is_a_piece_of_its_own() {
        let mut renderer = renderer(json!({"pieces": "line_ends"}));
        assert_eq!(members(&renderer.render(stdout("a\n\nb")), "text"), ["a", "\n", "\n", "b"]);
        assert_eq!(members(&renderer.render(Event::Stderr { text: "e\n".to_owned() }), "type"), ["stderr", "stderr"]);
    }

    #[test]
    fn values_that_are_displayed_are_not_the_main_one() {
        let value = || Event::Output(Output { main: true, ..Output::default() });
        assert_eq!(members(&renderer(json!({})).render(value()), "is_main_result"), [true]);
        assert_eq!(members(&renderer(json!({"displays_values": true})).render(value()), "is_main_result"), [false]);
    }

    #[test]
    fn errors_have_the_notebooks_names() {
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
