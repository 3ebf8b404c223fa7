//! Builds our images: in order and otherwise at once, only what is out of date, with nothing but the daemon's classic
//! builder.
//!
//! Every image carries `oncebox.context`, a digest of all it is made from. An image whose label is the digest of its
//! folder today is current; another one is built again, of which the daemon's cache does all but what changed.

mod debian;
mod output;
mod recipe;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::models::ImageSummary;
use bollard::query_parameters::{
    BuildImageOptionsBuilder, BuilderVersion, ListImagesOptionsBuilder, RemoveImageOptionsBuilder,
};
use futures::StreamExt;

use super::daemon;
use debian::Debian;
use output::{At, Output};
use recipe::{Extra, Recipe};

pub use output::{Built, Progress, Step};

/// The digest of what an image was made from.
const CONTEXT_LABEL: &str = "oncebox.context";
/// Which of our images it is.
const IMAGE_LABEL: &str = "oncebox.image";
/// The id of the Debian image below; what stands on the base image inherits it.
const DEBIAN_LABEL: &str = "oncebox.debian";

/// Gets the host's certificate authorities into its context.
const BASE: &str = "base";
/// Gets our program into its context.
const AGENT: &str = "agent";
const AGENT_FILE: &str = "oncebox-agent";
const HOST_AUTHORITIES: &str = "/usr/local/share/ca-certificates";

/// Values that the daemon hands to every step and keeps out of its cache and of the image.
const PROXY_VARIABLES: [&str; 6] = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"];

/// The daemon may be silent for as long as one step takes.
const BUILD_TIMEOUT: Duration = Duration::from_secs(3600);

/// Builds the images of one directory on one Docker daemon.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    docker: Docker,
    images_dir: PathBuf,
    agent_binary: PathBuf,
}

/// An image that is current now.
struct Ensured {
    built: Built,
    digest: String,
    /// The id of the one before it.
    replaces: Option<String>,
}

/// How an image stands to its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageState {
    /// The image's name, without `oncebox/`.
    pub name: String,
    /// The daemon has it.
    pub present: bool,
    /// It was made from what its folder holds today. `None` when the agent's binary is not here to compare with.
    pub current: Option<bool>,
    /// Bytes on disk, counting what it shares with other images.
    pub size_bytes: u64,
}

/// Why images could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The address of the daemon makes no sense, or it does not answer.
    #[error("the Docker daemon cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The daemon said no.
    #[error("the Docker daemon refused to {action}")]
    Refused {
        /// What was asked of it.
        action: &'static str,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file or folder that the images are made from.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The agent image is made from our own program, which is not there.
    #[error("the agent's binary is not at {}: build it with `make agent`", .0.display())]
    NoAgent(PathBuf),
    /// Asked for, or named in a Dockerfile, and there is no such folder.
    #[error("no image is named `{name}`{}; there are: {known}", needed_by.as_ref().map(|by| format!(", which `{by}` needs")).unwrap_or_default())]
    Unknown {
        /// The name.
        name: String,
        /// The image whose Dockerfile names it.
        needed_by: Option<String>,
        /// All names there are.
        known: String,
    },
    /// No order can build them.
    #[error("images need each other: {0}")]
    Circle(String),
    /// There is no Debian to stand on.
    #[error(
        "no Debian image to start from: debian:trixie-slim cannot be pulled ({pull}); make a registry reachable, load that \
         image with `docker load`, or let one be made here, which now fails: {problem}"
    )]
    Debian {
        /// Why it was not pulled.
        pull: String,
        /// Why it was not made.
        problem: String,
    },
    /// A step of a Dockerfile failed.
    #[error("image `{image}` failed at {}: {message}\n{}", At(step), tail.join("\n"))]
    Step {
        /// The image's name.
        image: String,
        /// The step, unless the daemon refused before the first.
        step: Option<Step>,
        /// What the daemon said.
        message: String,
        /// The last lines of the build's output.
        tail: Vec<String>,
    },
}

impl BuildError {
    /// The innermost reason on one line.
    pub(super) fn cause(&self) -> String {
        let mut cause: &dyn std::error::Error = self;
        while let Some(source) = cause.source() {
            cause = source;
        }
        cause.to_string()
    }
}

