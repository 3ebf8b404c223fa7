//! Returns memory to the system that the allocator keeps after many clients have gone.

use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(10);

/// Returns free memory to the system every ten seconds, for ever. glibc does so by itself only at the end of a heap, so
/// that one small block there can hold back hundreds of megabytes.
pub(super) async fn give_back() {
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Err(err) = tokio::task::spawn_blocking(trim).await {
            tracing::debug!("cannot return memory to the system: {err}");
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "no crate wraps malloc_trim")]
fn trim() {
    // SAFETY: the function takes and returns no pointer, and any thread may call it at any time.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators return memory by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}
