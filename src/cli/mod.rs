//! The commands and options of `oncebox`.

mod bridge;
mod certs;
mod images;
mod keys;
mod mcp;
mod memory;
mod run;
mod serve;
mod stop;

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use oncebox::config::{Config, ConfigError, LogFormat};
use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Runs untrusted code on your own machine, in fresh, single-use Docker containers.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,

    /// The directory with oncebox.toml and templates/; by default ./config if it exists, or else the built-in
    /// configuration.
    #[arg(long, global = true, env = "ONCEBOX_CONFIG", value_name = "DIR")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the HTTP API.
    Serve,
    /// Run a file's code in a sandbox, without a server.
    Run(run::RunArgs),
    /// Serve the Model Context Protocol on standard input and output, for clients that start a program.
    Mcp(mcp::McpArgs),
    /// Build the images that sandboxes are made from.
    #[command(subcommand)]
    Images(images::ImagesCommand),
    /// Make, list and revoke API keys.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Make a certificate for TLS under a domain, signed by a CA of your own.
    Certs(certs::CertsArgs),
    /// Check the host: the engine, its isolation and limits, and the images.
    ///
    /// The exit code is 0 when all is well or there are warnings only, and 1 when a check failed.
    Doctor(images::DoctorArgs),
}

type CliResult = Result<ExitCode, Box<dyn Error>>;

impl Cli {
    /// Runs the command.
    pub(crate) async fn run(self) -> CliResult {
        match self.command {
            Command::Serve => {
                serve::serve(logged(Config::read_for_server(place(self.config).as_deref())?, "info")).await
            }
            Command::Run(args) => run::run(args, logged(read(self.config)?, "error")).await,
            Command::Mcp(args) => mcp::mcp(args, || read(self.config)).await,
            Command::Images(command) => images::images(command).await,
            Command::Keys(command) => keys::keys(command, place(self.config).as_deref()),
            Command::Certs(args) => certs::certs(&args),
            Command::Doctor(args) => images::doctor(args, read(self.config)).await,
        }
    }
}

/// The directory of the configuration; `None` for the built-in one.
fn place(directory: Option<PathBuf>) -> Option<PathBuf> {
    let local = PathBuf::from("config");
    directory.or_else(|| local.join("oncebox.toml").exists().then_some(local))
}

/// Reads the configuration.
fn read(directory: Option<PathBuf>) -> Result<Config, ConfigError> {
    Config::read(place(directory).as_deref())
}

/// Starts to log as configured, at this level.
fn logged(config: Config, level: &str) -> Config {
    log(level, config.log_format);
    config
}

/// Returns the message of an error, followed by those of its causes.
pub(crate) fn with_causes(err: &dyn Error) -> String {
    let causes = std::iter::successors(Some(err), |err| (*err).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Prints to stdout. A reader that has closed its end is not an error: `oncebox doctor | head`.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Starts to log to stderr; `ONCEBOX_LOG` sets the levels.
fn log(default: &str, format: LogFormat) {
    let filter = EnvFilter::try_from_env("ONCEBOX_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let discreet = filter_fn(may_be_logged);
    match format {
        LogFormat::Text => subscriber.finish().with(discreet).init(),
        LogFormat::Json => subscriber.json().finish().with(discreet).init(),
    }
}

/// Whether a line may be logged, whatever `ONCEBOX_LOG` says. rmcp logs whole messages, which have code and output in them,
/// and takes it for an error that a client has hung up.
fn may_be_logged(line: &Metadata<'_>) -> bool {
    line.target().split("::").next() != Some("rmcp")
}
