//! The command line of oncebox.

mod cli;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    cli::Cli::parse().run().await.unwrap_or_else(|err| {
        let causes = std::iter::successors(Some(&*err as &dyn std::error::Error), |err| err.source());
        let text: Vec<_> = causes.map(ToString::to_string).collect();
        eprintln!("oncebox: {}", text.join(": "));
        ExitCode::FAILURE
    })
}
