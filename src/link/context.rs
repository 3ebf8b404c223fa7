//! Operations on contexts and executions.

use futures::Stream;
use hyper::Method;

use super::{Link, LinkError, empty, json, lines, with_query};
use crate::protocol::{self, Context, ContextQuery, Event, Execute, MAX_EVENT_BYTES, StartContext};

impl Link {
    /// Starts an interpreter and returns once it is ready for code, or at once if it is lazy.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when the image lacks the language, the runner does not become ready, or `cwd` does not
    /// exist.
    pub async fn start_context(&self, request: &StartContext) -> Result<Context, LinkError> {
        self.call(Method::POST, protocol::CONTEXTS, json(request)).await
    }

    /// Lists all contexts, in the order of their creation.
    ///
    /// # Errors
    ///
    /// [`LinkError::Broken`] only.
    pub async fn contexts(&self) -> Result<Vec<Context>, LinkError> {
        self.call(Method::GET, protocol::CONTEXTS, empty()).await
    }

    /// Replaces an interpreter by a new one with the same id. Executions that run or wait in it end with
    /// [`OutcomeKind::Restarted`](crate::protocol::OutcomeKind::Restarted).
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when there is no such context, or the runner does not become ready.
    pub async fn restart_context(&self, id: &str) -> Result<Context, LinkError> {
        self.call(Method::POST, &with_id(protocol::CONTEXT_RESTART, id), empty()).await
    }

    /// Interrupts the code that runs in a context, as Ctrl-C would. It is not an error if no code runs.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when there is no such context.
    pub async fn interrupt_context(&self, id: &str) -> Result<(), LinkError> {
        self.send(Method::POST, &with_id(protocol::CONTEXT_INTERRUPT, id), empty()).await.map(|_| ())
    }

    /// Ends a context. Executions that run or wait in it end as with a restart.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when there is no such context.
    pub async fn remove_context(&self, id: &str) -> Result<(), LinkError> {
        self.send(Method::DELETE, &with_id(protocol::CONTEXTS, id), empty()).await.map(|_| ())
    }

    /// Runs code and streams its events; dropping the stream interrupts the code.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] when the context or `cwd` does not exist. A failure of the code is not an error: it is in
    /// [`Event::End`].
    pub async fn execute(
        &self,
        execute: &Execute,
    ) -> Result<impl Stream<Item = Result<Event, LinkError>> + Send + Unpin + 'static + use<>, LinkError> {
        Ok(lines(self.send(Method::POST, protocol::EXECUTIONS, json(execute)).await?, MAX_EVENT_BYTES))
    }
}

fn with_id(path: &str, id: &str) -> String {
    with_query(path, &ContextQuery { id: id.to_owned() })
}
