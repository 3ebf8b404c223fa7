//! `POST /files`: uploads of files. Content is streamed to the sandbox and not held in memory.
//!
//! Source: e2b-dev/infra, `packages/envd/internal/api/upload.go`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Component, Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_compression::tokio::bufread::GzipDecoder;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::Extension;
use axum::http::{HeaderMap, HeaderValue, header};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::io::{ReaderStream, StreamReader};

use super::filesystem::METADATA;
use super::signature::FilesQuery;
use crate::http::e2b::error::E2bError;
use crate::http::e2b::operation_error::operation_error;
use crate::http::single::single;
use crate::protocol::{FileQuery, WriteQuery};
use crate::sandbox::Sandbox;

/// The largest part of a multipart body that multer may hold unparsed: the headers of a part, or the text before the
/// first part.
const MAX_HELD_BYTES: usize = 4 << 20;

const METADATA_PREFIX: &str = "x-metadata-";
/// The longest key of metadata. With its prefix, it is the name of an extended attribute, of at most 255 bytes.
const MAX_METADATA_KEY_BYTES: usize = 255 - "user.e2b.".len();

type Content = BoxStream<'static, std::io::Result<Bytes>>;

pub(in crate::http::e2b) async fn upload(
    Extension(sandbox): Extension<Arc<Sandbox>>,
    query: FilesQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Vec<Value>>, E2bError> {
    let text = |name| {
        let value = single(&headers, name).map_err(|err| E2bError::bad_request(err.to_string()))?;
        Ok::<_, E2bError>(value.unwrap_or_default())
    };
    // Several lines are one list.
    let encodings: Vec<_> = headers.get_all(header::CONTENT_ENCODING).iter().map(HeaderValue::as_bytes).collect();
    let content = decompressed(body, &String::from_utf8_lossy(&encodings.join(&b", "[..])))?;
    let (kind, path) = (text("Content-Type")?, query.path.filter(|path| !path.is_empty()));
    let metadata = metadata(&headers)?;
    let mut upload = Upload { sandbox: &sandbox, user: query.username, metadata, home: None, written: Vec::new() };
    match kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/octet-stream" => {
            let path = path.ok_or_else(|| E2bError::bad_request("the query parameter path is missing"))?;
            upload.add(&path, content).await?;
        }
        "multipart/form-data" => {
            let boundary = multer::parse_boundary(kind).map_err(|err| E2bError::bad_request(err.to_string()))?;
            upload.add_parts(path.as_deref(), content, boundary).await?;
        }
        other => {
            let message = format!("content type `{other}`: must be multipart/form-data or application/octet-stream");
            return Err(E2bError::bad_request(message));
        }
    }
    Ok(Json(upload.shape()))
}

fn decompressed(body: Body, encoding: &str) -> Result<Content, E2bError> {
    let content = body.into_data_stream().map_err(std::io::Error::other);
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(content.boxed()),
        "gzip" => {
            let mut decoder = GzipDecoder::new(StreamReader::new(content));
            decoder.multiple_members(true);
            Ok(ReaderStream::with_capacity(decoder, 64 << 10).boxed())
        }
        other => Err(E2bError::bad_request(format!("content encoding `{other}`: must be gzip or identity"))),
    }
}

/// Reads the metadata from the headers `X-Metadata-KEY: VALUE`.
fn metadata(headers: &HeaderMap) -> Result<BTreeMap<String, String>, E2bError> {
    let keys = headers.keys().filter_map(|name| Some((name.as_str().strip_prefix(METADATA_PREFIX)?, name)));
    keys.map(|(key, name)| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().expect("a name has a value");
        if values.any(|other| other != value) {
            let message = format!("metadata `{key}`: there are two values");
            return Err(E2bError::bad_request(message));
        }
        match value.to_str() {
            Ok(value) if (1..=MAX_METADATA_KEY_BYTES).contains(&key.len()) => Ok((key.to_owned(), value.to_owned())),
            Ok(_) => {
                let message =
                    format!("metadata `{key}`: a key must have from 1 to {MAX_METADATA_KEY_BYTES} characters");
                Err(E2bError::bad_request(message))
            }
            Err(_) => Err(E2bError::bad_request(format!("metadata `{key}`: a value must be printable ASCII"))),
        }
    })
    .collect()
}

/// The state of one upload request.
struct Upload<'a> {
    sandbox: &'a Sandbox,
    user: Option<String>,
    metadata: BTreeMap<String, String>,
    /// The user's home directory, once it is known.
    home: Option<String>,
    written: Vec<PathBuf>,
}

