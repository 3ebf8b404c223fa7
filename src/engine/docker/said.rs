//! What an agent says on its standard error, for the server's log. Root in a sandbox can write there too: it is to forge no line of
//! the log, and not to fill the disk that holds it.

/// What of one agent's words is repeated, bytes.
const MAX_BYTES: usize = 64 << 10;

/// What a line in the log takes beside its words, about.
const LINE_BYTES: usize = 100;

/// The words of one agent.
#[derive(Debug)]
pub(super) struct Said {
    left: usize,
}

impl Said {
    pub(super) fn new() -> Self {
        Self { left: MAX_BYTES }
    }

    /// A piece of them as lines, in which nothing but text is left; none once it has said too much.
    pub(super) fn lines(&mut self, message: &[u8]) -> Vec<String> {
        if self.left == 0 {
            return Vec::new();
        }
        let printable = |letter: char| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter };
        let mut lines = Vec::new();
        for line in message.split_inclusive(|byte| *byte == b'\n') {
            let line = line.trim_ascii_end();
            let repeated = &line[..line.len().min(self.left)];
            self.left = self.left.saturating_sub(repeated.len() + LINE_BYTES);
            lines.push(String::from_utf8_lossy(repeated).chars().map(printable).collect());
            if self.left == 0 {
                lines.push("what it says from here on is not repeated".to_owned());
                break;
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_repeated_without_what_is_no_text() {
        assert_eq!(Said::new().lines(b"one\ntwo\x1b[2J\0\xff\r\n"), ["one", "two\u{fffd}[2J\u{fffd}\u{fffd}"]);
    }

    #[test]
    fn an_agent_that_says_too_much_is_heard_no_more() {
        let mut said = Said::new();
        let repeated: usize = (0..1000).flat_map(|_| said.lines(&[b'x'; 1000])).map(|line| line.len()).sum();
        assert!((MAX_BYTES / 2..MAX_BYTES + 100).contains(&repeated), "{repeated}");
        assert!(said.lines(b"more").is_empty());
        assert!(Said::new().lines(&[b'\n'; 100_000]).len() < 1000, "lines without words take room too");
    }
}
