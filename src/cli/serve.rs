//! `oncebox serve`: the server, from its first look at the engine to the last container's removal.

use std::process::ExitCode;
use std::sync::Arc;

use oncebox::config::Config;
use oncebox::engine::docker::DockerEngine;
use oncebox::http;
use oncebox::sandbox::Sandboxes;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::CliResult;

pub(super) async fn serve(config: Config) -> CliResult {
    let mut stop = StopSignals::new()?;
    // The address first: it is also the lock that keeps two servers of one owner apart.
    let listener = TcpListener::bind(config.http.listen)
        .await
        .map_err(|err| format!("cannot listen on {}: {err}", config.http.listen))?;
    let engine = Arc::new(DockerEngine::connect(&config.owner)?);
    let sandboxes = Sandboxes::open(engine, config.templates, config.sandboxes).await?;
    let address = listener.local_addr()?;
    tracing::info!(%address, owner = config.owner, "listening on http://{address}");

    let router = http::router(sandboxes.clone(), &config.http);
    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = axum::serve(listener, router).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let mut server = tokio::spawn(server.into_future());
    tokio::select! {
        ended = &mut server => ended??,
        () = stop.next() => {
            tracing::info!("stopping: waiting for what runs, {:?} at the most", config.drain_timeout);
            let _ = stopping.send(());
            let in_time = tokio::select! {
                _ = &mut server => true,
                () = tokio::time::sleep(config.drain_timeout) => false,
                () = stop.next() => false,
            };
            if !in_time {
                tracing::warn!("stopping now: what still runs is cancelled");
                sandboxes.cancel();
                let _ = tokio::time::timeout(config.drain_timeout, server).await;
            }
        }
    }
    sandboxes.close().await;
    tracing::info!("stopped; nothing is left on the engine");
    Ok(ExitCode::SUCCESS)
}

/// SIGTERM and Ctrl-C.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