impl Upload<'_> {
    /// Writes every part named `file` to `path` or, without it, to the part's file name, which may be a path.
    async fn add_parts(&mut self, path: Option<&str>, content: Content, boundary: String) -> Result<(), E2bError> {
        let held = Arc::new(AtomicUsize::new(0));
        let mut parts = multer::Multipart::new(limited(content, Arc::clone(&held)), boundary);
        loop {
            let part = parts.next_field().await.map_err(unreadable)?;
            held.store(0, Ordering::Relaxed);
            let Some(part) = part else { return Ok(()) };
            let (is_file, name) = (part.name() == Some("file"), part.file_name().map(str::to_owned));
            let content = part.inspect_ok(|_| held.store(0, Ordering::Relaxed));
            if !is_file {
                content.try_for_each(|_| std::future::ready(Ok(()))).await.map_err(unreadable)?;
                continue;
            }
            let path = path.or(name.as_deref()).filter(|path| !path.is_empty());
            let path =
                path.ok_or_else(|| E2bError::bad_request("a part has no file name and the query has no path"))?;
            self.add(path, content).await?;
        }
    }

    /// Writes one file.
    async fn add<E: Display>(
        &mut self,
        path: &str,
        content: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<(), E2bError> {
        let resolved = self.resolve(path).await?;
        if self.written.contains(&resolved) {
            let message = format!(
                "you cannot upload multiple files to the same path '{}' in one upload request, only the first \
                 specified file was uploaded",
                resolved.display()
            );
            return Err(E2bError::bad_request(message));
        }
        let attributes = self.metadata.iter().map(|(key, value)| (format!("{METADATA}{key}"), value));
        let attributes: BTreeMap<_, _> = attributes.collect();
        let query = WriteQuery {
            path: path.to_owned(),
            user: self.user.clone(),
            attributes: Some(serde_json::to_string(&attributes).expect("strings can be written as JSON")),
            attribute_prefix: METADATA.to_owned(),
        };
        store(self.sandbox, &query, content).await?;
        self.written.push(resolved);
        Ok(())
    }

    /// Returns the absolute form of a path, for the response and to detect duplicates. The agent resolves the path
    /// itself when it writes the file.
    async fn resolve(&mut self, path: &str) -> Result<PathBuf, E2bError> {
        if path.starts_with('/') {
            return Ok(absolute("/", path));
        }
        if self.home.is_none() {
            let query = FileQuery { path: "~".to_owned(), user: self.user.clone() };
            self.home = Some(self.sandbox.stat(&query).await.map_err(operation_error)?.path);
        }
        Ok(absolute(self.home.as_deref().unwrap_or("/"), path))
    }

    fn shape(self) -> Vec<Value> {
        let shape = |path: PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let mut shape = json!({"path": path.to_string_lossy(), "name": name, "type": "file"});
            if !self.metadata.is_empty() {
                shape["metadata"] = json!(self.metadata);
            }
            shape
        };
        self.written.into_iter().map(shape).collect()
    }
}

