//! `oncebox images build` and `oncebox doctor`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use oncebox::config::{Config, ConfigError};
use oncebox::engine::docker::images::ImageBuilder;
use oncebox::engine::docker::report;

use super::stop::StopSignals;
use super::{CliResult, print};

/// The files that images are built from.
#[derive(Debug, Args)]
pub(super) struct Sources {
    /// The directory with one folder per image.
    #[arg(long, value_name = "DIR", default_value = "images")]
    images: PathBuf,

    /// The static agent that `make agent` builds; by default the one in the build directory or beside this program.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    sources: Sources,

    /// Count warnings as failures.
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ImagesCommand {
    /// Build the images that are missing or not current: all of them, or the named ones and the images they need.
    Build {
        /// Names of image folders.
        names: Vec<String>,
        #[command(flatten)]
        sources: Sources,
    },
}

impl Sources {
    fn agent(&self) -> PathBuf {
        let beside = std::env::current_exe().unwrap_or_default().with_file_name("oncebox-agent");
        let built = PathBuf::from(format!("target/{}-unknown-linux-gnu/agent/oncebox-agent", std::env::consts::ARCH));
        let found = [built, beside].into_iter().find(|path| path.exists());
        self.agent.clone().or(found).unwrap_or_else(|| PathBuf::from("oncebox-agent"))
    }
}

pub(super) async fn images(command: ImagesCommand) -> CliResult {
    let ImagesCommand::Build { names, sources } = command;
    let builder = ImageBuilder::connect(&sources.images, sources.agent())?;
    builder.build(&names, &mut |progress| print(&format!("{progress}\n"))).await?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn doctor(
    DoctorArgs { sources, strict }: DoctorArgs,
    config: Result<Config, ConfigError>,
) -> CliResult {
    let agent = sources.agent();
    let config = config?;
    let processors = config.template_cpu_millis();
    let mut stop = StopSignals::new()?;
    tokio::select! {
        report = report::examine(sources.images, agent, &processors, config.engine.timeout) => {
            print(&report.to_string());
            Ok(ExitCode::from(report.exit_code(strict)))
        }
        () = stop.next() => {
            tokio::select! {
                () = report::clean_up(config.engine.timeout) => {}
                () = stop.next() => {}
            }
            Ok(ExitCode::FAILURE)
        }
    }
}
