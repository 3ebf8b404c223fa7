//! Operations on processes.

use bytes::Bytes;
use futures::Stream;
use hyper::Method;

use super::{Link, LinkError, empty, json, lines, once, streamed, with_query};
use crate::protocol::{
    self, MAX_PROCESS_INFO_BYTES, MAX_PROCESS_LINE_BYTES, ProcessEvent, ProcessInfo, ProcessQuery, ProcessSelector,
    SendSignal, StartProcess, TerminalSize,
};

impl Link {
    /// Starts a command and streams its events. Dropping the stream does not end the process.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when the command, the directory or the user does not exist.
    pub async fn start_process(
        &self,
        request: &StartProcess,
    ) -> Result<impl Stream<Item = Result<ProcessEvent, LinkError>> + Send + Unpin + 'static + use<>, LinkError> {
        Ok(lines(self.send(Method::POST, protocol::PROCESSES, json(request)).await?, MAX_PROCESS_LINE_BYTES))
    }

    /// Streams the events of a process from now on. The process waits for its slowest reader.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when no such process runs or has ended within the last 30 s.
    pub async fn attach_process(
        &self,
        process: &ProcessSelector,
    ) -> Result<impl Stream<Item = Result<ProcessEvent, LinkError>> + Send + Unpin + 'static + use<>, LinkError> {
        let route = route(protocol::PROCESS_EVENTS, process);
        Ok(lines(self.send(Method::GET, &route, empty()).await?, MAX_PROCESS_LINE_BYTES))
    }

    /// Streams the running processes, in the order of their starts.
    ///
    /// # Errors
    ///
    /// [`LinkError::Broken`] only.
    pub async fn processes(
        &self,
    ) -> Result<impl Stream<Item = Result<ProcessInfo, LinkError>> + Send + Unpin + 'static + use<>, LinkError> {
        Ok(lines(self.send(Method::GET, protocol::PROCESSES, empty()).await?, MAX_PROCESS_INFO_BYTES))
    }

    /// Writes to a process's standard input and returns when its pipe holds all of `input`.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when there is no such process, or its standard input is closed or a terminal.
    pub async fn write_stdin(&self, process: &ProcessSelector, input: Bytes) -> Result<(), LinkError> {
        self.send(Method::POST, &route(protocol::PROCESS_STDIN, process), streamed(once(input))).await.map(|_| ())
    }

    /// Closes a process's standard input.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when there is no such process, or it has a terminal.
    pub async fn close_stdin(&self, process: &ProcessSelector) -> Result<(), LinkError> {
        self.send(Method::DELETE, &route(protocol::PROCESS_STDIN, process), empty()).await.map(|_| ())
    }

    /// Types on a process's terminal.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when there is no such process, or it has no terminal.
    pub async fn write_terminal(&self, process: &ProcessSelector, input: Bytes) -> Result<(), LinkError> {
        self.send(Method::POST, &route(protocol::PROCESS_TERMINAL, process), streamed(once(input))).await.map(|_| ())
    }

    /// Changes the size of a process's terminal.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when there is no such process, or it has no terminal.
    pub async fn resize_terminal(&self, process: &ProcessSelector, size: TerminalSize) -> Result<(), LinkError> {
        self.send(Method::PUT, &route(protocol::PROCESS_TERMINAL, process), json(&size)).await.map(|_| ())
    }

    /// Sends a signal, by its number, to one process and not to its children. Afterwards the process's end is reported
    /// soon after it exits, even if its children still hold its output open.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when there is no such process or signal.
    pub async fn signal_process(&self, process: &ProcessSelector, signal: i32) -> Result<(), LinkError> {
        let route = route(protocol::PROCESS_SIGNAL, process);
        self.send(Method::POST, &route, json(&SendSignal { signal })).await.map(|_| ())
    }
}

fn route(path: &str, process: &ProcessSelector) -> String {
    let query = match process {
        ProcessSelector::Pid(pid) => ProcessQuery { pid: Some(*pid), tag: None },
        ProcessSelector::Tag(tag) => ProcessQuery { pid: None, tag: Some(tag.clone()) },
    };
    with_query(path, &query)
}
