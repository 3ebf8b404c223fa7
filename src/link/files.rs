//! Operations on files and directories.

use std::error::Error;

use bytes::Bytes;
use futures::Stream;
use futures::stream::BoxStream;
use hyper::{HeaderMap, Method};

use super::{Link, LinkError, empty, lines, once, pieces, streamed, with_query};
use crate::protocol::{
    self, Entry, FileQuery, ListQuery, MAX_FILE_LINE_BYTES, MoveQuery, ReadQuery, WatchEvent, WatchQuery, Watcher,
    WriteQuery,
};

/// A file that is being read.
pub struct FileContent {
    /// Its size when it was opened, bytes; always 0 for a file of `procfs`. The size may change while the file is read.
    pub size: u64,
    /// The time of its last change, nanoseconds since 1970.
    pub modified_ns: i64,
    /// Its bytes. Dropping the stream ends the reading.
    pub bytes: BoxStream<'static, Result<Bytes, LinkError>>,
}

impl Link {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when the path is not a file.
    pub async fn read_file(&self, query: &ReadQuery) -> Result<FileContent, LinkError> {
        let response = self.send(Method::GET, &with_query(protocol::FILES, query), empty()).await?;
        let size = header(response.headers(), protocol::FILE_SIZE)?;
        let modified_ns = header(response.headers(), protocol::FILE_MODIFIED)?;
        let bytes = futures::TryStreamExt::map_err(pieces(response), LinkError::broken);
        Ok(FileContent { size, modified_ns, bytes: Box::pin(bytes) })
    }

    /// Writes a file as the user and makes the missing directories above it. Relative paths start at the user's home.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when the path cannot be written.
    pub async fn write_file(&self, path: &str, content: Bytes) -> Result<(), LinkError> {
        let query = WriteQuery { path: path.to_owned(), ..WriteQuery::default() };
        self.send(Method::PUT, &with_query(protocol::FILES, &query), streamed(once(content))).await.map(|_| ())
    }

    /// Writes a file from a stream. If the stream breaks off, the file keeps the part that arrived.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when the path cannot be written, [`LinkError::Broken`] also when the content broke off.
    pub async fn write_file_from<E>(
        &self,
        query: &WriteQuery,
        content: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> Result<(), LinkError>
    where
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        self.send(Method::PUT, &with_query(protocol::FILES, query), streamed(content)).await.map(|_| ())
    }

    /// Reads the metadata of a path.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when it does not exist.
    pub async fn stat(&self, query: &FileQuery) -> Result<Entry, LinkError> {
        self.call(Method::GET, &with_query(protocol::ENTRY, query), empty()).await
    }

    /// Streams the entries of a directory in lexical order, each directory followed by its content.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when it is not a directory.
    pub async fn list_directory(
        &self,
        query: &ListQuery,
    ) -> Result<impl Stream<Item = Result<Entry, LinkError>> + Send + Unpin + 'static + use<>, LinkError> {
        Ok(lines(self.send(Method::GET, &with_query(protocol::LIST, query), empty()).await?, MAX_FILE_LINE_BYTES))
    }

    /// Makes a directory and the missing ones above it.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when the path already exists.
    pub async fn make_directory(&self, query: &FileQuery) -> Result<Entry, LinkError> {
        self.call(Method::POST, &with_query(protocol::DIRECTORIES, query), empty()).await
    }

    /// Moves a file or a directory and makes the missing directories above the new path.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when it does not exist.
    pub async fn move_path(&self, query: &MoveQuery) -> Result<Entry, LinkError> {
        self.call(Method::POST, &with_query(protocol::MOVE, query), empty()).await
    }

    /// Removes a file, or a directory with its content. A path that does not exist is not an error.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when the operating system does not allow it.
    pub async fn remove_path(&self, query: &FileQuery) -> Result<(), LinkError> {
        self.send(Method::DELETE, &with_query(protocol::FILES, query), empty()).await.map(|_| ())
    }

    /// Streams the changes in a directory. When this returns, the watch is in place.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when it is not a directory.
    pub async fn watch(
        &self,
        query: &WatchQuery,
    ) -> Result<impl Stream<Item = Result<WatchEvent, LinkError>> + Send + Unpin + 'static + use<>, LinkError> {
        Ok(lines(self.send(Method::GET, &with_query(protocol::WATCH, query), empty()).await?, MAX_FILE_LINE_BYTES))
    }

    /// Watches a directory until [`Link::remove_watcher`]; the agent keeps the events.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when it is not a directory.
    pub async fn create_watcher(&self, query: &WatchQuery) -> Result<Watcher, LinkError> {
        self.call(Method::POST, &with_query(protocol::WATCHERS, query), empty()).await
    }

    /// Streams the events since the last call, and ends. It includes the events of every operation that has finished.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when there is no such watcher.
    pub async fn watcher_events(
        &self,
        watcher: &Watcher,
    ) -> Result<impl Stream<Item = Result<WatchEvent, LinkError>> + Send + Unpin + 'static + use<>, LinkError> {
        let response = self.send(Method::GET, &with_query(protocol::WATCHERS, watcher), empty()).await?;
        Ok(lines(response, MAX_FILE_LINE_BYTES))
    }

    /// Ends a watch.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when there is no such watcher.
    pub async fn remove_watcher(&self, watcher: &Watcher) -> Result<(), LinkError> {
        self.send(Method::DELETE, &with_query(protocol::WATCHERS, watcher), empty()).await.map(|_| ())
    }
}

fn header<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Result<T, LinkError> {
    let value = headers.get(name).and_then(|value| value.to_str().ok()?.parse().ok());
    value.ok_or_else(|| LinkError::broken(format!("the agent's answer lacks the header `{name}`")))
}