/// What the daemon has under one of our names.
struct Existing {
    id: String,
    labels: HashMap<String, String>,
    tagged: bool,
    size_bytes: u64,
}

/// All that the builder is sent for one image.
struct Prepared {
    context: Vec<u8>,
    debian: Option<Debian>,
    digest: String,
}

impl ImageBuilder {
    /// Connects to the daemon that `DOCKER_HOST` names, or to the local one. `images_dir` holds a folder for each
    /// image, `agent_binary` is the static program that goes into all of them.
    ///
    /// # Errors
    ///
    /// When the address cannot be understood. Whether the daemon answers is seen at the first call.
    pub fn connect(images_dir: impl Into<PathBuf>, agent_binary: impl Into<PathBuf>) -> Result<Self, BuildError> {
        let docker = daemon::connect().map_err(|err| BuildError::Unreachable(err.into()))?;
        Ok(Self::new(docker, images_dir.into(), agent_binary.into()))
    }

    pub(super) fn new(docker: Docker, images_dir: PathBuf, agent_binary: PathBuf) -> Self {
        // Of the daemon's clients only this one waits for whole steps.
        Self { docker: docker.with_timeout(BUILD_TIMEOUT), images_dir, agent_binary }
    }

    /// Builds the named images and what they need, or all when none is named. What is current is left as it is; an
    /// image that a new one replaces is removed once nothing uses it.
    ///
    /// # Errors
    ///
    /// The first failure ends it. Images built until then stay, and are current the next time.
    pub async fn build(&self, names: &[String], progress: &mut dyn FnMut(Progress)) -> Result<Vec<Built>, BuildError> {
        let recipes = recipe::read_all(&self.images_dir)?;
        let mut waiting = recipe::in_order(&recipes, names)?;
        let progress = RefCell::new(progress);
        let mut digests = BTreeMap::new();
        let mut replaced = Vec::new();
        let mut all = Vec::new();
        while !waiting.is_empty() {
            // Those that stand on nothing that is still to come are built at the same time.
            let is_next = |recipe: &&Recipe| recipe.needs.iter().all(|need| digests.contains_key(need));
            let (next, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_next);
            let ensured = next.iter().map(|recipe| self.ensure(recipe, &digests, &progress));
            for Ensured { built, digest, replaces } in futures::future::try_join_all(ensured).await? {
                digests.insert(built.name.clone(), digest);
                replaced.extend(replaces);
                all.push(built);
            }
            waiting = later;
        }
        self.remove_replaced(replaced).await;
        Ok(all)
    }

    /// Builds one image if it is not current.
    async fn ensure(
        &self,
        recipe: &Recipe,
        digests: &BTreeMap<String, String>,
        progress: &RefCell<&mut dyn FnMut(Progress)>,
    ) -> Result<Ensured, BuildError> {
        let mut tell = |said: Progress| (*progress.borrow_mut())(said);
        let name = recipe.name.clone();
        let existing = self.existing(&image_name(&name)).await?;
        let debian = self.debian_here(recipe, existing.as_ref()).await?;
        let mut prepared = self.prepare(recipe, debian, digests)?;
        if existing.as_ref().is_some_and(|image| image.label(CONTEXT_LABEL) == Some(&prepared.digest)) {
            tell(Progress::Current(name.clone()));
            return Ok(Ensured { built: Built { name, took: None }, digest: prepared.digest, replaces: None });
        }
        if recipe.takes_debian {
            let debian = debian::choose(&self.docker, &mut tell).await?;
            prepared = self.prepare(recipe, Some(debian), digests)?;
        }
        let begun = Instant::now();
        self.build_one(recipe, &prepared, &mut tell).await?;
        let built = Built { name, took: Some(begun.elapsed()) };
        tell(Progress::Built(built.clone()));
        Ok(Ensured { built, digest: prepared.digest, replaces: existing.map(|image| image.id) })
    }

