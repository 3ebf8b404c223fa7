//! `oncebox serve`: runs the server, and removes all its containers at the end.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::serve::{Listener, ListenerExt};
use oncebox::audit::AuditLog;
use oncebox::config::Config;
use oncebox::engine::{self, Engine, too_many_processors};
use oncebox::http::{self, Metrics, Routers, TlsListener};
use oncebox::keys;
use oncebox::sandbox::{HashSecret, Observer, Records, Sandboxes};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::stop::StopSignals;
use super::{CliResult, memory};

pub(super) async fn serve(config: Config) -> CliResult {
    let started = Instant::now();
    allow_many_connections();
    let mut stop = StopSignals::new()?;
    // Before the engine: the main address also serves as a lock, so that there is one server per owner.
    let main = bind(config.http.listen).await?;
    let mut extra = Vec::new();
    for port in if config.http.debug_ports { http::extra_ports() } else { Vec::new() } {
        extra.push((port, bind(SocketAddr::new(config.http.listen.ip(), port)).await?));
    }
    let tls = match &config.http.tls {
        Some(tls) => Some(TlsListener::bind(tls).await.map_err(|err| listen_error(tls.listen, &err))?),
        None => None,
    };
    let processors = config.template_cpu_millis();
    let owner = config.engine.owner.clone();
    let engine = engine::open(config.engine)?;
    let audit = config.audit.map(|target| AuditLog::open(&target, config.http.api_keys.clone())).transpose()?;
    let metrics = Metrics::new(config.http.api_keys.clone());
    let secret = audit.as_ref().map_or_else(HashSecret::random, AuditLog::secret);
    let mut observers: Vec<Arc<dyn Observer>> = vec![Arc::new(metrics.clone())];
    observers.extend(audit.iter().map(|audit| Arc::new(audit.clone()) as Arc<dyn Observer>));
    let records = Records::new(secret, observers);
    let sandboxes = Sandboxes::open(Arc::clone(&engine), config.templates, config.sandboxes, records).await?;
    tokio::spawn(async move { warn_of_missing_processors(&*engine, &processors).await });
    tokio::spawn(memory::give_back());
    if let Some(address) = tls.as_ref().map(TlsListener::local_addr).transpose()? {
        tracing::info!(%address, domain = config.http.domain, "listening on https://{address}");
    }
    let address = main.local_addr()?;
    tracing::info!(%address, owner, "listening on http://{address}");

    let timeouts = config.http.timeouts;
    // Before the first request, which has limits already.
    config.http.api_keys.apply(&sandboxes);
    tokio::spawn(keys::follow(config.http.api_keys.clone(), sandboxes.clone()));
    tokio::spawn(announce(sandboxes.clone(), address, config.http.api_keys.are_required(), started));
    let routers = Routers::new(sandboxes.clone(), metrics, &config.http);
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
            tracing::info!("stopping: waiting for running requests, {:?} at most", config.drain_timeout);
            stopping.cancel();
            let in_time = tokio::select! {
                () = join_all(&mut servers) => true,
                () = tokio::time::sleep(config.drain_timeout) => false,
                () = stop.next() => false,
            };
            if !in_time {
                tracing::warn!("stopping now: running requests are cancelled");
                sandboxes.cancel();
                let _ = tokio::time::timeout(config.drain_timeout, join_all(&mut servers)).await;
            }
        }
    }
    let closed = sandboxes.close().await;
    if let Some(audit) = audit {
        audit.flush().await;
    }
    match closed {
        Ok(()) => tracing::info!("stopped; nothing is left on the engine"),
        Err(err) => {
            let error = &err as &dyn Error;
            tracing::error!(
                error,
                "stopped; containers or networks may be left on the engine, and the next start removes them"
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Logs a warning if templates need more processors than the host has. Their sandboxes start nevertheless.
async fn warn_of_missing_processors(engine: &dyn Engine, templates: &[(String, u64)]) {
    match engine.processors().await {
        Ok(processors) => {
            if let Some(finding) = too_many_processors(processors, templates) {
                tracing::warn!(processors, "{finding}; their sandboxes share those that exist");
            }
        }
        Err(err) => tracing::debug!(error = &err as &dyn Error, "cannot compare templates with the host's processors"),
    }
}

/// How often a server that has just started checks whether it is ready.
const READY_CHECK: Duration = Duration::from_millis(100);

/// Logs when requests can be served, with a request to paste.
async fn announce(sandboxes: Sandboxes, address: SocketAddr, needs_key: bool, started: Instant) {
    let runs = sandboxes.templates().iter().filter(|template| template.runs);
    // The one that most are kept warm of is probably the one that is wanted.
    let Some(language) = runs.max_by_key(|template| template.warm).map(|template| template.name.clone()) else {
        return;
    };
    while !sandboxes.is_ready().await {
        tokio::time::sleep(READY_CHECK).await;
    }
    let key = if needs_key { " -H \"X-API-Key: $KEY\"" } else { "" };
    let body = format!(r#"{{"language": "{language}", "code": "1 + 1"}}"#);
    let ready_ms = started.elapsed().as_millis() as u64;
    tracing::info!(
        ready_ms,
        "ready after {:.1} s; try: curl -s http://{address}/v1/run{key} -H 'content-type: application/json' -d '{body}'",
        started.elapsed().as_secs_f64()
    );
}

/// Raises the limit of open files as far as allowed: each connection is one, and many systems allow only 1,024 by
/// default.
fn allow_many_connections() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(err) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(error = &err as &dyn Error, "cannot raise the limit of open files");
    }
}

async fn bind(address: SocketAddr) -> Result<impl Listener<Addr = SocketAddr>, Box<dyn Error>> {
    let listener = TcpListener::bind(address).await.map_err(|err| listen_error(address, &err))?;
    // Streams consist of many small writes. To collect them (Nagle's algorithm) costs 40 ms if the client delays its
    // acknowledgements.
    Ok(listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    }))
}

fn listen_error(address: SocketAddr, err: &io::Error) -> String {
    format!("cannot listen on {address}: {err}")
}

async fn join_all(servers: &mut JoinSet<()>) {
    while servers.join_next().await.is_some() {}
}
