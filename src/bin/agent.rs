//! The agent: serves the protocol on stdin and stdout until they close. Called `sudo`, it is that program.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use oncebox::agent::{self, Options};
use tokio::net::unix::pipe;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let name = std::env::args_os().next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == "sudo") {
        std::process::exit(agent::sudo::main().await);
    }
    let input = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let how = std::env::args().nth(1);
    if how.as_deref() == Some("hold") {
        return hold(input).await;
    }
    let options = Options {
        languages: std::env::var_os("ONCEBOX_LANGUAGES").unwrap_or_else(|| "/opt/oncebox".into()).into(),
        fifos: std::env::var_os("ONCEBOX_FIFOS").unwrap_or_else(|| "/run/oncebox".into()).into(),
        user: None,
        superuser: how.as_deref() == Some("superuser"),
    };
    let output = pipe::Sender::from_owned_fd(io::stdout().as_fd().try_clone_to_owned()?)?;
    agent::serve(tokio::io::join(input, output), options).await
}

/// Keeps a container, and so its network namespace, alive until stdin closes.
async fn hold(mut input: pipe::Receiver) -> io::Result<()> {
    tokio::io::copy(&mut input, &mut tokio::io::sink()).await.map(|_| ())
}
