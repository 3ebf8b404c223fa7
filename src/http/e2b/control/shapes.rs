//! Sandboxes as E2B's control plane describes them.
//!
//! Source: e2b-dev/infra, `spec/openapi.yml`, schemas `Sandbox`, `SandboxDetail`, `ListedSandbox`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Value, json};

use crate::sandbox::{OnTimeout, Reading, RequestedNetwork, Sandbox, Template};

/// The timeout of a sandbox whose request contains none, in seconds.
pub(in crate::http::e2b) const DEFAULT_TIMEOUT_S: i64 = 300;

/// The version of envd whose behaviour this server has. SDKs choose their calls by it.
pub(in crate::http::e2b) const ENVD_VERSION: &str = "0.6.13";

/// The client id, which E2B has deprecated but still requires.
const CLIENT_ID: &str = "oncebox";

/// The response of creation and connection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http::e2b) struct SandboxResponse {
    #[serde(rename = "sandboxID")]
    sandbox_id: String,
    #[serde(rename = "templateID")]
    template_id: String,
    #[serde(rename = "clientID")]
    client_id: &'static str,
    envd_version: &'static str,
    envd_access_token: String,
    traffic_access_token: Option<String>,
    alias: String,
    domain: Option<String>,
}

impl SandboxResponse {
    pub(in crate::http::e2b) fn new(sandbox: &Sandbox, domain: Option<String>) -> Self {
        Self {
            sandbox_id: sandbox.id.clone(),
            template_id: sandbox.spec.template.name.clone(),
            client_id: CLIENT_ID,
            envd_version: ENVD_VERSION,
            envd_access_token: sandbox.token.clone(),
            traffic_access_token: sandbox.traffic_token.clone(),
            alias: sandbox.spec.template.name.clone(),
            domain,
        }
    }
}

/// The size of a template's sandboxes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http::e2b) struct Size {
    pub(in crate::http::e2b) cpu_count: u64,
    #[serde(rename = "memoryMB")]
    pub(in crate::http::e2b) memory_mb: u64,
    #[serde(rename = "diskSizeMB")]
    pub(in crate::http::e2b) disk_size_mb: u64,
}

impl Size {
    pub(in crate::http::e2b) fn of(template: &Template) -> Self {
        Self {
            cpu_count: template.cpu_millis.div_ceil(1000),
            memory_mb: template.memory_bytes >> 20,
            disk_size_mb: template.disk_bytes >> 20,
        }
    }
}

/// A sandbox in a list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http::e2b) struct ListedSandbox {
    #[serde(rename = "sandboxID")]
    sandbox_id: String,
    #[serde(rename = "templateID")]
    template_id: String,
    #[serde(rename = "clientID")]
    client_id: &'static str,
    alias: String,
    started_at: String,
    end_at: String,
    #[serde(flatten)]
    size: Size,
    state: &'static str,
    envd_version: &'static str,
    metadata: BTreeMap<String, String>,
}

impl ListedSandbox {
    pub(in crate::http::e2b) fn new(sandbox: &Sandbox) -> Self {
        let (spec, life) = (&sandbox.spec, sandbox.life());
        Self {
            sandbox_id: sandbox.id.clone(),
            template_id: spec.template.name.clone(),
            client_id: CLIENT_ID,
            alias: spec.template.name.clone(),
            started_at: rfc3339(sandbox.started),
            end_at: rfc3339(life.end),
            size: Size::of(&spec.template),
            state: if life.paused { "paused" } else { "running" },
            envd_version: ENVD_VERSION,
            metadata: spec.metadata.clone(),
        }
    }
}

/// A sandbox in full detail.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http::e2b) struct SandboxDetail {
    #[serde(flatten)]
    listed: ListedSandbox,
    envd_access_token: String,
    /// `null` if the client has not chosen.
    allow_internet_access: Option<bool>,
    domain: Option<String>,
    network: DetailNetwork,
    lifecycle: Lifecycle,
}

/// The network options as the client spelled them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DetailNetwork {
    allow_public_traffic: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask_request_host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_out: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deny_out: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Lifecycle {
    auto_resume: bool,
    on_timeout: &'static str,
}

impl SandboxDetail {
    pub(in crate::http::e2b) fn new(sandbox: &Sandbox, domain: Option<String>) -> Self {
        let RequestedNetwork { internet, allow, deny } = sandbox.spec.requested_network.clone();
        Self {
            listed: ListedSandbox::new(sandbox),
            envd_access_token: sandbox.token.clone(),
            allow_internet_access: internet,
            domain,
            network: DetailNetwork {
                allow_public_traffic: !sandbox.spec.traffic.private,
                mask_request_host: sandbox.spec.traffic.host.clone(),
                allow_out: allow,
                deny_out: deny,
            },
            lifecycle: Lifecycle {
                auto_resume: sandbox.spec.auto_resume,
                on_timeout: match sandbox.spec.on_timeout {
                    OnTimeout::Kill => "kill",
                    OnTimeout::Pause => "pause",
                },
            },
        }
    }
}

/// Formats a time as `2026-11-22T18:36:02.207627Z`.
pub(in crate::http::e2b) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(time).to_string()
}

/// Makes a UUID of version 8 from bytes.
pub(in crate::http::e2b) fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Returns the whole seconds since 1970.
pub(in crate::http::e2b) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Renders a reading of a sandbox's metrics.
pub(in crate::http::e2b) fn metric(Reading { at, metrics }: &Reading) -> Value {
    json!({
        "timestamp": rfc3339(*at),
        "timestampUnix": unix_seconds(*at),
        "cpuCount": metrics.cpu_count,
        "cpuUsedPct": metrics.cpu_used_percent,
        "memUsed": metrics.memory_used_bytes,
        "memTotal": metrics.memory_total_bytes,
        "memCache": metrics.memory_cache_bytes,
        "diskUsed": metrics.disk_used_bytes,
        "diskTotal": metrics.disk_total_bytes,
    })
}
