//! The agent: serves the protocol on stdin and stdout until they close.

use std::io;
use std::os::fd::AsFd;

use oncebox::agent::{self, Options};
use tokio::net::unix::pipe;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let input = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    if std::env::args().nth(1).as_deref() == Some("hold") {
        return hold(input).await;
    }
    let options = Options {
        languages: std::env::var_os("ONCEBOX_LANGUAGES").unwrap_or_else(|| "/opt/oncebox".into()).into(),
        fifos: std::env::var_os("ONCEBOX_FIFOS").unwrap_or_else(|| "/run/oncebox".into()).into(),
        user: None,
    };
    let output = pipe::Sender::from_owned_fd(io::stdout().as_fd().try_clone_to_owned()?)?;
    agent::serve(tokio::io::join(input, output), options).await
}

/// Keeps a container, and so its network namespace, alive until stdin closes.
async fn hold(mut input: pipe::Receiver) -> io::Result<()> {
    tokio::io::copy(&mut input, &mut tokio::io::sink()).await.map(|_| ())
}
