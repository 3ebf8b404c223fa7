//! What can be said on the command line.

mod run;
mod serve;

use std::error::Error;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use oncebox::config::{Config, LogFormat};
use tracing_subscriber::EnvFilter;

/// Runs untrusted code on your own machine, in fresh, single-use Docker containers.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,

    /// The directory of oncebox.toml and templates/; without it, ./config if there is one, else the built-in defaults.
    #[arg(long, global = true, env = "ONCEBOX_CONFIG", value_name = "DIR")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the HTTP API.
    Serve,
    /// Run a file's code in a sandbox, without a server.
    Run(run::RunArgs),
}

type CliResult = Result<ExitCode, Box<dyn Error>>;

impl Cli {
    /// Does what was asked.
    pub(crate) async fn run(self) -> CliResult {
        let local = PathBuf::from("config");
        let directory = self.config.or_else(|| local.join("oncebox.toml").exists().then_some(local));
        let config = Config::read(directory.as_deref())?;
        match self.command {
            Command::Serve => {
                log("info", config.log_format);
                serve::serve(config).await
            }
            Command::Run(args) => {
                log("error", config.log_format);
                run::run(args, config).await
            }
        }
    }
}

/// Logs to stderr; `ONCEBOX_LOG` says what.
fn log(default: &str, format: LogFormat) {
    let filter = EnvFilter::try_from_env("ONCEBOX_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
}
