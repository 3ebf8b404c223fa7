//! The result of `run_code`.
//!
//! A client passes the structured content to its model as text, and cuts or refuses what is too long. So texts are cut
//! here, each by itself and before they are JSON, and images are blocks of content and no part of the JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmcp::model::{CallToolResult, ContentBlock};
use serde::Serialize;

use super::images::{Found, Images};
use crate::protocol::{Exception, Outcome, OutcomeKind, Usage};
use crate::sandbox::Report;

/// The most characters of one text, and of all results together.
pub(super) const MAX_TEXT: usize = 20_000;
/// What each result counts in addition to its characters, so that there are not too many empty ones.
const RESULT_COST: usize = 10;

/// The structured content.
#[derive(Debug, Serialize)]
struct RunResult {
    outcome: Outcome,
    results: Vec<String>,
    stdout: String,
    stderr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    exception: Option<Exception>,
    usage: Usage,
    /// Whether a text was cut, or something was omitted.
    truncated: bool,
    /// What was omitted as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    omitted: Vec<String>,
}

/// Renders a report. Without `with_images`, images are omitted.
pub(super) fn render(report: Report, with_images: bool) -> CallToolResult {
    let Report { place: _, stdout, stderr, outputs, outcome, exception, usage } = report;
    let failed = outcome.kind != OutcomeKind::Ok;
    let (mut texts, mut images) = (Texts::default(), Images::new(with_images));
    let mut results = Vec::new();
    let mut other_types = Vec::new();
    for output in &outputs {
        let text = output.text("text/plain");
        let has_text = text.is_some();
        results.extend(text);
        if images.find(output) == Found::None && !has_text {
            other_types.extend(output.data.keys().map(|mime| texts.cut(mime.clone(), 100)));
        }
    }
    let outcome = Outcome { message: texts.cut(outcome.message, MAX_TEXT), ..outcome };
    let results = texts.list(results);
    let stdout = texts.cut(stdout, MAX_TEXT);
    let stderr = texts.cut(stderr, MAX_TEXT);
    let exception = exception.map(|exception| Exception {
        name: texts.cut(exception.name, MAX_TEXT),
        value: texts.cut(exception.value, MAX_TEXT),
        traceback: texts.cut(exception.traceback, MAX_TEXT),
    });
    let (blocks, mut omitted) = images.into_parts();
    if texts.results_omitted > 0 {
        omitted.push(format!("{} more results", texts.results_omitted));
    }
    if !other_types.is_empty() {
        other_types.sort_unstable();
        other_types.dedup();
        other_types.truncate(10);
        omitted.push(format!("outputs without a text, of the types {}", other_types.join(", ")));
    }
    let truncated = texts.is_cut || !omitted.is_empty();
    let structured = RunResult { outcome, results, stdout, stderr, exception, usage, truncated, omitted };
    let structured = serde_json::to_value(structured).expect("our own shapes can be written as JSON");
    let mut result = match failed {
        true => CallToolResult::structured_error(structured),
        false => CallToolResult::structured(structured),
    };
    result.content.extend(blocks.into_iter().map(|(mime, image)| ContentBlock::image(STANDARD.encode(image), mime)));
    result
}

/// Cuts texts, and notes whether it has cut one.
#[derive(Debug, Default)]
struct Texts {
    is_cut: bool,
    results_omitted: usize,
}

impl Texts {
    /// Keeps the head and the tail of a text that has more than `most` characters.
    fn cut(&mut self, text: String, most: usize) -> String {
        // A character is a byte at least.
        if text.len() <= most {
            return text;
        }
        let count = text.chars().count();
        if count <= most {
            return text;
        }
        self.is_cut = true;
        let (head, tail) = (most.div_ceil(2), most / 2);
        let at = |index: usize| text.char_indices().nth(index).map_or(text.len(), |(at, _)| at);
        let (head_end, tail_start) = (at(head), at(count - tail));
        format!("{}\n[... {} characters ...]\n{}", &text[..head_end], count - most, &text[tail_start..])
    }

    /// Keeps as many results as fit in the length of one text.
    fn list(&mut self, results: Vec<String>) -> Vec<String> {
        let (mut left, count) = (MAX_TEXT, results.len());
        let mut kept = Vec::new();
        for result in results {
            let Some(room) = left.checked_sub(RESULT_COST).filter(|room| *room > 0) else { break };
            left = room.saturating_sub(result.chars().count());
            kept.push(self.cut(result, room));
        }
        self.results_omitted = count - kept.len();
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_head_and_its_tail() {
        let mut texts = Texts::default();
        assert_eq!(texts.cut("é".repeat(10), 10), "é".repeat(10));
        assert_eq!(texts.cut(String::new(), 10), "");
        assert!(!texts.is_cut);
        assert_eq!(texts.cut("aébcdefghéz".to_owned(), 5), "aéb\n[... 6 characters ...]\néz");
        assert!(texts.is_cut);
    }

    #[test]
    fn results_fit_together_in_the_length_of_one_text() {
        let mut texts = Texts::default();
        let kept = texts.list(vec!["a".to_owned(), String::new(), "b".to_owned()]);
        assert_eq!((kept, texts.results_omitted), (vec!["a".to_owned(), String::new(), "b".to_owned()], 0));
        assert_eq!(texts.list(vec![String::new(); 100_000]).len(), MAX_TEXT / RESULT_COST - 1);
        assert_eq!(texts.results_omitted, 100_000 - (MAX_TEXT / RESULT_COST - 1));
        assert!(!texts.is_cut);
        let kept = texts.list(vec!["a".repeat(MAX_TEXT - 100), "b".repeat(1000), "c".to_owned()]);
        assert_eq!((kept.len(), texts.results_omitted), (2, 1));
        assert!(texts.is_cut && kept[1].starts_with("bb") && kept[1].chars().count() < 150);
    }
}
