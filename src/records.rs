//! The framing of streamed bodies on the link: records of at least 512 bytes.
//!
//! h2 protects itself against peers that send many empty or tiny DATA frames. 100 empty frames in a connection's life
//! end the connection. Every unread frame of less than 256 bytes is charged to a budget, and a stream that is reset
//! never pays its charge back. A sandbox can serve requests for days, print one byte at a time, and lose clients in the
//! middle of a stream. Therefore every streamed body is cut into records here. The frames that a record fills add more
//! to the budget than a small remainder at the edge of a window takes out of it, and the windows bound the number of
//! waiting frames.
//!
//! A request or an answer that is a single value needs no records: it is the last frame of its stream, which is not
//! charged.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Decoder, Encoder, FramedRead, FramedWrite};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

/// The shortest record with its head and padding, bytes. h2 0.4.20 charges frames below 256 bytes and credits longer
/// ones.
const MIN_RECORD_BYTES: usize = 512;

/// The largest payload of one record, bytes. A longer piece becomes several records.
const MAX_PIECE_BYTES: usize = 64 << 10;

/// The size of a record's head, bytes: the length of its payload, big-endian.
const HEAD_BYTES: usize = 4;

/// The codec of records: a length, a payload of that many bytes, and zeros up to [`MIN_RECORD_BYTES`].
#[derive(Debug, Clone, Copy)]
struct Records;

impl Encoder<Bytes> for Records {
    type Error = io::Error;

    fn encode(&mut self, piece: Bytes, records: &mut BytesMut) -> io::Result<()> {
        for piece in piece.chunks(MAX_PIECE_BYTES) {
            let padding = MIN_RECORD_BYTES.saturating_sub(HEAD_BYTES + piece.len());
            records.reserve(HEAD_BYTES + piece.len() + padding);
            records.put_u32(u32::try_from(piece.len()).expect("a piece is short"));
            records.put_slice(piece);
            records.put_bytes(0, padding);
        }
        Ok(())
    }
}

impl Decoder for Records {
    type Item = Bytes;
    type Error = io::Error;

    fn decode(&mut self, records: &mut BytesMut) -> io::Result<Option<Bytes>> {
        let Some(head) = records.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        if length > MAX_PIECE_BYTES {
            let message = format!("a record of {length} bytes is longer than {MAX_PIECE_BYTES}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let record = MIN_RECORD_BYTES.max(HEAD_BYTES + length);
        if records.len() < record {
            records.reserve(record - records.len());
            return Ok(None);
        }
        let mut record = records.split_to(record);
        record.advance(HEAD_BYTES);
        record.truncate(length);
        Ok(Some(record.freeze()))
    }
}

/// Encodes pieces as records. Empty pieces are left out.
pub fn encode<E>(pieces: impl Stream<Item = Result<Bytes, E>>) -> impl Stream<Item = Result<Bytes, E>> {
    pieces.flat_map(|piece| match piece {
        Ok(piece) => stream::iter(cut(piece).map(Ok)).left_stream(),
        Err(err) => stream::iter([Err(err)]).right_stream(),
    })
}

/// Cuts a piece into records, each encoded when the iterator yields it.
fn cut(mut piece: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let next = piece.split_to(piece.len().min(MAX_PIECE_BYTES));
        let mut record = BytesMut::new();
        Records.encode(next, &mut record).expect("any piece can be encoded");
        (!record.is_empty()).then(|| record.freeze())
    })
}

/// Decodes the records that [`encode`] made, wherever they were split on their way.
///
/// # Errors
///
/// An error of the stream itself, [`io::ErrorKind::InvalidData`] for bytes that are not records, and another error when
/// the last record is incomplete.
pub fn decode<E>(
    records: impl Stream<Item = Result<Bytes, E>> + Send + Unpin,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Unpin
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    FramedRead::new(StreamReader::new(records.map_err(io::Error::other)), Records)
}

/// Wraps `io` into a connection that carries its bytes in records. Each direction can be shut down on its own.
pub fn connection(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
) -> impl AsyncRead + AsyncWrite + Send + Unpin + 'static {
    let (reader, writer) = tokio::io::split(io);
    let reader = StreamReader::new(FramedRead::new(reader, Records));
    let writer = SinkWriter::new(CopyToBytes::new(FramedWrite::new(writer, Records)));
    tokio::io::join(reader, writer)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pieces(lengths: &[usize]) -> Vec<Bytes> {
        lengths.iter().enumerate().map(|(index, length)| vec![index as u8; *length].into()).collect()
    }

    async fn sent(pieces: &[Bytes]) -> Vec<Bytes> {
        let pieces = stream::iter(pieces.iter().cloned().map(Ok::<_, Infallible>));
        encode(pieces).map(|piece| piece.expect("no error")).collect().await
    }

    #[tokio::test]
    async fn no_piece_is_sent_empty_or_small() {
        let sent = sent(&pieces(&[0, 1, 0, 255, 507, 508, 509, 100_000])).await;
        assert_eq!(sent.iter().map(Bytes::len).collect::<Vec<_>>(), [512, 512, 512, 512, 513, 65_540, 34_468]);
    }

    #[tokio::test]
    async fn pieces_arrive_as_sent_wherever_the_records_are_split() {
        let pieces = pieces(&[3, 0, 1, 600, 65_536, 65_537, 2]);
        let whole: Vec<u8> = pieces.concat();
        let sent = sent(&pieces).await.concat();
        for cut in [1, 7, 511, 512, 513, 16_384, sent.len()] {
            let cut = stream::iter(sent.chunks(cut).map(|cut| Ok::<_, Infallible>(Bytes::copy_from_slice(cut))));
            let arrived: Vec<Bytes> = decode(cut).map(|piece| piece.expect("no error")).collect().await;
            assert_eq!(arrived.concat(), whole);
        }
    }

    #[tokio::test]
    async fn bytes_that_are_not_a_whole_record_are_an_error() {
        let garbage = stream::iter([Ok::<_, Infallible>(Bytes::from_static(&[0xff; 600]))]);
        let refused = decode(garbage).next().await.expect("an item").expect_err("garbage");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        let cut = sent(&pieces(&[700])).await.concat();
        let cut = stream::iter([Ok::<_, Infallible>(Bytes::copy_from_slice(&cut[..650]))]);
        assert!(decode(cut).next().await.expect("an item").is_err(), "an incomplete record is not a piece");
    }

    #[tokio::test]
    async fn each_direction_of_a_connection_ends_on_its_own() {
        let (near, far) = tokio::io::duplex(1024);
        let (mut near, mut far) = (connection(near), connection(far));
        near.write_all(b"question").await.expect("room");
        near.shutdown().await.expect("an end");
        let mut question = String::new();
        far.read_to_string(&mut question).await.expect("a question");
        assert_eq!(question, "question");
        let long = "answer ".repeat(100_000);
        let (written, read) = tokio::join!(
            async {
                far.write_all(long.as_bytes()).await.expect("it is read");
                far.shutdown().await
            },
            async {
                let mut answer = String::new();
                near.read_to_string(&mut answer).await.map(|_| answer)
            }
        );
        written.expect("an end");
        assert!(read.expect("an answer") == long);
    }
}
