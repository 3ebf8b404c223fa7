//! Memory that the allocator keeps after a crowd of clients has gone.

use std::time::Duration;

const EVERY: Duration = Duration::from_secs(10);

/// Gives free memory back to the system every ten seconds, for ever. glibc does so by itself at the end of a heap only,
/// and hundreds of megabytes stay behind one small block.
pub(super) async fn give_back() {
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(err) = tokio::task::spawn_blocking(trim).await {
            tracing::debug!("cannot give memory back: {err}");
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "no crate wraps it")]
fn trim() {
    // SAFETY: it takes no pointer, gives none, and may be called by any thread at any time.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators do it by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}
