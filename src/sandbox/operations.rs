//! The operations of a kept sandbox on files, processes, contexts and ports. Each is one call on its link.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::OperationError;
use super::execution::Execution;
use super::kept::Sandbox;
use super::record::Origin;
use crate::link::{FileContent, LinkError};
use crate::protocol::{
    Context, Entry, Execute, FileQuery, ListQuery, MoveQuery, OutcomeKind, ProcessEvent, ProcessInfo, ProcessSelector,
    ReadQuery, StartContext, StartProcess, TerminalSize, WatchEvent, WatchQuery, Watcher, WriteQuery,
};

/// The items of an operation, as they arrive. Dropping the stream ends the operation.
pub type Items<T> = BoxStream<'static, Result<T, OperationError>>;

fn items<T>(stream: impl Stream<Item = Result<T, LinkError>> + Send + 'static) -> Items<T> {
    stream.map_err(OperationError::from).boxed()
}

/// A file that is being read.
pub struct File {
    /// Its size when it was opened, bytes; always 0 for a file of `procfs`. The file may grow or shrink while it is
    /// read.
    pub size: u64,
    /// The time of its last modification, nanoseconds since 1970.
    pub modified_ns: i64,
    /// Its content.
    pub bytes: Items<Bytes>,
}

/// Contexts and executions.
impl Sandbox {
    /// Executes code in a context. Dropping the execution interrupts the code.
    ///
    /// # Errors
    ///
    /// `Code::NotFound` for an unknown context, `Code::InvalidArgument` for a `cwd` that cannot be entered. The outcome of the
    /// code is an event.
    pub async fn execute(self: &Arc<Self>, execute: &Execute, origin: Origin) -> Result<Execution, OperationError> {
        Execution::start(self, execute, origin).await
    }

    /// Lists the contexts in the order of their creation.
    ///
    /// # Errors
    ///
    /// When the sandbox is lost.
    pub async fn contexts(&self) -> Result<Vec<Context>, OperationError> {
        Ok(self.link().contexts().await?)
    }

    /// Starts a context and returns once its interpreter waits for code.
    ///
    /// # Errors
    ///
    /// `Code::NotFound` when the image lacks the language, `Code::InvalidArgument` when `cwd` cannot be entered, and when the
    /// runner does not start.
    pub async fn start_context(&self, request: &StartContext) -> Result<Context, OperationError> {
        Ok(self.link().start_context(request).await?)
    }

    /// The id of the default context of a language, for requests that name no context. Starts it at the first call.
    ///
    /// # Errors
    ///
    /// As for [`Self::start_context`].
    pub async fn default_context(&self, language: &str) -> Result<String, OperationError> {
        let mut defaults = self.defaults.lock().await;
        if let Some(id) = defaults.get(language) {
            return Ok(id.clone());
        }
        let request = StartContext { language: language.to_owned(), ..StartContext::default() };
        let started = self.start_context(&request).await?;
        defaults.insert(language.to_owned(), started.id.clone());
        Ok(started.id)
    }

    /// Replaces a context's interpreter by a new one. Executions in it end with
    /// [`OutcomeKind::Restarted`](crate::protocol::OutcomeKind::Restarted), and are counted from 1 again.
    ///
    /// # Errors
    ///
    /// `Code::NotFound` for an unknown context, and when the runner does not start.
    pub async fn restart_context(&self, id: &str) -> Result<(), OperationError> {
        self.link().restart_context(id).await?;
        self.forget_executions(id);
        Ok(())
    }

    /// Ends a context. Executions in it end as with a restart.
    ///
    /// # Errors
    ///
    /// `Code::NotFound` for an unknown context.
    pub async fn remove_context(&self, id: &str) -> Result<(), OperationError> {
        self.link().remove_context(id).await?;
        self.forget_executions(id);
        self.defaults.lock().await.retain(|_, context| context != id);
        Ok(())
    }
}

/// Processes.
impl Sandbox {
    /// Starts a command and streams its events. Dropping the stream leaves the process alone.
    ///
    /// # Errors
    ///
    /// When the command, the directory or the user does not exist.
    pub async fn spawn(
        self: &Arc<Self>,
        request: &StartProcess,
        origin: Origin,
    ) -> Result<Items<ProcessEvent>, OperationError> {
        let events = self.link().start_process(request).await?;
        let mut recording = self.recording(origin).going_on_if_dropped();
        let sandbox = Arc::clone(self);
        Ok(items(events.inspect(move |event| match event {
            Ok(event) => recording.process_event(event),
            Err(_) if sandbox.is_killed() => recording.end_without_report(OutcomeKind::Cancelled),
            Err(_) => recording.end_without_report(OutcomeKind::Infrastructure),
        })))
    }

    /// Streams a process's events from now on. The process waits for its slowest reader.
    ///
    /// # Errors
    ///
    /// `Code::NotFound` when no such process runs and none has ended within the last 30 s.
    pub async fn attach(&self, process: &ProcessSelector) -> Result<Items<ProcessEvent>, OperationError> {
        Ok(items(self.link().attach_process(process).await?))
    }

    /// Streams the processes that run, in the order of their starts.
    ///
    /// # Errors
    ///
    /// When the sandbox is lost.
    pub async fn processes(&self) -> Result<Items<ProcessInfo>, OperationError> {
        Ok(items(self.link().processes().await?))
    }

