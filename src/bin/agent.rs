//! The agent: serves the protocol on stdin and stdout until they close. Called `sudo`, it is that program; told to `hold`, it
//! keeps a network namespace.

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
    let output = pipe::Sender::from_owned_fd(io::stdout().as_fd().try_clone_to_owned()?)?;
    let mut arguments = std::env::args().skip(1);
    let how = arguments.next();
    match how.as_deref() {
        Some("hold") => return agent::network::hold(arguments.next().as_deref(), input, output).await,
        Some("addresses") => return agent::network::addresses(output).await,
        _ => {}
    }
    let options = Options {
        languages: std::env::var_os("ONCEBOX_LANGUAGES").unwrap_or_else(|| "/opt/oncebox".into()).into(),
        fifos: std::env::var_os("ONCEBOX_FIFOS").unwrap_or_else(|| "/run/oncebox".into()).into(),
        user: None,
        superuser: how.as_deref() == Some("superuser"),
    };
    agent::serve(tokio::io::join(input, output), options).await
}
