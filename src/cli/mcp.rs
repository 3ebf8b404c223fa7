//! `oncebox mcp`: the Model Context Protocol on standard input and output, with an engine of its own or in front of a
//! server.

use clap::Args;
use futures::FutureExt;
use oncebox::config::{Config, ConfigError, LogFormat};
use oncebox::engine::{self, EngineConfig, EngineError};
use oncebox::http;
use oncebox::sandbox::{HashSecret, Records, Sandboxes, SandboxesConfig, Template};

use super::bridge::Bridge;
use super::stop::StopSignals;
use super::{CliResult, log, logged, with_causes};

#[derive(Debug, Args)]
pub(super) struct McpArgs {
    /// The address of a running server, as `http://127.0.0.1:3000`; without one, this program starts sandboxes itself.
    #[arg(long, env = "ONCEBOX_URL", value_name = "URL")]
    url: Option<String>,

    /// The API key for that server.
    #[arg(long, env = "ONCEBOX_API_KEY", value_name = "KEY", hide_env_values = true)]
    api_key: Option<String>,

    /// Leave images out of the results.
    #[arg(long)]
    no_images: bool,
}

pub(super) async fn mcp(args: McpArgs, read: impl FnOnce() -> Result<Config, ConfigError>) -> CliResult {
    let mut stop = StopSignals::new()?;
    let ended = match &args.url {
        Some(url) => {
            log("warn", LogFormat::Text);
            let bridge = Bridge::new(url, args.api_key.as_deref(), !args.no_images)?;
            tokio::select! {
                ended = bridge.serve() => ended.map_err(|err| err.to_string()),
                () = stop.next() => Ok(()),
            }
        }
        None => serve(logged(read()?, "warn"), !args.no_images, &mut stop).await,
    };
    let code = match ended {
        Ok(()) => 0,
        Err(err) => {
            eprintln!("oncebox: {err}");
            1
        }
    };
    // Not by returning: a read of standard input, which cannot be interrupted, would keep the program from ending.
    std::process::exit(code)
}

/// Serves the client with sandboxes of this process. At the end, nothing of them is left on the engine.
async fn serve(config: Config, with_images: bool, stop: &mut StopSignals) -> Result<(), String> {
    // There is one client, so one warm sandbox of a language is enough.
    let warm = |template: Template| Template { warm: template.warm.min(1), ..template };
    let templates: Vec<_> = config.templates.into_iter().map(warm).collect();
    // The owner is this process, so that no server's containers are removed.
    let engine = EngineConfig { owner: format!("mcp-{}", std::process::id()), ..config.engine };
    let opening = open(engine, templates.clone(), config.sandboxes).boxed().shared();
    tokio::spawn(opening.clone());
    let served = tokio::select! {
        served = http::serve_stdio(&templates, opening.clone(), with_images) => served,
        () = stop.next() => Ok(()),
    };
    // What has begun to open has to be closed too.
    if let Ok(sandboxes) = opening.await {
        match sandboxes.close().await {
            // A network that is left must not hide how the client was served.
            Err(err @ EngineError::InUse(_)) => eprintln!("oncebox: {err}"),
            closed => closed.map_err(|err| with_causes(&err))?,
        }
    }
    served
}

async fn open(engine: EngineConfig, templates: Vec<Template>, sandboxes: SandboxesConfig) -> Result<Sandboxes, String> {
    let engine = engine::open(engine).map_err(|err| with_causes(&err))?;
    let records = Records::new(HashSecret::random(), Vec::new());
    Sandboxes::open(engine, templates, sandboxes, records).await.map_err(|err| with_causes(&err))
}
