//! What a key needs for each route of the control plane.

use crate::http::dialect::Need;
use crate::keys::Scope::{Admin, Build, Sandboxes};

/// The scopes that routes need.
pub(in crate::http::e2b) const NEEDS: &[Need] = &[
    Need::new("POST", "/sandboxes", &[Sandboxes]),
    Need::new("GET", "/sandboxes", &[Sandboxes]),
    Need::new("POST", "/v2/sandboxes", &[Sandboxes]),
    Need::new("GET", "/v2/sandboxes", &[Sandboxes]),
    Need::new("GET", "/sandboxes/metrics", &[Sandboxes]),
    Need::new("*", "/sandboxes/{id}", &[Sandboxes]),
    Need::new("POST", "/sandboxes/{id}/connect", &[Sandboxes]),
    Need::new("POST", "/v2/sandboxes/{id}/connect", &[Sandboxes]),
    Need::new("POST", "/sandboxes/{id}/timeout", &[Sandboxes]),
    Need::new("POST", "/sandboxes/{id}/refreshes", &[Sandboxes]),
    Need::new("POST", "/sandboxes/{id}/pause", &[Sandboxes]),
    Need::new("POST", "/sandboxes/{id}/resume", &[Sandboxes]),
    Need::new("PUT", "/sandboxes/{id}/network", &[Sandboxes]),
    Need::new("GET", "/sandboxes/{id}/metrics", &[Sandboxes]),
    Need::new("GET", "/sandboxes/{id}/logs", &[Sandboxes]),
    Need::new("GET", "/v2/sandboxes/{id}/logs", &[Sandboxes]),
    Need::new("POST", "/sandboxes/{id}/snapshots", &[Sandboxes]),
    Need::new("POST", "/sandboxes/{id}/fork", &[Sandboxes]),
    // A sandbox is created from a template, so whoever may create one may see which there are.
    Need::new("GET", "/templates", &[Sandboxes, Build]),
    Need::new("GET", "/v2/templates", &[Sandboxes, Build]),
    Need::new("GET", "/templates/aliases/{alias}", &[Sandboxes, Build]),
    Need::new("GET", "/templates/{id}", &[Sandboxes, Build]),
    Need::new("*", "/templates", &[Build]),
    Need::new("*", "/v2/templates", &[Build]),
    Need::new("*", "/v3/templates", &[Build]),
    Need::new("*", "/templates/aliases/{alias}", &[Build]),
    Need::new("*", "/templates/{id}", &[Build]),
    Need::new("*", "/templates/{id}/{*rest}", &[Build]),
    Need::new("*", "/v2/templates/{*rest}", &[Build]),
    Need::new("GET", "/api-keys", &[Admin]),
    Need::new("POST", "/api-keys", &[Admin]),
    Need::new("PATCH", "/api-keys/{id}", &[Admin]),
    Need::new("DELETE", "/api-keys/{id}", &[Admin]),
    // These are not offered, whoever wants them.
    Need::new("GET", "/snapshots", &[]),
    Need::new("*", "/teams", &[]),
    Need::new("*", "/volumes", &[]),
    Need::new("*", "/volumes/{*rest}", &[]),
    Need::new("*", "/secrets", &[]),
    Need::new("*", "/secrets/{*rest}", &[]),
];