    /// How every image stands, in the order in which they are built. Builds, pulls and changes nothing.
    ///
    /// # Errors
    ///
    /// When the folders cannot be read or the daemon does not answer.
    pub async fn state(&self) -> Result<Vec<ImageState>, BuildError> {
        let recipes = recipe::read_all(&self.images_dir)?;
        let mut digests = BTreeMap::new();
        let mut states = Vec::new();
        for recipe in recipe::in_order(&recipes, &[])? {
            let existing = self.existing(&image_name(&recipe.name)).await?;
            let comparable = recipe.needs.iter().all(|need| digests.contains_key(need));
            let debian = self.debian_here(recipe, existing.as_ref()).await?;
            let digest = match self.prepare(recipe, debian, &digests) {
                Ok(prepared) if comparable => Some(prepared.digest),
                Ok(_) | Err(BuildError::NoAgent(_)) => None,
                Err(err) => return Err(err),
            };
            let label = existing.as_ref().and_then(|image| image.label(CONTEXT_LABEL));
            states.push(ImageState {
                name: recipe.name.clone(),
                present: existing.is_some(),
                current: digest.as_deref().map(|digest| label == Some(digest)),
                size_bytes: existing.as_ref().map_or(0, |image| image.size_bytes),
            });
            digests.extend(digest.map(|digest| (recipe.name.clone(), digest)));
        }
        Ok(states)
    }

    /// The names of our images that the daemon has, whatever they were made from.
    pub(super) async fn on_engine(&self) -> Result<Vec<String>, BuildError> {
        let filters = HashMap::from([("label", vec![IMAGE_LABEL])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let found = self.docker.list_images(Some(options)).await.map_err(|err| docker_error("list images", err))?;
        let ours = |image: ImageSummary| {
            let name = image.labels.get(IMAGE_LABEL)?.clone();
            // Not what stands on it, which inherits the label.
            let tag = format!("{}:latest", image_name(&name));
            image.repo_tags.contains(&tag).then_some(name)
        };
        let mut names: Vec<_> = found.into_iter().filter_map(ours).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The Debian that the image is compared with. Images that came with `docker load` have none beside them: then it
    /// is the one that they were made from.
    async fn debian_here(&self, recipe: &Recipe, existing: Option<&Existing>) -> Result<Option<Debian>, BuildError> {
        if !recipe.takes_debian {
            return Ok(None);
        }
        let recorded = || {
            let id = existing?.label(DEBIAN_LABEL)?.to_owned();
            Some(Debian { reference: id.clone(), id })
        };
        Ok(debian::local(&self.docker).await?.or_else(recorded))
    }

    fn prepare(
        &self,
        recipe: &Recipe,
        debian: Option<Debian>,
        digests: &BTreeMap<String, String>,
    ) -> Result<Prepared, BuildError> {
        let extras = match recipe.name.as_str() {
            BASE => host_authorities(Path::new(HOST_AUTHORITIES))?,
            AGENT => vec![self.agent()?],
            _ => Vec::new(),
        };
        let unreadable = |source| BuildError::Unreadable { path: recipe.dir.clone(), source };
        let context = recipe::context(&recipe.dir, extras).map_err(unreadable)?;
        let args = debian.iter().map(|debian| ("DEBIAN", debian.id.as_str()));
        let needs = digests.iter().filter(|(name, _)| recipe.needs.contains(*name));
        let digest = recipe::digest(&context, args, needs.map(|(name, digest)| (name.as_str(), digest.as_str())));
        Ok(Prepared { context, debian, digest })
    }

    fn agent(&self) -> Result<Extra, BuildError> {
        let bytes = std::fs::read(&self.agent_binary).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => BuildError::NoAgent(self.agent_binary.clone()),
            _ => BuildError::Unreadable { path: self.agent_binary.clone(), source },
        })?;
        Ok(Extra { path: AGENT_FILE.to_owned(), bytes, executable: true })
    }

    async fn build_one(
        &self,
        recipe: &Recipe,
        prepared: &Prepared,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), BuildError> {
        let mut labels = HashMap::from([(CONTEXT_LABEL, prepared.digest.as_str()), (IMAGE_LABEL, &recipe.name)]);
        let mut args: HashMap<String, String> =
            PROXY_VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
        if let Some(debian) = &prepared.debian {
            labels.insert(DEBIAN_LABEL, &debian.id);
            args.insert("DEBIAN".to_owned(), debian.reference.clone());
        }
        let options = BuildImageOptionsBuilder::default()
            .version(BuilderVersion::BuilderV1)
            .t(&image_name(&recipe.name))
            .labels(&labels)
            .buildargs(&args)
            .rm(true)
            .forcerm(true)
            .build();
        let mut output = Output::default();
        let body = bollard::body_full(prepared.context.clone().into());
        let mut pieces = self.docker.build_image(options, None, Some(body));
        while let Some(piece) = pieces.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(DockerError::DockerStreamError { error: message })
                | Err(DockerError::DockerResponseServerError { message, .. }) => {
                    return Err(output.failed(&recipe.name, message));
                }
                Err(err) => return Err(docker_error("build an image", err)),
            };
            for step in output.add(piece.stream.as_deref().unwrap_or_default()) {
                progress(Progress::Step { image: recipe.name.clone(), step });
            }
        }
        Ok(())
    }

    async fn existing(&self, reference: &str) -> Result<Option<Existing>, BuildError> {
        match self.docker.inspect_image(reference).await {
            Ok(image) => Ok(Some(Existing {
                id: image.id.unwrap_or_default(),
                labels: image.config.and_then(|config| config.labels).unwrap_or_default(),
                tagged: image.repo_tags.is_some_and(|tags| !tags.is_empty()),
                size_bytes: image.size.and_then(|size| size.try_into().ok()).unwrap_or(0),
            })),
            Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(err) => Err(docker_error("look for an image", err)),
        }
    }

    /// Removes images of ours that lost their name. One in use, by a container or an image that stands on it, stays.
    async fn remove_replaced(&self, replaced: Vec<String>) {
        // What stands on others was built last.
        for id in replaced.iter().rev() {
            let Ok(Some(image)) = self.existing(id).await else { continue };
            if image.tagged || image.label(CONTEXT_LABEL).is_none() {
                continue;
            }
            let options = RemoveImageOptionsBuilder::default().force(false).build();
            if let Err(err) = self.docker.remove_image(id, Some(options), None).await {
                tracing::debug!(error = &err as &dyn std::error::Error, "kept image {id}, which is in use");
            }
        }
    }
}