    /// Writes to a process's standard input and returns when all bytes are in its pipe.
    ///
    /// # Errors
    ///
    /// `Code::FailedPrecondition` when its standard input is closed or a terminal.
    pub async fn write_stdin(&self, process: &ProcessSelector, input: Bytes) -> Result<(), OperationError> {
        Ok(self.link().write_stdin(process, input).await?)
    }

    /// Closes a process's standard input.
    ///
    /// # Errors
    ///
    /// `Code::FailedPrecondition` when it has a terminal.
    pub async fn close_stdin(&self, process: &ProcessSelector) -> Result<(), OperationError> {
        Ok(self.link().close_stdin(process).await?)
    }

    /// Types on a process's terminal.
    ///
    /// # Errors
    ///
    /// `Code::FailedPrecondition` when it has none.
    pub async fn write_terminal(&self, process: &ProcessSelector, input: Bytes) -> Result<(), OperationError> {
        Ok(self.link().write_terminal(process, input).await?)
    }

    /// Changes the size of a process's terminal.
    ///
    /// # Errors
    ///
    /// `Code::FailedPrecondition` when it has none.
    pub async fn resize_terminal(&self, process: &ProcessSelector, size: TerminalSize) -> Result<(), OperationError> {
        Ok(self.link().resize_terminal(process, size).await?)
    }

    /// Sends a signal, by its number, to one process and not to its children. After a signal, the end of the process is
    /// reported at once, even if another process still holds its output open.
    ///
    /// # Errors
    ///
    /// `Code::NotFound` for an unknown process, `Code::InvalidArgument` for an unknown signal.
    pub async fn signal(&self, process: &ProcessSelector, signal: i32) -> Result<(), OperationError> {
        Ok(self.link().signal_process(process, signal).await?)
    }
}

/// Files and directories.
impl Sandbox {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// When the path is not a file.
    pub async fn read(&self, request: &ReadQuery) -> Result<File, OperationError> {
        let FileContent { size, modified_ns, bytes } = self.link().read_file(request).await?;
        Ok(File { size, modified_ns, bytes: items(bytes) })
    }

    /// Writes a file and makes its missing parent directories. If `content` breaks off, the file keeps the part before
    /// that.
    ///
    /// # Errors
    ///
    /// When the path cannot be written, or `content` breaks off.
    pub async fn write<E>(
        &self,
        request: &WriteQuery,
        content: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> Result<(), OperationError>
    where
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        Ok(self.link().write_file_from(request, content).await?)
    }

    /// Describes the file or directory at a path.
    ///
    /// # Errors
    ///
    /// `Code::NotFound` when the path does not exist.
    pub async fn stat(&self, request: &FileQuery) -> Result<Entry, OperationError> {
        Ok(self.link().stat(request).await?)
    }

    /// Streams a directory's entries in lexical order, each subdirectory followed by its own entries.
    ///
    /// # Errors
    ///
    /// When the path is not a directory.
    pub async fn list(&self, request: &ListQuery) -> Result<Items<Entry>, OperationError> {
        Ok(items(self.link().list_directory(request).await?))
    }

    /// Makes a directory and its missing parents.
    ///
    /// # Errors
    ///
    /// `Code::AlreadyExists` when something of that name exists.
    pub async fn make_directory(&self, request: &FileQuery) -> Result<Entry, OperationError> {
        Ok(self.link().make_directory(request).await?)
    }

    /// Moves a file or a directory, and makes the missing parents of the new path.
    ///
    /// # Errors
    ///
    /// `Code::NotFound` when it does not exist.
    pub async fn rename(&self, request: &MoveQuery) -> Result<Entry, OperationError> {
        Ok(self.link().move_path(request).await?)
    }

    /// Removes a file, or a directory with everything in it. Removing a path that does not exist is not an error.
    ///
    /// # Errors
    ///
    /// When the operating system refuses.
    pub async fn remove(&self, request: &FileQuery) -> Result<(), OperationError> {
        Ok(self.link().remove_path(request).await?)
    }

    /// Streams the changes in a directory. When this returns, the watch is in place.
    ///
    /// # Errors
    ///
    /// When the path is not a directory.
    pub async fn watch(&self, request: &WatchQuery) -> Result<Items<WatchEvent>, OperationError> {
        Ok(items(self.link().watch(request).await?))
    }

    /// Watches a directory until [`Self::remove_watcher`]; the sandbox keeps the events.
    ///
    /// # Errors
    ///
    /// As for [`Self::watch`].
    pub async fn create_watcher(&self, request: &WatchQuery) -> Result<Watcher, OperationError> {
        Ok(self.link().create_watcher(request).await?)
    }

    /// Streams the changes since the last call, and ends. The changes of every finished operation are among them.
    ///
    /// # Errors
    ///
    /// `Code::NotFound` for an unknown watcher.
    pub async fn watcher_events(&self, watcher: &Watcher) -> Result<Items<WatchEvent>, OperationError> {
        Ok(items(self.link().watcher_events(watcher).await?))
    }

    /// Ends a watch.
    ///
    /// # Errors
    ///
    /// `Code::NotFound` for an unknown watcher.
    pub async fn remove_watcher(&self, watcher: &Watcher) -> Result<(), OperationError> {
        Ok(self.link().remove_watcher(watcher).await?)
    }
}

/// Ports.
impl Sandbox {
    /// Connects to a port inside the sandbox. Shutting down one direction leaves the other open; dropping the
    /// connection closes both.
    ///
    /// # Errors
    ///
    /// `Code::PortClosed` when nothing listens there.
    pub async fn connect(
        &self,
        port: u16,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static + use<>, OperationError> {
        Ok(self.link().connect(port).await?)
    }
}
