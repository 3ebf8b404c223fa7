//! oncebox runs untrusted code on your own machine: every request gets a fresh, single-use Docker container.
//!
//! ```text
//!           ┌─────────── server ───────────┐                ┌──── container ────┐
//! client ─▶ http ─────▶ sandbox ─────▶ link ════ pipe ════▶ agent ─────▶ runner
//!           native      pool           HTTP/2 over          files        one per
//!           e2b         registry       the pipe             processes    language
//!           ports       templates ─▶ engine: starts and removes the container
//! ```
//!
//! A request walks these rooms from left to right, and nothing walks back. In the order to read them:
//!
//! - [`config`]: what can be said in `config/` and the environment.
//! - [`http`]: the native API and E2B's, turned into calls on [`sandbox::Sandboxes`]; the one place that knows statuses.
//! - [`sandbox`]: which container serves a request and how long it lives: warm ones, single runs, kept ones.
//! - [`engine`]: where containers run; Docker is the one there is, and only it knows Docker.
//! - [`link`]: the HTTP/2 client on a container's standard input and output.
//! - [`protocol`]: what crosses that pipe; [`records`]: how bytes that come piece by piece do.
//! - [`agent`]: the server at its other end, process 1 of each container. It starts the runners, which are in `images/`.

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
pub mod records;
#[cfg(feature = "server")]
pub mod sandbox;
