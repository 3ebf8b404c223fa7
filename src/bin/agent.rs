//! The agent: serves the protocol on stdin and stdout until they close. Called `sudo`, it is that program; told to `hold`, it
//! keeps a network namespace.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use oncebox::agent::{self, Options};
use tokio::net::unix::pipe;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(err) => {
            eprintln!("oncebox-agent: {err}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<ExitCode> {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == "sudo") {
        return sudo();
    }
    let work = Work::named(arguments.map(|word| word.to_string_lossy().into_owned()))?;
    // Before there is another thread, which would not have it.
    if matches!(work, Work::Serve { restricted: true, .. }) {
        agent::seccomp::restrict()
            .map_err(|err| io::Error::other(format!("no sandbox, because it cannot be restricted: {err}")))?;
    }
    work_until_the_end(work)?;
    Ok(ExitCode::SUCCESS)
}

/// What the command line asks for.
enum Work {
    /// To be the agent of a sandbox.
    Serve { restricted: bool, superuser: bool },
    /// To hold a network namespace for others.
    Hold { egress: Option<String> },
    /// To tell the addresses of a network namespace.
    Addresses,
}

impl Work {
    /// A word that is not known may be a restriction that a newer server counts on, and so is refused.
    fn named(mut words: impl Iterator<Item = String>) -> io::Result<Self> {
        let (mut restricted, mut superuser) = (false, false);
        while let Some(word) = words.next() {
            match word.as_str() {
                "hold" => return Ok(Self::Hold { egress: words.next() }),
                "addresses" => return Ok(Self::Addresses),
                "restricted" => restricted = true,
                "superuser" => superuser = true,
                _ => return Err(io::Error::other(format!("`{word}` is nothing that this agent can be told"))),
            }
        }
        Ok(Self::Serve { restricted, superuser })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn sudo() -> io::Result<ExitCode> {
    std::process::exit(agent::sudo::main().await)
}

#[tokio::main(flavor = "current_thread")]
async fn work_until_the_end(work: Work) -> io::Result<()> {
    let input = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let output = pipe::Sender::from_owned_fd(io::stdout().as_fd().try_clone_to_owned()?)?;
    let superuser = match work {
        Work::Serve { superuser, .. } => superuser,
        Work::Hold { egress } => return agent::network::hold(egress.as_deref(), input, output).await,
        Work::Addresses => return agent::network::addresses(output).await,
    };
    let options = Options {
        languages: std::env::var_os("ONCEBOX_LANGUAGES").unwrap_or_else(|| "/opt/oncebox".into()).into(),
        fifos: std::env::var_os("ONCEBOX_FIFOS").unwrap_or_else(|| "/run/oncebox".into()).into(),
        user: None,
        superuser,
    };
    agent::serve(tokio::io::join(input, output), options).await
}
