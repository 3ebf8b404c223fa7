//! The Debian image that the base image is built on: the official one if a registry answers, or else one made on this
//! host.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::CreateImageOptionsBuilder;
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio_util::io::ReaderStream;

use super::output::{Progress, TAIL_LINES};
use super::{BUILD_TIMEOUT, BuildError, docker_error, image_id};

const OFFICIAL: &str = "debian:trixie-slim";
const OWN_REPOSITORY: &str = "oncebox/debian";
const OWN_TAG: &str = "trixie";
const SUITE: &str = "trixie";

/// How long a registry may take for its first answer, and between two answers.
const PULL_START: Duration = Duration::from_secs(20);
const PULL_SILENCE: Duration = Duration::from_secs(60);

/// The image for `FROM ${DEBIAN}`.
#[derive(Debug, Clone)]
pub(super) struct Debian {
    pub(super) reference: String,
    pub(super) id: String,
}

/// A Debian image that the daemon already has, preferably the official one.
pub(super) async fn local(docker: &Docker) -> Result<Option<Debian>, BuildError> {
    for reference in [OFFICIAL.to_owned(), own()] {
        if let Some(id) = image_id(docker, &reference).await? {
            return Ok(Some(Debian { reference, id }));
        }
    }
    Ok(None)
}

/// Finds, pulls or makes a Debian image, and reports which one and why.
pub(super) async fn choose(docker: &Docker, progress: &mut dyn FnMut(Progress)) -> Result<Debian, BuildError> {
    let mut report = |line: String| progress(Progress::Debian(line));
    if let Some(id) = image_id(docker, OFFICIAL).await? {
        report(format!("{OFFICIAL}, which the daemon has"));
        return Ok(Debian { reference: OFFICIAL.to_owned(), id });
    }
    report(format!("pulling {OFFICIAL}"));
    let reason = match pull(docker).await {
        Ok(()) => match image_id(docker, OFFICIAL).await? {
            Some(id) => {
                report(format!("{OFFICIAL}, pulled from its registry"));
                return Ok(Debian { reference: OFFICIAL.to_owned(), id });
            }
            None => "the pull ended without the image".to_owned(),
        },
        Err(reason) => reason,
    };
    if let Some(id) = image_id(docker, &own()).await? {
        report(format!("{}, made here earlier, because {OFFICIAL} cannot be pulled: {reason}", own()));
        return Ok(Debian { reference: own(), id });
    }
    report(format!("making {} with mmdebstrap, because {OFFICIAL} cannot be pulled: {reason}", own()));
    let no_debian = |problem| BuildError::Debian { pull: reason.clone(), problem };
    ensure_mmdebstrap(&mut report).await.map_err(no_debian)?;
    make(docker).await.map_err(no_debian)?;
    let id = image_id(docker, &own()).await?.ok_or_else(|| no_debian("the import left no image".to_owned()))?;
    report(format!("{}, made by mmdebstrap", own()));
    Ok(Debian { reference: own(), id })
}

fn own() -> String {
    format!("{OWN_REPOSITORY}:{OWN_TAG}")
}

async fn pull(docker: &Docker) -> Result<(), String> {
    let (image, tag) = OFFICIAL.split_once(':').expect("the name has a tag");
    let options = CreateImageOptionsBuilder::default().from_image(image).tag(tag).build();
    let mut pulled = docker.create_image(Some(options), None, None);
    let mut limit = PULL_START;
    loop {
        match tokio::time::timeout(limit, pulled.next()).await {
            Err(_) => return Err(format!("the registry did not answer for {} s", limit.as_secs())),
            Ok(None) => return Ok(()),
            Ok(Some(Err(err))) => return Err(docker_error("pull", err).cause()),
            Ok(Some(Ok(_))) => limit = PULL_SILENCE,
        }
    }
}

/// Installs mmdebstrap if possible. The error names a remedy.
async fn ensure_mmdebstrap(report: &mut dyn FnMut(String)) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("making one needs root: run `oncebox images build` once as root".to_owned());
    }
    if run("mmdebstrap", &["--version"]).await.is_ok() {
        return Ok(());
    }
    if !Path::new("/etc/debian_version").exists() {
        return Err("making one needs mmdebstrap: install it".to_owned());
    }
    report("installing mmdebstrap with apt-get".to_owned());
    // A fresh machine's own updates hold the lock for minutes; a download may break.
    let patient = ["-o", "DPkg::Lock::Timeout=900", "-o", "Acquire::Retries=3"];
    for command in [&["update"][..], &["install", "--yes", "mmdebstrap", "debian-archive-keyring"]] {
        let arguments = [&patient, command].concat();
        run("apt-get", &arguments).await.map_err(|err| format!("mmdebstrap is not installed, and {err}"))?;
    }
    Ok(())
}

async fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let ended = Command::new(program)
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|err| format!("`{program}` cannot be run: {err}"))?;
    if ended.status.success() {
        return Ok(());
    }
    let output = last_lines(ended.stderr.as_slice()).await;
    Err(format!("`{program} {}` failed ({}):\n{output}", args.join(" "), ended.status))
}

/// Makes a Debian image: streams mmdebstrap's tar to the daemon. If mmdebstrap fails, no image is created.
async fn make(docker: &Docker) -> Result<(), String> {
    let mut child = Command::new("mmdebstrap")
        .args(["--variant=minbase", "--include=ca-certificates", "--format=tar", SUITE, "-"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|err| format!("`mmdebstrap` cannot be run: {err}"))?;
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    let ended = stream::once(async move {
        match child.wait().await {
            Ok(status) if status.success() => Ok(Bytes::new()),
            Ok(status) => Err(io::Error::other(format!("mmdebstrap failed ({status})"))),
            Err(err) => Err(err),
        }
    });
    let body = bollard::body_try_stream(ReaderStream::with_capacity(stdout, 1 << 18).chain(ended));
    let options = CreateImageOptionsBuilder::default().from_src("-").repo(OWN_REPOSITORY).tag(OWN_TAG).build();
    // The daemon answers when it has the whole tar, which takes longer than the usual timeout.
    let docker = docker.clone().with_timeout(BUILD_TIMEOUT);
    let import = async {
        let mut imported = docker.create_image(Some(options), Some(body), None);
        while let Some(piece) = imported.next().await {
            piece.map_err(|err| docker_error("import", err).cause())?;
        }
        Ok::<_, String>(())
    };
    let (imported, output) = tokio::join!(import, last_lines(stderr));
    imported.map_err(|err| format!("mmdebstrap into `docker import` failed: {err}\n{output}"))
}

async fn last_lines(output: impl AsyncRead + Unpin) -> String {
    let mut lines = BufReader::new(output).lines();
    let mut last = VecDeque::new();
    while let Ok(Some(line)) = lines.next_line().await {
        if last.len() == TAIL_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    Vec::from(last).join("\n")
}
