//! Which sandbox and which of its ports a request means, and the way to ports of user code.

pub(in crate::http::e2b) mod address;
pub(in crate::http::e2b) mod debug;
pub(in crate::http::e2b) mod lifetime;
pub(in crate::http::e2b) mod ports;
