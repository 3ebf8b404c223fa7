//! Copies an agent's standard error to the server's log. Root in a sandbox can write to it too, and must neither forge
//! lines of the log nor fill its disk.

/// The most bytes of one agent's log that are copied.
const MAX_BYTES: usize = 64 << 10;

/// The approximate size of a line in the server's log without its message, bytes.
const LINE_BYTES: usize = 100;

/// The log of one agent.
#[derive(Debug)]
pub(super) struct AgentLog {
    left: usize,
}

impl AgentLog {
    pub(super) fn new() -> Self {
        Self { left: MAX_BYTES }
    }

    /// Turns a piece of the log into lines of printable text. Returns no lines once the agent has written too much.
    pub(super) fn lines(&mut self, message: &[u8]) -> Vec<String> {
        if self.left == 0 {
            return Vec::new();
        }
        let printable = |letter: char| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter };
        let mut lines = Vec::new();
        for line in message.split_inclusive(|byte| *byte == b'\n') {
            let line = line.trim_ascii_end();
            let copied = &line[..line.len().min(self.left)];
            self.left = self.left.saturating_sub(copied.len() + LINE_BYTES);
            lines.push(String::from_utf8_lossy(copied).chars().map(printable).collect());
            if self.left == 0 {
                lines.push("the rest of this agent's log is left out".to_owned());
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
    fn control_characters_are_replaced() {
        assert_eq!(AgentLog::new().lines(b"one\ntwo\x1b[2J\0\xff\r\n"), ["one", "two\u{fffd}[2J\u{fffd}\u{fffd}"]);
    }

    #[test]
    fn a_long_log_is_cut_off() {
        let mut log = AgentLog::new();
        let copied: usize = (0..1000).flat_map(|_| log.lines(&[b'x'; 1000])).map(|line| line.len()).sum();
        assert!((MAX_BYTES / 2..MAX_BYTES + 100).contains(&copied), "{copied}");
        assert!(log.lines(b"more").is_empty());
        assert!(AgentLog::new().lines(&[b'\n'; 100_000]).len() < 1000, "empty lines count too");
    }
}
