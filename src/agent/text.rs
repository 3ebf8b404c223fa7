//! Decodes text that arrives in pieces: a character that is cut in two waits for its second part.

use std::mem;

/// A decoder for one stream of UTF-8.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The beginning of an incomplete character, at most three bytes.
    cut: Vec<u8>,
}

impl Decoder {
    /// Decodes all complete characters so far. Bytes that cannot become a character are replaced by U+FFFD.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        let mut pending = mem::take(&mut self.cut);
        pending.extend_from_slice(bytes);
        let mut text = String::with_capacity(pending.len());
        let mut chunks = pending.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && is_cut(invalid) {
                self.cut = invalid.to_vec();
            } else if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }

    /// The rest of the text at the end of the stream: nothing, or U+FFFD for an incomplete character.
    pub(crate) fn finish(&mut self) -> String {
        let cut = mem::take(&mut self.cut);
        String::from_utf8_lossy(&cut).into_owned()
    }
}

/// Whether more bytes could complete these to a character.
fn is_cut(bytes: &[u8]) -> bool {
    !bytes.is_empty() && std::str::from_utf8(bytes).is_err_and(|err| err.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_cut_in_two_is_not_damaged() {
        let text = "a\u{e9}\u{1f600}z";
        for cut in 0..text.len() {
            let mut decoder = Decoder::default();
            let (left, right) = text.as_bytes().split_at(cut);
            assert_eq!(decoder.push(left) + &decoder.push(right) + &decoder.finish(), text, "cut at {cut}");
        }
    }

    #[test]
    fn invalid_bytes_are_replaced_as_the_standard_library_does() {
        let bytes = b"a\xff\xc3(\xf0\x9f\x98b\xe2\x82";
        let mut decoder = Decoder::default();
        let text: String = bytes.iter().map(|byte| decoder.push(&[*byte])).collect();
        assert_eq!(text + &decoder.finish(), String::from_utf8_lossy(bytes));
    }
}
