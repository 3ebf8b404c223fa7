//! Follows changes of the keys: of their file, and with time.

use std::error::Error;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Keys, Look};
use crate::sandbox::Sandboxes;

/// The time between two looks at the file.
const INTERVAL: Duration = Duration::from_secs(1);

/// The time in which a file that has changed must stay the same before it is read: it may be written in pieces.
const SETTLING: Duration = Duration::from_millis(100);

/// Applies the keys whenever their file changes or the process gets SIGHUP, and when their time is over.
pub async fn follow(keys: Keys, sandboxes: Sandboxes) {
    warn_if_readable(&keys);
    let mut hangup = hangup();
    let mut pause = INTERVAL;
    loop {
        let at_once = tokio::select! {
            () = tokio::time::sleep(pause) => false,
            () = next(&mut hangup) => true,
        };
        let looked = {
            let keys = keys.clone();
            tokio::task::spawn_blocking(move || keys.look(at_once)).await.expect("a look does not panic")
        };
        pause = if let Ok(Look::Changing) = looked { SETTLING } else { INTERVAL };
        match looked {
            Ok(Look::Same | Look::Changing) => {}
            Ok(Look::Read) => {
                tracing::info!(keys = keys.all().len(), "read the keys in {} again", keys.path().display());
                warn_if_readable(&keys);
            }
            Err(err) => tracing::error!(error = &err as &dyn Error, "the keys stay as they were"),
        }
        keys.apply(&sandboxes);
    }
}

/// SIGHUP, unless the server was started from a terminal: there it means that the terminal is gone, and ends the server.
fn hangup() -> Option<Signal> {
    if std::io::stdin().is_terminal() {
        return None;
    }
    match signal(SignalKind::hangup()) {
        Ok(hangup) => Some(hangup),
        Err(err) => {
            tracing::warn!(error = &err as &dyn Error, "SIGHUP cannot be received");
            None
        }
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The file has nothing by which a request could be made, but names and limits are nobody else's concern.
fn warn_if_readable(keys: &Keys) {
    let mode = std::fs::metadata(keys.path()).map_or(0, |metadata| metadata.mode() & 0o777);
    if mode & 0o044 != 0 {
        tracing::warn!("users other than its owner may read {} (mode {mode:03o}): chmod 600", keys.path().display());
    }
}
