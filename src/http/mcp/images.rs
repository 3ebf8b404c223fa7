//! The images of a run, which a result has as blocks of content.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::protocol::Output;

/// The most images of a result.
const MAX_IMAGES: usize = 4;
/// The most bytes of one.
const MAX_IMAGE_BYTES: usize = 1 << 20;
/// The types that models can see, with the bytes that such a file begins with.
const TYPES: [(&str, &[u8]); 2] = [("image/png", b"\x89PNG\r\n\x1a\n"), ("image/jpeg", b"\xff\xd8\xff")];

/// Whether an output has an image that a model can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It has one, which is taken or counted as omitted.
    Image,
    /// It has none.
    None,
}

/// Images that have been found, and the number of those that are omitted.
#[derive(Debug)]
pub(super) struct Images {
    are_wanted: bool,
    taken: Vec<(&'static str, Vec<u8>)>,
    too_many: usize,
    too_large: usize,
    not_wanted: usize,
}

impl Images {
    /// Creates an empty collection. Without `are_wanted`, it omits every image.
    pub(super) fn new(are_wanted: bool) -> Self {
        Self { are_wanted, taken: Vec::new(), too_many: 0, too_large: 0, not_wanted: 0 }
    }

    /// Takes the image of an output, if it has one. One output is one image, in several types at most.
    pub(super) fn find(&mut self, output: &Output) -> Found {
        let Some((mime, image)) = TYPES.iter().find_map(|(mime, begin)| Some((*mime, decode(output, mime, begin)?)))
        else {
            return Found::None;
        };
        if !self.are_wanted {
            self.not_wanted += 1;
        } else if image.len() > MAX_IMAGE_BYTES {
            self.too_large += 1;
        } else if self.taken.len() == MAX_IMAGES {
            self.too_many += 1;
        } else {
            self.taken.push((mime, image));
        }
        Found::Image
    }

    /// Returns the images with their types, and a line for each reason why some are omitted.
    pub(super) fn into_parts(self) -> (Vec<(&'static str, Vec<u8>)>, Vec<String>) {
        let reasons = [
            (self.too_many, format!("a result has {MAX_IMAGES} at most")),
            (self.too_large, format!("one has {MAX_IMAGE_BYTES} bytes at most")),
            (self.not_wanted, "this client gets none".to_owned()),
        ];
        let omitted = reasons.into_iter().filter(|(count, _)| *count > 0);
        (self.taken, omitted.map(|(count, reason)| format!("images: {count}, as {reason}")).collect())
    }
}

/// Decodes the data of a type. What does not begin as a file of that type would break the client, so it is no image.
fn decode(output: &Output, mime: &str, begin: &[u8]) -> Option<Vec<u8>> {
    let mut text = output.text(mime)?;
    text.retain(|letter| !letter.is_ascii_whitespace());
    STANDARD.decode(text).ok().filter(|image| image.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(mime: &str, content: &[u8]) -> Output {
        let text = serde_json::value::to_raw_value(&STANDARD.encode(content)).expect("JSON");
        Output { data: [(mime.to_owned(), text)].into_iter().collect(), main: false }
    }

    fn png(size: usize) -> Output {
        output("image/png", &[b"\x89PNG\r\n\x1a\n".to_vec(), vec![0; size - 8]].concat())
    }

    #[test]
    fn only_some_small_files_of_the_right_type_are_images() {
        let mut images = Images::new(true);
        for other in
            [output("image/png", b"GIF89a"), output("image/gif", b"GIF89a"), output("image/svg+xml", b"<svg/>")]
        {
            assert_eq!(images.find(&other), Found::None);
        }
        assert_eq!(images.find(&output("image/jpeg", b"\xff\xd8\xff\xe0")), Found::Image);
        for size in [MAX_IMAGE_BYTES, MAX_IMAGE_BYTES + 1, 8, 9, 10, 11] {
            assert_eq!(images.find(&png(size)), Found::Image);
        }
        let (taken, omitted) = images.into_parts();
        let taken: Vec<_> = taken.iter().map(|(mime, image)| (*mime, image.len())).collect();
        assert_eq!(taken, [("image/jpeg", 4), ("image/png", MAX_IMAGE_BYTES), ("image/png", 8), ("image/png", 9)]);
        assert_eq!(omitted.len(), 2);
        assert!(omitted[0].starts_with("images: 2, ") && omitted[1].starts_with("images: 1, "), "{omitted:?}");
    }

    #[test]
    fn line_ends_in_the_base64_are_allowed() {
        let text = serde_json::value::to_raw_value("/9j/\n4AA=\n").expect("JSON");
        let output = Output { data: [("image/jpeg".to_owned(), text)].into_iter().collect(), main: false };
        assert_eq!(Images::new(true).find(&output), Found::Image);
    }
}
