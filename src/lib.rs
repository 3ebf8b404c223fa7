//! oncebox runs untrusted code on your own machine: every request gets a fresh, single-use Docker container.
//!
//! ```text
//!           ┌─────────── server ───────────┐                ┌──── container ────┐
//! client ─▶ http ─────▶ sandbox ─────▶ link ════ pipe ════▶ agent ─────▶ runner
//!                       pool           HTTP/2 over          files        one per
//!                       templates ─▶ engine: starts         the pipe     language
//!                                    and removes
//! ```
//!
//! Read in this order: [`protocol`] is what crosses the pipe, [`agent`] answers it inside the container, [`engine`] starts
//! and removes containers, [`link`] is the server's end of the pipe.

pub mod agent;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod engine;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod link;
pub mod protocol;
#[cfg(feature = "server")]
pub mod sandbox;
