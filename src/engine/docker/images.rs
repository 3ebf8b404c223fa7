//! Builds oncebox's images with the daemon's classic builder: only outdated ones, in the order of their dependencies,
//! and independent ones at once.
//!
//! Every image carries the label `oncebox.context`, a digest of everything that it is made from. An image whose label
//! equals the digest of its folder is current. Any other is built again, with the daemon's cache for the steps that did
//! not change.

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

/// The label with the digest of everything that an image was made from.
const CONTEXT_LABEL: &str = "oncebox.context";
/// The label with the image's name, without `oncebox/`.
const IMAGE_LABEL: &str = "oncebox.image";
/// The label with the id of the Debian image below. Images that are built on the base image inherit it.
const DEBIAN_LABEL: &str = "oncebox.debian";

/// The image whose context also gets the host's certificate authorities.
const BASE: &str = "base";
/// The image whose context also gets the agent's binary.
const AGENT: &str = "agent";
const AGENT_FILE: &str = "oncebox-agent";
const HOST_AUTHORITIES: &str = "/usr/local/share/ca-certificates";

/// Variables that the daemon passes to every step, but keeps out of its cache and of the image.
const PROXY_VARIABLES: [&str; 6] = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"];

/// The timeout of calls. The daemon may be silent for as long as one step of a build takes.
const BUILD_TIMEOUT: Duration = Duration::from_secs(3600);

/// Builds the images of one directory on one Docker daemon.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    docker: Docker,
    images_dir: PathBuf,
    agent_binary: PathBuf,
}

/// An image that is current after a build.
struct Ensured {
    built: Built,
    digest: String,
    /// The id of the image that it replaces, if there was one.
    replaces: Option<String>,
}

/// The state of an image, compared with its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageState {
    /// The image's name, without `oncebox/`.
    pub name: String,
    /// Whether the daemon has the image.
    pub present: bool,
    /// Whether it was made from the present content of its folder. `None` if the agent's binary is missing for the
    /// comparison.
    pub current: Option<bool>,
    /// Bytes on disk, including layers shared with other images.
    pub size_bytes: u64,
}

