//! The agent, which runs in the container: serves the protocol's routes as HTTP/2 on a pair of byte streams.

mod answer;
mod broadcast;
mod cgroup;
mod contexts;
mod execution;
mod files;
mod metrics;
pub mod network;
mod outcome;
mod ports;
mod process;
mod routes;
mod runner;
pub mod seccomp;
pub mod sudo;
mod sys;
#[cfg(all(test, feature = "server"))]
mod tests;
mod text;
mod users;

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use contexts::Contexts;
pub use files::THREADS;
use files::Watches;
use metrics::Meter;
use process::Commands;
pub use users::User;
use users::Users;

/// The most unread bytes of one stream.
const WINDOW: u32 = 128 << 10;

/// The most unread bytes of all streams. It is many times [`WINDOW`]: a process or a port that does not read must not
/// block the others.
const ALL_WINDOWS: u32 = 16 << 20;

/// The most concurrent requests. Following a process and a connection to a port are one request each.
const STREAMS: u32 = 4096;

/// The agent's directories, the account of user code and its rights.
#[derive(Debug, Clone)]
pub struct Options {
    /// A directory with one subdirectory per language, each with a `language.json`.
    pub languages: PathBuf,
    /// A directory for the runners' FIFOs, used only by the agent.
    pub fifos: PathBuf,
    /// The account that runs user code. The default is the image's account `user`.
    pub user: Option<User>,
    /// The uid of that account in this sandbox. The default is its uid in the image.
    pub uid: Option<u32>,
    /// Whether code may become root by [`sudo`], and file operations run with root's rights for every account.
    pub superuser: bool,
}

/// Serves one server until it closes the connection.
///
/// # Errors
///
/// When the container lacks something that our images have, or the connection breaks.
pub async fn serve<T>(io: T, options: Options) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut user = options.user.map_or_else(User::find, Ok)?;
    let image_uid = user.ids.map(|(uid, _)| uid);
    if let Some(uid) = options.uid {
        user.set_uid(uid)?;
    }
    files::fill_home(&user, image_uid)?;
    user.confined = !options.superuser;
    let users = Users::new(user);
    let processes = sys::Processes::start(&users.default)?;
    if options.superuser {
        sudo::serve(processes.clone(), users.clone())?;
    }
    let agent = Arc::new(Agent {
        contexts: Contexts::new(processes.clone(), users.clone(), &options.languages, options.fifos)?,
        commands: Commands::new(processes, users.clone()),
        watches: Watches::new(&users),
        meter: Meter::new(),
        users,
    });
    let service = service_fn(move |request| {
        let agent = Arc::clone(&agent);
        async move { Ok::<_, Infallible>(agent.answer(request).await) }
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(ALL_WINDOWS)
        .max_concurrent_streams(STREAMS)
        // The server is not an attacker. It drops streams when its clients do, also while this agent is frozen and
        // accepts none. Without these two settings h2 would end the connection after 20 streams that were reset before
        // they were accepted, or after 1,024 frames for streams that it has forgotten.
        .max_pending_accept_reset_streams(usize::MAX)
        .max_local_error_reset_streams(None)
        // Several times the size of two paths with every letter escaped.
        .max_header_list_size(256 << 10)
        .serve_connection(TokioIo::new(io), service)
        .await
        .map_err(io::Error::other)
}

/// The state of the agent.
#[derive(Debug)]
struct Agent {
    contexts: Contexts,
    commands: Commands,
    watches: Watches,
    meter: Meter,
    users: Users,
}
