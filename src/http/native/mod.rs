//! oncebox's own API.

pub(super) mod run;
pub(super) mod shapes;
pub(super) mod status;
