//! oncebox runs untrusted code on your own machine: every request gets a fresh, single-use Docker container.
//!
//! ```text
//!           ┌─────────── server ───────────┐                ┌──── container ────┐
//! client ─▶ http ─────▶ sandbox ─────▶ link ════ pipe ════▶ agent ─────▶ runner
//!           native      pool           HTTP/2 over          files        one per
//!           e2b, mcp    registry       the pipe             processes    language
//!           ports       templates ─▶ engine: starts and removes the container
//! ```
//!
//! A request passes through these modules from left to right; no module calls back to the left. In reading order:
//!
//! - [`config`]: the settings from `config/` and the environment.
//! - [`keys`]: the API keys: whose requests are accepted, what for, and within which limits.
//! - [`audit`]: the audit log: a line for each run.
//! - [`http`]: translates the native API, E2B's and the Model Context Protocol into calls on [`sandbox::Sandboxes`]; only
//!   this module knows HTTP statuses.
//! - [`sandbox`]: decides which container serves a request and how long it lives: warm, for a single run, or kept.
//! - [`engine`]: starts and removes containers. Only `engine::docker` knows Docker.
//! - [`link`]: the HTTP/2 client on a container's standard input and output.
//! - [`protocol`]: the routes and message types of that connection; [`records`]: the framing of its streamed bodies.
//! - [`agent`]: the HTTP/2 server at the other end, process 1 of each container. It starts the runners, which are in
//!   `images/`.

pub mod agent;
#[cfg(feature = "server")]
pub mod audit;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod engine;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod keys;
#[cfg(feature = "server")]
pub mod link;
pub mod protocol;
pub mod records;
#[cfg(feature = "server")]
pub mod sandbox;
