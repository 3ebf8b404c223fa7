//! The address of a request (sandbox and port), and the proxy to the ports of user code.

pub(in crate::http::e2b) mod address;
pub(in crate::http::e2b) mod debug;
pub(in crate::http::e2b) mod lifetime;
pub(in crate::http::e2b) mod ports;
