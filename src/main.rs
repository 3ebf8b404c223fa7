//! The command line of oncebox.

mod cli;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    cli::Cli::parse().run().await.unwrap_or_else(|err| {
        eprintln!("oncebox: {}", cli::with_causes(&*err));
        ExitCode::FAILURE
    })
}
