//! The names of the control plane's routes. Their shapes are E2B's, and described there.

use utoipa::openapi::path::{HttpMethod, OperationBuilder, Paths};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{OpenApi, OpenApiBuilder};

use HttpMethod::{Delete, Get, Patch, Post, Put};

/// The tag of all routes, and that of the routes for keys with the scope `admin`.
const TAG: &str = "e2b";
const ADMIN: &str = "admin";

/// The line of an operation that is refused with 501.
const NOT_OFFERED: &str = "Not offered here";

/// Each operation: method, route, name, and one line.
const OPERATIONS: &[(HttpMethod, &str, &str, &str)] = &[
    (Get, "/health", "health", "Shows that the server runs"),
    (Post, "/sandboxes", "createSandboxV1", "Creates a sandbox; its token is optional unless it is secure"),
    (Get, "/sandboxes", "listSandboxesV1", "Lists running sandboxes"),
    (Post, "/v2/sandboxes", "createSandbox", "Creates a sandbox, which requires its token"),
    (Get, "/v2/sandboxes", "listSandboxes", "Lists sandboxes in pages, by state and metadata"),
    (Get, "/sandboxes/metrics", "getSandboxesMetrics", "Shows what several sandboxes use"),
    (Get, "/sandboxes/{id}", "getSandbox", "Shows a sandbox"),
    (Delete, "/sandboxes/{id}", "killSandbox", "Removes a sandbox"),
    (Post, "/sandboxes/{id}/connect", "connectSandboxV1", "Resumes a sandbox if it is paused, and extends its life"),
    (Post, "/v2/sandboxes/{id}/connect", "connectSandbox", "Resumes a sandbox if it is paused, and extends its life"),
    (Post, "/sandboxes/{id}/timeout", "setSandboxTimeout", "Sets when a sandbox ends"),
    (Post, "/sandboxes/{id}/refreshes", "refreshSandbox", "Extends the life of a sandbox"),
    (Post, "/sandboxes/{id}/pause", "pauseSandbox", "Pauses a sandbox, with its memory"),
    (Post, "/sandboxes/{id}/resume", "resumeSandbox", "Resumes a paused sandbox"),
    (Put, "/sandboxes/{id}/network", "setSandboxNetwork", "Accepts the network that a sandbox has, and no other"),
    (Get, "/sandboxes/{id}/metrics", "getSandboxMetrics", "Shows what a sandbox used over time"),
    (Get, "/sandboxes/{id}/logs", "getSandboxLogsV1", "Shows the log of a sandbox"),
    (Get, "/v2/sandboxes/{id}/logs", "getSandboxLogs", "Shows the log of a sandbox, in pages"),
    (Post, "/sandboxes/{id}/snapshots", "createSnapshot", NOT_OFFERED),
    (Post, "/sandboxes/{id}/fork", "forkSandbox", NOT_OFFERED),
    (Get, "/templates", "listTemplatesV1", "Lists the templates"),
    (Get, "/v2/templates", "listTemplates", "Lists the templates, in pages"),
    (Get, "/templates/aliases/{alias}", "getTemplateByAlias", "Finds a template by its name"),
    (Get, "/templates/{id}", "getTemplate", "Shows a template"),
    (Post, "/templates", "createTemplateV1", NOT_OFFERED),
    (Post, "/v2/templates", "createTemplateV2", NOT_OFFERED),
    (Get, "/v3/templates", "listTemplatesV3", NOT_OFFERED),
    (Post, "/v3/templates", "createTemplate", NOT_OFFERED),
    (Post, "/templates/aliases/{alias}", "setTemplateAlias", NOT_OFFERED),
    (Post, "/templates/{id}", "rebuildTemplate", NOT_OFFERED),
    (Patch, "/templates/{id}", "updateTemplate", NOT_OFFERED),
    (Delete, "/templates/{id}", "deleteTemplate", NOT_OFFERED),
    (Get, "/templates/{id}/{*rest}", "getTemplateBuild", NOT_OFFERED),
    (Post, "/templates/{id}/{*rest}", "startTemplateBuildV1", NOT_OFFERED),
    (Post, "/v2/templates/{*rest}", "startTemplateBuild", NOT_OFFERED),
    (Get, "/api-keys", "listApiKeys", "Lists the keys, without their texts"),
    (Post, "/api-keys", "createApiKey", "Creates a key; the answer is the only place that has its text"),
    (Patch, "/api-keys/{id}", "renameApiKey", "Renames a key"),
    (Delete, "/api-keys/{id}", "revokeApiKey", "Revokes a key"),
    (Get, "/snapshots", "listSnapshots", NOT_OFFERED),
    (Get, "/teams", "listTeams", NOT_OFFERED),
    (Post, "/volumes", "createVolume", NOT_OFFERED),
    (Get, "/volumes/{*rest}", "getVolume", NOT_OFFERED),
    (Post, "/secrets", "createSecret", NOT_OFFERED),
    (Delete, "/secrets/{*rest}", "deleteSecret", NOT_OFFERED),
];

/// Returns the description of the routes.
pub(in crate::http::e2b) fn describe() -> OpenApi {
    let mut paths = Paths::new();
    for (method, route, name, line) in OPERATIONS {
        let (status, description) = match *line {
            NOT_OFFERED => ("501", "It is not offered here."),
            _ => ("default", "As E2B's own description has it."),
        };
        let response = ResponseBuilder::new().description(description);
        let operation = OperationBuilder::new().tag(TAG).operation_id(Some(*name)).summary(Some(*line));
        let operation = if route.starts_with("/api-keys") { operation.tag(ADMIN) } else { operation };
        paths.add_path_operation(*route, vec![method.clone()], operation.response(status, response));
    }
    let tag = |name, line: &str| TagBuilder::new().name(name).description(Some(line)).build();
    let tags = [
        tag(TAG, "E2B's API, for its SDKs. Requests and answers have the shapes that E2B describes."),
        tag(ADMIN, "API keys, for a key with the scope `admin`."),
    ];
    OpenApiBuilder::new().tags(Some(tags)).paths(paths).build()
}
