//! The agent: serves the protocol on stdin and stdout until they close. Under the name `sudo` it acts as that program;
//! with the argument `hold` it holds a network namespace.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

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
    let task = Task::parse(arguments.map(|word| word.to_string_lossy().into_owned()))?;
    // Before any other thread starts: the filter applies to this thread and to the ones it starts later.
    if let Task::Serve { restricted: true, uid, uids, .. } = &task {
        agent::seccomp::restrict(uid.zip(uids.clone())).map_err(|err| {
            io::Error::other(format!("the sandbox cannot be restricted, so it does not start: {err}"))
        })?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(agent::THREADS)
        // Threads are kept for ever: user code may have used up the process limit when the next one is needed.
        .thread_keep_alive(Duration::from_secs(u32::MAX.into()))
        .build()?;
    runtime.block_on(serve_until_closed(task))?;
    Ok(ExitCode::SUCCESS)
}

/// The task that the command line names.
enum Task {
    /// Serve as the agent of a sandbox. `restricted` applies the seccomp filters, `superuser` lets code become root.
    /// `uid` is the uid of user code, and `uids` the range that contains the uids of all sandboxes.
    Serve { restricted: bool, superuser: bool, uid: Option<u32>, uids: Option<RangeInclusive<u32>> },
    /// Hold a network namespace for sandboxes.
    Hold { egress: Option<String> },
    /// Print the addresses of the network namespace.
    Addresses,
}

impl Task {
    /// Parses the arguments. An unknown one is refused, because it may be a restriction that a newer server relies on.
    fn parse(mut words: impl Iterator<Item = String>) -> io::Result<Self> {
        let (mut restricted, mut superuser, mut uid, mut uids) = (false, false, None, None);
        while let Some(word) = words.next() {
            let (name, value) = word.split_once('=').unwrap_or((&word, ""));
            match name {
                "hold" => return Ok(Self::Hold { egress: words.next() }),
                "addresses" => return Ok(Self::Addresses),
                "restricted" => restricted = true,
                "superuser" => superuser = true,
                "user" if value.parse::<u32>().is_ok() => uid = value.parse().ok(),
                "users" if range(value).is_some() => uids = range(value),
                _ => return Err(io::Error::other(format!("unknown argument `{word}`"))),
            }
        }
        Ok(Self::Serve { restricted, superuser, uid, uids })
    }
}

/// Parses `FIRST-LAST`.
fn range(text: &str) -> Option<RangeInclusive<u32>> {
    let (first, last) = text.split_once('-')?;
    Some(first.parse().ok()?..=last.parse().ok()?)
}

#[tokio::main(flavor = "current_thread")]
async fn sudo() -> io::Result<ExitCode> {
    std::process::exit(agent::sudo::main().await)
}

async fn serve_until_closed(task: Task) -> io::Result<()> {
    let input = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let output = pipe::Sender::from_owned_fd(io::stdout().as_fd().try_clone_to_owned()?)?;
    let (superuser, uid) = match task {
        Task::Serve { superuser, uid, .. } => (superuser, uid),
        Task::Hold { egress } => return agent::network::hold(egress.as_deref(), input, output).await,
        Task::Addresses => return agent::network::addresses(output).await,
    };
    let options = Options {
        languages: std::env::var_os("ONCEBOX_LANGUAGES").unwrap_or_else(|| "/opt/oncebox".into()).into(),
        fifos: std::env::var_os("ONCEBOX_FIFOS").unwrap_or_else(|| "/run/oncebox".into()).into(),
        user: None,
        uid,
        superuser,
    };
    // Starts the first thread for slow work before any user code runs: that code could use up the process limit.
    tokio::task::spawn_blocking(|| ()).await?;
    agent::serve(tokio::io::join(input, output), options).await
}
