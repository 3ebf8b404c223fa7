//! Envelopes: the frames around the messages of a stream in the Connect protocol.

use axum::body::Bytes;
use bytes::{Buf, BufMut, BytesMut};
use serde_json::{Value, json};
use tokio_util::codec::Decoder;

use super::error::{Code, ConnectError};

/// The content type of a stream. It must not have a `charset`, with which the Python SDK would not recognise a stream.
pub(in crate::http::e2b) const STREAM_TYPE: &str = "application/connect+json";

/// The largest message that is accepted.
pub(in crate::http::e2b) const MAX_MESSAGE_BYTES: usize = 32 << 20;

const COMPRESSED: u8 = 1;
const END_OF_STREAM: u8 = 2;
/// One byte of flags and four of length.
pub(in crate::http::e2b) const HEAD_BYTES: usize = 5;

/// Decodes envelopes to their messages.
#[derive(Debug)]
pub(in crate::http::e2b) struct Envelopes;

impl Decoder for Envelopes {
    type Item = Bytes;
    type Error = ConnectError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, ConnectError> {
        let Some((mut head, _)) = buffer.split_at_checked(HEAD_BYTES) else { return Ok(None) };
        let (flags, length) = (head.get_u8(), head.get_u32() as usize);
        if flags & COMPRESSED != 0 {
            return Err(ConnectError::new(Code::Unimplemented, "compressed messages are not supported"));
        }
        if flags != 0 {
            return Err(ConnectError::invalid(format!("an envelope has flags that requests do not support: {flags}")));
        }
        if length > MAX_MESSAGE_BYTES {
            let message = format!("a message of {length} bytes is larger than {MAX_MESSAGE_BYTES}");
            return Err(ConnectError::invalid(message));
        }
        if buffer.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        buffer.advance(HEAD_BYTES);
        Ok(Some(buffer.split_to(length).freeze()))
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, ConnectError> {
        match self.decode(buffer)? {
            None if !buffer.is_empty() => Err(ConnectError::invalid("the request ended within a message")),
            envelope => Ok(envelope),
        }
    }
}

impl From<std::io::Error> for ConnectError {
    fn from(err: std::io::Error) -> Self {
        Self::invalid(format!("the body cannot be read: {err}"))
    }
}

/// Encodes a message in its envelope.
pub(in crate::http::e2b) fn envelope(flags: u8, message: &Value) -> Bytes {
    let mut envelope = BytesMut::zeroed(HEAD_BYTES).writer();
    serde_json::to_writer(&mut envelope, message).expect("a JSON value can be written to memory");
    let mut envelope = envelope.into_inner();
    let length = u32::try_from(envelope.len() - HEAD_BYTES).expect("messages are far below 4 GiB");
    envelope[0] = flags;
    envelope[1..HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
    envelope.freeze()
}

/// Encodes the last envelope of a stream, which contains the error, if any.
pub(in crate::http::e2b) fn end_envelope(err: Option<&ConnectError>) -> Bytes {
    envelope(END_OF_STREAM, &err.map_or(json!({}), |err| json!({"error": err})))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Result<Vec<Bytes>, Code> {
        let mut buffer = BytesMut::from(bytes);
        let mut found = Vec::new();
        while let Some(payload) = Envelopes.decode_eof(&mut buffer).map_err(|err| err.code)? {
            found.push(payload);
        }
        Ok(found)
    }

    #[test]
    fn envelopes_are_decoded() {
        let two = [envelope(0, &json!({"a": 1})), envelope(0, &json!({}))].concat();
        assert_eq!(&two[..6], b"\0\0\0\0\x07{");
        assert_eq!(decoded(&two), Ok(vec![Bytes::from("{\"a\":1}"), Bytes::from("{}")]));
        assert_eq!(decoded(b""), Ok(vec![]));
    }

    #[test]
    fn invalid_envelopes_are_refused() {
        for (bytes, code) in [
            (&b"\0\0\0"[..], Code::InvalidArgument),
            (b"\0\0\0\0\x05{}", Code::InvalidArgument),
            (b"\x01\0\0\0\x02{}", Code::Unimplemented),
            (b"\x02\0\0\0\x02{}", Code::InvalidArgument),
            // Refused by its head, before 4 GiB have arrived.
            (b"\0\xff\xff\xff\xff", Code::InvalidArgument),
        ] {
            assert_eq!(decoded(bytes), Err(code), "{bytes:?}");
        }
    }

    #[test]
    fn the_last_envelope_contains_the_error() {
        assert_eq!(&end_envelope(None)[..], b"\x02\0\0\0\x02{}");
        let refused = end_envelope(Some(&ConnectError::new(Code::NotFound, "no")));
        assert_eq!(&refused[HEAD_BYTES..], br#"{"error":{"code":"not_found","message":"no"}}"#);
    }
}
