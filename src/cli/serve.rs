//! `oncebox serve`: the server, from its first look at the engine to the last container's removal.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use axum::serve::{Listener, ListenerExt};
use oncebox::config::Config;
use oncebox::engine::{self, Engine, beyond};
use oncebox::http::{self, Routers, TlsListener};
use oncebox::sandbox::Sandboxes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::stop::StopSignals;
use super::{CliResult, memory};

pub(super) async fn serve(config: Config) -> CliResult {
    allow_many_connections();
    let mut stop = StopSignals::new()?;
    // The addresses first: the main one is also the lock that keeps two servers of one owner apart.
    let main = bind(config.http.listen).await?;
    let mut extra = Vec::new();
    for port in if config.http.debug_ports { http::extra_ports() } else { Vec::new() } {
        extra.push((port, bind(SocketAddr::new(config.http.listen.ip(), port)).await?));
    }
    let tls = match &config.http.tls {
        Some(tls) => Some(TlsListener::bind(tls).await.map_err(|err| cannot_listen(tls.listen, &err))?),
        None => None,
    };
    let processors = config.template_cpu_millis();
    let owner = config.engine.owner.clone();
    let engine = engine::open(config.engine)?;
    let sandboxes = Sandboxes::open(Arc::clone(&engine), config.templates, config.sandboxes).await?;
    tokio::spawn(async move { compare_processors(&*engine, &processors).await });
    tokio::spawn(memory::give_back());
    if let Some(address) = tls.as_ref().map(TlsListener::local_addr).transpose()? {
        tracing::info!(%address, domain = config.http.domain, "listening on https://{address}");
    }
    let address = main.local_addr()?;
    tracing::info!(%address, owner, "listening on http://{address}");

    let timeouts = config.http.timeouts;
    let routers = Routers::new(sandboxes.clone(), &config.http);
    let stopping = CancellationToken::new();
    let mut servers = JoinSet::new();
    servers.spawn(http::serve(main, routers.main(), timeouts, stopping.clone()));
    if let Some(listener) = tls {
        servers.spawn(http::serve(listener, routers.main(), timeouts, stopping.clone()));
    }
    for (port, listener) in extra {
        servers.spawn(http::serve(listener, routers.on_port(port), timeouts, stopping.clone()));
    }
    tokio::select! {
        Some(ended) = servers.join_next() => ended?,
        () = stop.next() => {
            tracing::info!("stopping: waiting for what runs, {:?} at the most", config.drain_timeout);
            stopping.cancel();
            let in_time = tokio::select! {
                () = all(&mut servers) => true,
                () = tokio::time::sleep(config.drain_timeout) => false,
                () = stop.next() => false,
            };
            if !in_time {
                tracing::warn!("stopping now: what still runs is cancelled");
                sandboxes.cancel();
                let _ = tokio::time::timeout(config.drain_timeout, all(&mut servers)).await;
            }
        }
    }
    match sandboxes.close().await {
        Ok(()) => tracing::info!("stopped; nothing is left on the engine"),
        Err(err) => {
            let error = &err as &dyn Error;
            tracing::error!(error, "stopped; something of this owner may be left, which its next start removes");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Warns of templates that ask for more processors than there are. Their sandboxes start all the same.
async fn compare_processors(engine: &dyn Engine, asked: &[(String, u64)]) {
    match engine.processors().await {
        Ok(processors) => {
            if let Some(finding) = beyond(processors, asked) {
                tracing::warn!(processors, "{finding}; their sandboxes share what there is");
            }
        }
        Err(err) => tracing::debug!(error = &err as &dyn Error, "cannot compare templates with the host's processors"),
    }
}

/// Each connection is an open file, of which many systems allow 1,024 unless more are asked for.
fn allow_many_connections() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(err) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(error = &err as &dyn Error, "cannot raise the limit of open files");
    }
}

async fn bind(address: SocketAddr) -> Result<impl Listener<Addr = SocketAddr>, Box<dyn Error>> {
    let listener = TcpListener::bind(address).await.map_err(|err| cannot_listen(address, &err))?;
    // Streams are many small writes. Waiting to send them together costs 40 ms where the other side waits to confirm.
    Ok(listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    }))
}

fn cannot_listen(address: SocketAddr, err: &io::Error) -> String {
    format!("cannot listen on {address}: {err}")
}

async fn all(servers: &mut JoinSet<()>) {
    while servers.join_next().await.is_some() {}
}
