//! Files.

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
    /// Its size when it was opened, bytes; 0 for a file of `procfs`, whatever is in it. Not a promise: it may change
    /// meanwhile.
    pub size: u64,
    /// The time of its last change, nanoseconds since 1970.
    pub modified_ns: i64,
    /// Its bytes. Dropping it ends the reading.
    pub bytes: BoxStream<'static, Result<Bytes, LinkError>>,
}

impl Link {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when the path is not that of a file.
    pub async fn read_file(&self, asked: &ReadQuery) -> Result<FileContent, LinkError> {
        let response = self.send(Method::GET, &with_query(protocol::FILES, asked), empty()).await?;
        let size = header(response.headers(), protocol::FILE_SIZE)?;
        let modified_ns = header(response.headers(), protocol::FILE_MODIFIED)?;
        let bytes = futures::TryStreamExt::map_err(pieces(response), LinkError::broken);
        Ok(FileContent { size, modified_ns, bytes: Box::pin(bytes) })
    }

    /// Writes a file as the user, with the directories above it; relative paths start at the user's home.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when the path cannot be written.
    pub async fn write_file(&self, path: &str, content: Bytes) -> Result<(), LinkError> {
        let asked = WriteQuery { path: path.to_owned(), ..WriteQuery::default() };
        self.send(Method::PUT, &with_query(protocol::FILES, &asked), streamed(once(content))).await.map(|_| ())
    }

    /// The same with content that is not there yet. If that breaks off, a part of it is left in the file.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when the path cannot be written, [`LinkError::Broken`] also when the content broke off.
    pub async fn write_file_from<E>(
        &self,
        asked: &WriteQuery,
        content: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> Result<(), LinkError>
    where
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        self.send(Method::PUT, &with_query(protocol::FILES, asked), streamed(content)).await.map(|_| ())
    }

    /// What is known of a path.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when it does not exist.
    pub async fn stat(&self, asked: &FileQuery) -> Result<Entry, LinkError> {
        self.call(Method::GET, &with_query(protocol::ENTRY, asked), empty()).await
    }

    /// Streams what is in a directory in lexical order, each directory followed by what is in it.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when it is not a directory.
    pub async fn list_directory(
        &self,
        asked: &ListQuery,
    ) -> Result<impl Stream<Item = Result<Entry, LinkError>> + Send + Unpin + 'static + use<>, LinkError> {
        Ok(lines(self.send(Method::GET, &with_query(protocol::LIST, asked), empty()).await?, MAX_FILE_LINE_BYTES))
    }

    /// Makes a directory and those above it.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when it exists, or something else of its name does.
    pub async fn make_directory(&self, asked: &FileQuery) -> Result<Entry, LinkError> {
        self.call(Method::POST, &with_query(protocol::DIRECTORIES, asked), empty()).await
    }

    /// Moves a file or a directory, making the directories above its new place.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when it does not exist.
    pub async fn move_path(&self, asked: &MoveQuery) -> Result<Entry, LinkError> {
        self.call(Method::POST, &with_query(protocol::MOVE, asked), empty()).await
    }

    /// Removes a file, or a directory with all that is in it. What does not exist is removed already.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when the operating system will not.
    pub async fn remove_path(&self, asked: &FileQuery) -> Result<(), LinkError> {
        self.send(Method::DELETE, &with_query(protocol::FILES, asked), empty()).await.map(|_| ())
    }

    /// Streams what happens in a directory. When this returns, the watch is in place.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when it is not a directory.
    pub async fn watch(
        &self,
        asked: &WatchQuery,
    ) -> Result<impl Stream<Item = Result<WatchEvent, LinkError>> + Send + Unpin + 'static + use<>, LinkError> {
        Ok(lines(self.send(Method::GET, &with_query(protocol::WATCH, asked), empty()).await?, MAX_FILE_LINE_BYTES))
    }

    /// Watches a directory until [`Link::remove_watcher`]; the agent keeps the events.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when it is not a directory.
    pub async fn create_watcher(&self, asked: &WatchQuery) -> Result<Watcher, LinkError> {
        self.call(Method::POST, &with_query(protocol::WATCHERS, asked), empty()).await
    }

    /// Streams what happened since the last time, and ends. Of an operation that has finished, the events are there.
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
    value.ok_or_else(|| LinkError::broken(format!("the agent's answer lacks the header {name}")))
}
