//! The program in the container: the protocol's routes, served as HTTP/2 on a pair of byte streams.

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

/// What waits unread in one stream, bytes, and in all of them. The second is many times the first: a process or a port
/// that does not read must not hold up the others.
const WINDOW: u32 = 128 << 10;
const ALL_WINDOWS: u32 = 16 << 20;

/// Requests at once; a process that is followed and a connection to a port are one each.
const STREAMS: u32 = 4096;

/// Where the agent finds and puts things.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory whose subdirectories hold a `language.json` each.
    pub languages: PathBuf,
    /// A directory of the agent's own for the runners' pipes.
    pub fifos: PathBuf,
    /// Who code runs as; without it, the image's account `user`.
    pub user: Option<User>,
    /// The uid of that account in this sandbox; without it, the image's.
    pub uid: Option<u32>,
    /// Whether code may become root by [`sudo`], and files are read and written with root's rights, whoever they are for.
    pub superuser: bool,
}

/// Serves one server until it closes the connection.
///
/// # Errors
///
/// When the container is not as an image of ours is, or the connection breaks.
pub async fn serve<T>(io: T, options: Options) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut user = options.user.map_or_else(User::find, Ok)?;
    let of_image = user.ids.map(|(uid, _)| uid);
    if let Some(uid) = options.uid {
        user.take_uid(uid)?;
    }
    files::fill_home(&user, of_image)?;
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
        // The server is no attacker. It drops streams as its clients do, also while this agent is frozen and accepts none, and
        // h2 would end the connection after 20 of the first kind, and 1,024 of the second in its life.
        .max_pending_accept_reset_streams(usize::MAX)
        .max_local_error_reset_streams(None)
        // Two paths with every letter escaped fit many times.
        .max_header_list_size(256 << 10)
        .serve_connection(TokioIo::new(io), service)
        .await
        .map_err(io::Error::other)
}

/// Everything there is in one container.
#[derive(Debug)]
struct Agent {
    contexts: Contexts,
    commands: Commands,
    watches: Watches,
    meter: Meter,
    users: Users,
}
