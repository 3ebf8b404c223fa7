//! `oncebox run`: runs one file in one sandbox, without a server.

use std::error::Error;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use oncebox::config::Config;
use oncebox::engine::{self, EngineConfig, EngineError};
use oncebox::protocol::{End, Event, OutcomeKind, Output};
use oncebox::sandbox::{HashSecret, Origin, Owner, Records, RunSpec, Sandboxes, Template};

use super::CliResult;
use super::stop::StopSignals;

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The file, or `-` for standard input.
    file: PathBuf,

    /// The language; by default that of the file's extension.
    #[arg(short, long)]
    language: Option<String>,

    /// The most wall time, milliseconds.
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,

    /// Save images and other binary outputs in this directory.
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
}

/// Prints the code's output as it arrives, then its results. The exit code is 0 if, and only if, the code ran to its
/// end.
pub(super) async fn run(args: RunArgs, config: Config) -> CliResult {
    let template = choose(&args, &config.templates)?;
    let code = read_code(&args.file)?;
    let mut limits = template.limits();
    if let Some(timeout_ms) = args.timeout_ms {
        limits.timeout_ms = timeout_ms.clamp(1, template.max_timeout_ms);
    }
    let mut stop = StopSignals::new()?;
    // One run needs no warm sandboxes. The owner is this process, so that no server's containers are removed.
    let template = Template { warm: 0, ..template };
    let engine = engine::open(EngineConfig { owner: format!("run-{}", std::process::id()), ..config.engine })?;
    let records = Records::new(HashSecret::random(), Vec::new());
    let sandboxes = Sandboxes::open(engine, vec![template.clone()], config.sandboxes, records).await?;
    let spec = RunSpec {
        owner: Owner::ANYBODY,
        origin: Origin { run_id: String::new(), door: "run", client: None },
        container: template.spec(),
        network_is_chosen: false,
        timeout_is_chosen: args.timeout_ms.is_some(),
        template: Arc::new(template),
        limits,
        code,
        env: Default::default(),
        files: Vec::new(),
        stdin: None,
    };
    let shown = tokio::select! {
        shown = show(&sandboxes, spec, args.save.as_deref()) => shown,
        () = stop.next() => Err("interrupted".into()),
    };
    match sandboxes.close().await {
        // A network that is left must not hide how the code ended.
        Err(err @ EngineError::InUse(_)) => eprintln!("oncebox: {err}"),
        closed => closed?,
    }
    shown
}

fn choose(args: &RunArgs, templates: &[Template]) -> Result<Template, Box<dyn Error>> {
    let extension = args.file.extension().and_then(OsStr::to_str);
    let matches = |template: &&Template| match (&args.language, extension) {
        (Some(language), _) => template.is_called(&language.to_lowercase()),
        (None, Some(extension)) => template.extensions.iter().any(|known| known == extension),
        (None, None) => false,
    };
    let runs = || templates.iter().filter(|template| template.runs);
    runs().find(matches).cloned().ok_or_else(|| {
        let known: Vec<_> = runs().map(|template| template.name.as_str()).collect();
        format!("cannot choose a language: set --language to one of {}", known.join(", ")).into()
    })
}

fn read_code(file: &Path) -> Result<String, Box<dyn Error>> {
    if file == Path::new("-") {
        let mut code = String::new();
        io::stdin().read_to_string(&mut code)?;
        return Ok(code);
    }
    std::fs::read_to_string(file).map_err(|err| format!("cannot read {}: {err}", file.display()).into())
}

async fn show(sandboxes: &Sandboxes, spec: RunSpec, save: Option<&Path>) -> CliResult {
    let mut running = sandboxes.run(spec).await?;
    let mut outputs = Vec::new();
    while let Some(event) = running.next().await {
        match event {
            Event::Stdout { text } => print(io::stdout(), &text)?,
            Event::Stderr { text } => print(io::stderr(), &text)?,
            Event::Output(output) => outputs.push(output),
            Event::End(end) => return finish(&outputs, &end, save),
        }
    }
    Err("the run ended without an outcome".into())
}

fn finish(outputs: &[Output], end: &End, save: Option<&Path>) -> CliResult {
    for (number, output) in outputs.iter().enumerate() {
        if let Some(text) = output.text("text/plain") {
            print(io::stdout(), &format!("{text}\n"))?;
        }
        if let Some(directory) = save {
            save_binaries(directory, number + 1, output)?;
        }
    }
    if end.outcome.kind == OutcomeKind::Ok {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(exception) = &end.exception {
        print(io::stderr(), &format!("{}\n", exception.traceback))?;
    }
    if end.exception.is_none() || end.outcome.kind != OutcomeKind::Exception {
        print(io::stderr(), &format!("oncebox: {}\n", end.outcome.message))?;
    }
    Ok(ExitCode::FAILURE)
}

/// Saves images and other binary outputs as files: `output-1.png`, `output-2.pdf`.
fn save_binaries(directory: &Path, number: usize, output: &Output) -> Result<(), Box<dyn Error>> {
    let extensions = [
        ("image/png", "png"),
        ("image/jpeg", "jpg"),
        ("image/svg+xml", "svg"),
        ("application/pdf", "pdf"),
        ("text/html", "html"),
    ];
    for (mime, extension) in extensions {
        let Some(data) = output.text(mime) else { continue };
        let is_text = mime.starts_with("text/") || mime.ends_with("xml");
        let content = if is_text { data.into_bytes() } else { STANDARD.decode(data)? };
        std::fs::create_dir_all(directory)?;
        let path = directory.join(format!("output-{number}.{extension}"));
        std::fs::write(&path, content).map_err(|err| format!("cannot write {}: {err}", path.display()))?;
        print(io::stderr(), &format!("saved {}\n", path.display()))?;
    }
    Ok(())
}

fn print(mut to: impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}
