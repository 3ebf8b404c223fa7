//! Network namespaces that outlive the sandboxes in them.
//!
//! For a network of its own, the daemon runs a large program of its own at each container's start: half the time of a
//! launch. A holder is a tiny container that owns a namespace; a sandbox joins it, alone, and the next one after it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptionsBuilder;

use super::{EngineError, OWNER_LABEL, Pipe, engine_error, labels, new_name, remove, start_attached};
use crate::engine::Network;

/// The image that carries nothing but the agent.
pub(super) const HOLDER_IMAGE: &str = "oncebox/agent";

/// The free holders of one owner.
#[derive(Debug)]
pub(super) struct Holders {
    docker: Docker,
    owner: String,
    network: String,
    free: Mutex<HashMap<Network, Vec<Holder>>>,
    /// One at a time looks for the network and creates it: the daemon allows two of one name.
    creating: tokio::sync::Mutex<()>,
}

/// A network namespace for one sandbox at a time.
#[derive(Debug)]
pub(super) struct Holder {
    /// Its container's name.
    pub(super) name: String,
    /// Whether a sandbox has lived in it before.
    pub(super) reused: bool,
    network: Network,
    /// The holder ends when this closes, as it does when this server dies.
    _pipe: Pipe,
}

impl Holders {
    pub(super) fn new(docker: Docker, owner: &str) -> Self {
        Self {
            docker,
            owner: owner.to_owned(),
            network: format!("oncebox-{owner}"),
            free: Mutex::default(),
            creating: tokio::sync::Mutex::default(),
        }
    }

    /// A free holder, or a new one.
    pub(super) async fn take(&self, network: Network) -> Result<Holder, EngineError> {
        let free = self.lock().get_mut(&network).and_then(Vec::pop);
        match free {
            Some(holder) => Ok(holder),
            None => self.start(network).await,
        }
    }

    /// Makes a holder free again. Its sandbox must be gone.
    pub(super) fn give_back(&self, holder: Holder) {
        let holder = Holder { reused: true, ..holder };
        self.lock().entry(holder.network).or_default().push(holder);
    }

    /// Removes a holder that cannot be trusted any longer.
    pub(super) async fn discard(&self, holder: Holder) {
        if let Err(err) = remove(&self.docker, &holder.name).await {
            tracing::warn!(error = &err as &dyn std::error::Error, "cannot remove the holder {}", holder.name);
        }
    }

    /// Drops all free holders, which ends them.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    /// Removes the network that full holders are on. Fails while another holder uses it.
    pub(super) async fn remove_network(&self) -> Result<(), EngineError> {
        let filters = HashMap::from([("label", vec![format!("{OWNER_LABEL}={}", self.owner)])]);
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let failed = |err| engine_error("remove a network", err);
        for network in self.docker.list_networks(Some(options)).await.map_err(failed)? {
            match self.docker.remove_network(network.id.as_deref().unwrap_or_default()).await {
                Ok(()) | Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => {}
                Err(err) => return Err(failed(err)),
            }
        }
        Ok(())
    }

    async fn start(&self, network: Network) -> Result<Holder, EngineError> {
        let mode = match network {
            Network::None => "none".to_owned(),
            Network::Full => {
                self.ensure_network().await.map_err(|err| engine_error("create a network", err))?;
                self.network.clone()
            }
        };
        let name = new_name(&self.owner);
        match start_attached(&self.docker, &name, holder(&self.owner, mode)).await {
            Ok(pipe) => Ok(Holder { name, reused: false, network, _pipe: pipe }),
            Err(err) => {
                let _ = remove(&self.docker, &name).await;
                Err(match err {
                    DockerError::DockerResponseServerError { status_code: 404, ref message }
                        if message.contains("image") =>
                    {
                        EngineError::NoImage(HOLDER_IMAGE.to_owned())
                    }
                    err => engine_error("start a holder", err),
                })
            }
        }
    }

    /// A bridge of our own, on which containers do not reach each other.
    async fn ensure_network(&self) -> Result<(), DockerError> {
        let _creating = self.creating.lock().await;
        if self.docker.inspect_network(&self.network, None).await.is_ok() {
            return Ok(());
        }
        let request = NetworkCreateRequest {
            name: self.network.clone(),
            driver: Some("bridge".to_owned()),
            options: Some(HashMap::from([("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned())])),
            labels: Some(labels(&self.owner)),
            ..NetworkCreateRequest::default()
        };
        match self.docker.create_network(request).await {
            Ok(_) | Err(DockerError::DockerResponseServerError { status_code: 409, .. }) => Ok(()),
            Err(err) => Err(err),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Network, Vec<Holder>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn holder(owner: &str, network_mode: String) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(HOLDER_IMAGE.to_owned()),
        entrypoint: Some(vec!["/oncebox-agent".to_owned(), "hold".to_owned()]),
        hostname: Some("sandbox".to_owned()),
        user: Some("65534:65534".to_owned()),
        labels: Some(labels(owner)),
        open_stdin: Some(true),
        stdin_once: Some(true),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        host_config: Some(HostConfig {
            auto_remove: Some(true),
            network_mode: Some(network_mode),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            readonly_rootfs: Some(true),
            memory: Some(32 << 20),
            pids_limit: Some(16),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}
