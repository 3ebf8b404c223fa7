//! Tests of the agent and its link in one process, over a pair of byte streams and under the account that runs the
//! tests.

mod contexts;
mod files;
mod long_life;
mod ports;
mod processes;

use std::time::Duration;

use futures::{Stream, StreamExt};
use tempfile::TempDir;

use super::{Options, User, serve};
use crate::engine::Pipe;
use crate::link::{Link, LinkError};
use crate::protocol::Code;

/// Longer than any operation of these tests takes on a busy machine.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// An agent with an empty home.
struct Sandbox {
    link: Link,
    agent: tokio::task::JoinHandle<std::io::Result<()>>,
    home: TempDir,
    languages: TempDir,
}

impl Sandbox {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts an agent after `prepare` has filled the directory of languages.
    async fn start_with(prepare: impl FnOnce(&std::path::Path)) -> Self {
        let [home, languages] = [(), ()].map(|()| tempfile::tempdir().expect("a directory"));
        prepare(languages.path());
        let user = User {
            name: "tester".to_owned(),
            ids: None,
            home: home.path().canonicalize().expect("its path"),
            confined: true,
        };
        let options = Options {
            languages: languages.path().to_owned(),
            fifos: languages.path().join("fifos"),
            user: Some(user),
            uid: None,
            superuser: false,
        };
        let (near, far) = tokio::io::duplex(1 << 20);
        let agent = tokio::spawn(serve(far, options));
        let (link, _) = Link::open(Pipe::new(near)).await.expect("an agent");
        Self { link, agent, home, languages }
    }

    /// The home's path.
    fn home(&self) -> String {
        self.home.path().canonicalize().expect("its path").display().to_string()
    }
}

/// Awaits a future for at most [`TEST_TIMEOUT`].
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TEST_TIMEOUT, future).await.expect("it comes soon")
}

/// Collects a stream, and panics at an error in it.
async fn all<T>(stream: impl Stream<Item = Result<T, LinkError>>) -> Vec<T> {
    soon(stream.map(|item| item.expect("no error")).collect()).await
}

/// The code and the message of a refusal.
fn refusal<T>(result: Result<T, LinkError>) -> (Code, String) {
    match result {
        Err(LinkError::Refused { code, message, .. }) => (code, message),
        Err(other) => panic!("no refusal: {other:?}"),
        Ok(_) => panic!("it was not refused"),
    }
}