/// Returns a path as absolute and without `.`, `..` and double slashes, without access to the file system.
fn absolute(home: &str, path: &str) -> PathBuf {
    let below_home = path.strip_prefix('~').map_or(path, |rest| rest.trim_start_matches('/'));
    let mut clean = PathBuf::from("/");
    for part in Path::new(home).join(below_home).components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Sends content to the agent. This function reads the content, to distinguish errors of the content from errors
/// of the agent.
async fn store<E: Display>(
    sandbox: &Sandbox,
    query: &WriteQuery,
    content: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(), E2bError> {
    let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(1);
    let pieces = futures::stream::unfold(receiver, |mut pieces| async { Some((pieces.recv().await?, pieces)) });
    let write = pin!(sandbox.write(query, pieces));
    let feed = pin!(async {
        let mut content = pin!(content);
        while let Some(piece) = content.next().await {
            let (piece, end) = match piece {
                Ok(piece) => (Ok(piece), None),
                Err(err) => (Err(std::io::Error::other("the content is incomplete")), Some(unreadable(err))),
            };
            // If the receiver is gone, the write has ended, and its result contains the reason.
            let sent = sender.send(piece).await.is_ok();
            match end {
                Some(err) => return Err(err),
                None if sent => {}
                None => break,
            }
        }
        drop(sender);
        Ok(())
    });
    match futures::future::select(write, feed).await {
        futures::future::Either::Left((written, _)) => written,
        futures::future::Either::Right((fed, write)) => {
            fed?;
            write.await
        }
    }
    .map_err(operation_error)
}

/// Limits the memory that multer uses. It reads all data that is ready before it parses any, and keeps the data that it
/// cannot parse yet. This stream gives it one piece at a time, and fails once `held`, the data that it has not
/// returned, exceeds [`MAX_HELD_BYTES`].
///
/// The stream yields to the scheduler after each piece rather than before it, because multer fails if the end of the
/// body comes together with the first piece.
fn limited(content: Content, held: Arc<AtomicUsize>) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    futures::stream::try_unfold((content, false), move |(mut content, must_yield)| {
        let held = Arc::clone(&held);
        async move {
            if must_yield {
                tokio::task::yield_now().await;
            }
            let Some(piece) = content.try_next().await? else { return Ok(None) };
            match held.fetch_add(piece.len(), Ordering::Relaxed) + piece.len() > MAX_HELD_BYTES {
                true => {
                    Err(std::io::Error::other(format!("more than {MAX_HELD_BYTES} bytes outside the content of parts")))
                }
                false => Ok(Some((piece, (content, true)))),
            }
        }
    })
}

fn unreadable(err: impl Display) -> E2bError {
    E2bError::bad_request(format!("the body cannot be read: {err}"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    async fn parts(pieces: Vec<Bytes>) -> Result<Vec<(String, usize)>, multer::Error> {
        let held = Arc::new(AtomicUsize::new(0));
        let content = futures::stream::iter(pieces.into_iter().map(Ok)).boxed();
        let mut parts = multer::Multipart::new(limited(content, Arc::clone(&held)), "B");
        let mut found = Vec::new();
        while let Some(mut part) = parts.next_field().await? {
            held.store(0, Ordering::Relaxed);
            let mut length = 0;
            while let Some(piece) = part.chunk().await? {
                held.store(0, Ordering::Relaxed);
                length += piece.len();
            }
            found.push((part.file_name().unwrap_or_default().to_owned(), length));
        }
        Ok(found)
    }

    fn part(name: &str, content: &str) -> String {
        format!("--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{content}\r\n")
    }

    #[tokio::test]
    async fn parts_are_read_for_any_size_of_pieces() {
        let whole = format!("{}{}--B--\r\n", part("d/y \u{e9}.txt", "one"), part("", ""));
        let expected = vec![("d/y \u{e9}.txt".to_owned(), 3), (String::new(), 0)];
        for size in [1, 7, 1000] {
            let pieces = whole.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
            assert_eq!(parts(pieces).await.expect("parts"), expected, "{size}");
        }
    }

    #[tokio::test]
    async fn a_large_part_is_accepted_and_a_large_preamble_is_refused() {
        let large = Bytes::from(vec![b'x'; 1 << 20]);
        let mut pieces = vec![Bytes::from(part("a", "").trim_end().to_owned() + "\r\n\r\n")];
        pieces.extend(std::iter::repeat_n(large.clone(), 16));
        pieces.push(Bytes::from("\r\n--B--\r\n"));
        assert_eq!(parts(pieces).await.expect("parts"), [("a".to_owned(), 16 << 20)]);
        assert!(parts(vec![large; 16]).await.is_err());
    }

    #[test]
    fn paths_are_resolved_as_by_the_agent() {
        for (path, expected) in
            [("a/../b//c", "/home/user/b/c"), ("~", "/home/user"), ("~/x", "/home/user/x"), ("/a/./b/../../..", "/")]
        {
            assert_eq!(absolute("/home/user", path), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn metadata_is_read_from_headers() {
        let header = |name: &str, value: HeaderValue| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            metadata(&HeaderMap::from_iter([(name, value)]))
        };
        let found = header("X-Metadata-Author", HeaderValue::from_static("me")).expect("metadata");
        assert_eq!(found, BTreeMap::from([("author".to_owned(), "me".to_owned())]));
        assert!(header("x-metadata-", HeaderValue::from_static("me")).is_err());
        assert!(header(&format!("x-metadata-{}", "k".repeat(300)), HeaderValue::from_static("me")).is_err());
        assert!(header("x-metadata-a", HeaderValue::from_bytes(b"\xff").expect("a value")).is_err());
        assert!(header("x-other", HeaderValue::from_static("me")).expect("none").is_empty());
    }
}
