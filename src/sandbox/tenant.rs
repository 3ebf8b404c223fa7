//! Whose a sandbox is.

/// Whose sandbox it is: which API key made it. Nobody sees another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tenant(pub usize);