/// Why images could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The address of the daemon is invalid, or the daemon does not answer.
    #[error("the Docker daemon cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The daemon answered with an error.
    #[error("the Docker daemon refused to {action}")]
    Refused {
        /// The action, as a verb phrase: `build an image`.
        action: &'static str,
        /// The daemon's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file or folder that the images are made from cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The agent's binary, which the agent image is made from, is missing.
    #[error("the agent's binary is not at {}: build it with `make agent`", .0.display())]
    NoAgent(PathBuf),
    /// An image that was requested, or that a Dockerfile names, has no folder.
    #[error("no image is named `{name}`{}; there are: {known}", needed_by.as_ref().map(|by| format!(", which `{by}` needs")).unwrap_or_default())]
    Unknown {
        /// The name.
        name: String,
        /// The image whose Dockerfile names it.
        needed_by: Option<String>,
        /// All known names.
        known: String,
    },
    /// Images depend on each other in a circle.
    #[error("images need each other: {0}")]
    Circle(String),
    /// There is no Debian image to build on.
    #[error(
        "no Debian image to start from: debian:trixie-slim cannot be pulled ({pull}); make a registry reachable, or \
         load that image with `docker load`; to build one here with mmdebstrap failed: {problem}"
    )]
    Debian {
        /// Why it could not be pulled.
        pull: String,
        /// Why it could not be built here.
        problem: String,
    },
    /// A step of a Dockerfile failed.
    #[error("image `{image}` failed at {}: {message}\n{}", At(step), tail.join("\n"))]
    Step {
        /// The image's name.
        image: String,
        /// The step; `None` if the build failed before the first one.
        step: Option<Step>,
        /// The daemon's message.
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

/// An image of ours that the daemon has.
struct Existing {
    id: String,
    labels: HashMap<String, String>,
    tagged: bool,
    size_bytes: u64,
}

/// Everything that is sent to the builder for one image.
struct Prepared {
    context: Vec<u8>,
    debian: Option<Debian>,
    digest: String,
}

impl ImageBuilder {
    /// Connects to the daemon that `DOCKER_HOST` names, or to the local one. `images_dir` holds a folder for each
    /// image; `agent_binary` is the static agent, which goes into all of them.
    ///
    /// # Errors
    ///
    /// When the address is invalid. A daemon that does not answer is an error of the first call.
    pub fn connect(images_dir: impl Into<PathBuf>, agent_binary: impl Into<PathBuf>) -> Result<Self, BuildError> {
        let docker = daemon::connect().map_err(|err| BuildError::Unreachable(err.into()))?;
        Ok(Self::new(docker, images_dir.into(), agent_binary.into()))
    }

    pub(super) fn new(docker: Docker, images_dir: PathBuf, agent_binary: PathBuf) -> Self {
        // Only this client of the daemon waits for whole build steps.
        Self { docker: docker.with_timeout(BUILD_TIMEOUT), images_dir, agent_binary }
    }

    /// Builds the named images and the images they need, or all if `names` is empty. Current images are not built
    /// again. A replaced image is removed if nothing uses it.
    ///
    /// # Errors
    ///
    /// The first failure. Images built before it stay, and are current for the next build.
    pub async fn build(&self, names: &[String], progress: &mut dyn FnMut(Progress)) -> Result<Vec<Built>, BuildError> {
        let recipes = recipe::read_all(&self.images_dir)?;
        let mut waiting = recipe::in_order(&recipes, names)?;
        let progress = RefCell::new(progress);
        let mut digests = BTreeMap::new();
        let mut replaced = Vec::new();
        let mut all = Vec::new();
        while !waiting.is_empty() {
            // Images whose dependencies are all built are built at the same time.
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
        let mut report = |line: Progress| (*progress.borrow_mut())(line);
        let name = recipe.name.clone();
        let existing = self.existing(&image_name(&name)).await?;
        let debian = self.comparison_debian(recipe, existing.as_ref()).await?;
        let mut prepared = self.prepare(recipe, debian, digests)?;
        if existing.as_ref().is_some_and(|image| image.label(CONTEXT_LABEL) == Some(&prepared.digest)) {
            report(Progress::Current(name.clone()));
            return Ok(Ensured { built: Built { name, took: None }, digest: prepared.digest, replaces: None });
        }
        if recipe.takes_debian {
            let debian = debian::choose(&self.docker, &mut report).await?;
            prepared = self.prepare(recipe, Some(debian), digests)?;
        }
        let begun = Instant::now();
        self.build_one(recipe, &prepared, &mut report).await?;
        let built = Built { name, took: Some(begun.elapsed()) };
        report(Progress::Built(built.clone()));
        Ok(Ensured { built, digest: prepared.digest, replaces: existing.map(|image| image.id) })
    }

    /// The state of every image, in the order of builds. Builds, pulls and changes nothing.
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
            let debian = self.comparison_debian(recipe, existing.as_ref()).await?;
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

    /// The names of our images that the daemon has, current or not.
    pub(super) async fn on_engine(&self) -> Result<Vec<String>, BuildError> {
        let filters = HashMap::from([("label", vec![IMAGE_LABEL])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let found = self.docker.list_images(Some(options)).await.map_err(|err| docker_error("list images", err))?;
        let ours = |image: ImageSummary| {
            let name = image.labels.get(IMAGE_LABEL)?.clone();
            // An image built on this one inherits the label, but not the tag.
            let tag = format!("{}:latest", image_name(&name));
            image.repo_tags.contains(&tag).then_some(name)
        };
        let mut names: Vec<_> = found.into_iter().filter_map(ours).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The Debian image that the comparison uses. If there is none, because the images came with `docker load`, it is
    /// the one that they were made from.
    async fn comparison_debian(
        &self,
        recipe: &Recipe,
        existing: Option<&Existing>,
    ) -> Result<Option<Debian>, BuildError> {
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

    /// Removes replaced images that lost their name. An image that a container or another image uses stays.
    async fn remove_replaced(&self, replaced: Vec<String>) {
        // In reverse: an image is built after the images that it is built on.
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

/// The certificate authorities that were added to this host; usually none.
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
    fn only_certificates_are_read_from_the_host() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("company.crt"), "pem").unwrap();
        std::fs::write(dir.path().join("notes.txt"), "no").unwrap();
        let found = host_authorities(dir.path()).unwrap();
        assert_eq!(found.iter().map(|extra| extra.path.as_str()).collect::<Vec<_>>(), ["certs/company.crt"]);
        assert!(host_authorities(&dir.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn the_error_for_a_missing_agent_names_the_command_to_build_it() {
        let message = BuildError::NoAgent(PathBuf::from("/no/agent")).to_string();
        assert_eq!(message, "the agent's binary is not at /no/agent: build it with `make agent`");
    }
}