impl Existing {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }
}

/// The certificate authorities that were added to this host, usually none.
fn host_authorities(dir: &Path) -> Result<Vec<Extra>, BuildError> {
    let unreadable = |path: &Path, source| BuildError::Unreadable { path: path.to_owned(), source };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(unreadable(dir, err)),
    };
    let mut extras = Vec::new();
    for entry in entries {
        let path = entry.map_err(|err| unreadable(dir, err))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(".crt")) else {
            continue;
        };
        let bytes = std::fs::read(&path).map_err(|err| unreadable(&path, err))?;
        extras.push(Extra { path: format!("certs/{name}"), bytes, executable: false });
    }
    Ok(extras)
}

fn image_name(name: &str) -> String {
    format!("oncebox/{name}")
}

async fn image_id(docker: &Docker, reference: &str) -> Result<Option<String>, BuildError> {
    match docker.inspect_image(reference).await {
        Ok(image) => Ok(image.id),
        Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(err) => Err(docker_error("look for an image", err)),
    }
}

fn docker_error(action: &'static str, err: DockerError) -> BuildError {
    match err {
        DockerError::DockerResponseServerError { .. } | DockerError::DockerStreamError { .. } => {
            BuildError::Refused { action, source: err.into() }
        }
        err => BuildError::Unreachable(err.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_certificates_of_the_host_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("company.crt"), "pem").unwrap();
        std::fs::write(dir.path().join("notes.txt"), "no").unwrap();
        let found = host_authorities(dir.path()).unwrap();
        assert_eq!(found.iter().map(|extra| extra.path.as_str()).collect::<Vec<_>>(), ["certs/company.crt"]);
        assert!(host_authorities(&dir.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn a_missing_agent_says_how_to_build_it() {
        let message = BuildError::NoAgent(PathBuf::from("/no/agent")).to_string();
        assert_eq!(message, "the agent's binary is not at /no/agent: build it with `make agent`");
    }
}
