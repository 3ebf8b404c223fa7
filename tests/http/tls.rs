//! E2B's SDKs by domain: TLS with the certificates of `oncebox certs`, and host names that name a sandbox.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use reqwest::{Certificate, Client, StatusCode, Version};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Server, eventually, oncebox, refuses_to_start};

trials![
    a_sandbox_is_created_and_runs_code_under_the_names_of_the_domain,
    a_name_of_another_domain_is_the_server_itself,
    what_is_not_tls_harms_nothing,
    a_server_stops_while_clients_stay_connected,
    certificates_that_cannot_be_meant_stop_the_start,
    the_certificates_come_with_instructions,
];

const KEY: &str = "e2b_0000000000000000000000000000000000000000";

/// Creates certificates for a domain; returns their directory and the output of the command.
fn certs(domain: &str) -> (TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let output =
        oncebox().args(["certs", "--domain", domain, "--out"]).arg(directory.path()).output().expect("oncebox");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (directory, String::from_utf8(output.stdout).expect("text"))
}

/// The variables that make a server use these certificates for a domain.
fn variables(certs: &Path, domain: &str) -> Vec<(&'static str, String)> {
    let file = |name| certs.join(name).to_str().expect("text").to_owned();
    vec![
        ("ONCEBOX_DOMAIN", domain.to_owned()),
        ("ONCEBOX_TLS_LISTEN", "127.0.0.1:0".to_owned()),
        ("ONCEBOX_TLS_CERTIFICATE", file("server.pem")),
        ("ONCEBOX_TLS_KEY", file("server-key.pem")),
    ]
}

/// A server for `sandbox.test` with a key, and access to it as a client.
struct Tls {
    server: Server,
    certs: TempDir,
    address: SocketAddr,
}

impl Tls {
    fn start(more: &[(&str, &str)]) -> Self {
        let (certs, _) = certs("sandbox.test");
        let variables = variables(certs.path(), "sandbox.test");
        let variables = variables.iter().map(|(name, value)| (*name, value.as_str()));
        let all: Vec<_> = variables.chain([("ONCEBOX_API_KEYS", KEY)]).chain(more.iter().copied()).collect();
        let server = Server::start_cold(&all);
        let url = server.tls_url.as_deref().expect("it listens for TLS");
        let address = url.trim_start_matches("https://").parse().expect("an address");
        Self { server, certs, address }
    }

    /// A client that trusts only this CA and resolves this name to the server.
    fn client(&self, name: &str) -> reqwest::ClientBuilder {
        let ca = fs::read(self.certs.path().join("ca.pem")).expect("the CA");
        let ca = Certificate::from_pem(&ca).expect("a certificate");
        Client::builder().add_root_certificate(ca).resolve(name, self.address).pool_max_idle_per_host(0)
    }

    fn url(&self, name: &str, path: &str) -> String {
        format!("https://{name}:{}{path}", self.address.port())
    }
}

async fn a_sandbox_is_created_and_runs_code_under_the_names_of_the_domain() {
    let tls = Tls::start(&[("ONCEBOX_TEMPLATES__FULL__WARM", "1")]);
    let api = tls.client("api.sandbox.test").build().expect("a client");
    let healthy = api.get(tls.url("api.sandbox.test", "/healthz")).send().await.expect("an answer");
    assert_eq!((healthy.status(), healthy.version()), (StatusCode::OK, Version::HTTP_2));
    let old = tls.client("api.sandbox.test").http1_only().build().expect("a client");
    let healthy = old.get(tls.url("api.sandbox.test", "/healthz")).send().await.expect("an answer");
    assert_eq!((healthy.status(), healthy.version()), (StatusCode::OK, Version::HTTP_11));

    let create =
        api.post(tls.url("api.sandbox.test", "/sandboxes")).json(&json!({"templateID": "code-interpreter-v1"}));
    let refused = create.try_clone().expect("a copy").send().await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let created = create.header("x-api-key", KEY).send().await.expect("an answer");
    assert_eq!(created.status(), StatusCode::CREATED);
    let created: Value = created.json().await.expect("JSON");
    assert_eq!(created["domain"], "sandbox.test");
    let (id, token) = (created["sandboxID"].as_str().expect("an id"), created["envdAccessToken"].as_str());

    for is_old in [false, true] {
        // Old SDKs use the long form.
        for name in [format!("49999-{id}.sandbox.test"), format!("49999-{id}-oncebox.sandbox.test")] {
            let client = tls.client(&name);
            let client = if is_old { client.http1_only() } else { client };
            let execute = client.build().expect("a client").post(tls.url(&name, "/execute"));
            let execute = execute.header("x-access-token", token.expect("a token")).json(&json!({"code": "6 * 7"}));
            let events = execute.send().await.expect("an answer").text().await.expect("text");
            let events: Vec<Value> =
                events.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
            let result = events.iter().find(|event| event["type"] == "result").expect("a result");
            assert_eq!(result["text"], "42", "{name}");
        }
    }
    let kill = api.delete(tls.url("api.sandbox.test", &format!("/sandboxes/{id}"))).header("x-api-key", KEY);
    assert_eq!(kill.send().await.expect("an answer").status(), StatusCode::NO_CONTENT);
}

async fn a_name_of_another_domain_is_the_server_itself() {
    let tls = Tls::start(&[]);
    for name in ["elsewhere.test", "49999-iabc.elsewhere.test"] {
        let health = tls.url(name, "/healthz");
        let strict = tls.client(name).build().expect("a client").get(&health).send().await;
        assert!(strict.is_err(), "the certificate is not for {name}");
        let lax = tls.client(name).danger_accept_invalid_certs(true).build().expect("a client");
        assert_eq!(lax.get(&health).send().await.expect("an answer").status(), StatusCode::OK, "{name}");
        let list = lax.get(tls.url(name, "/sandboxes")).send().await.expect("an answer");
        assert_eq!(list.status(), StatusCode::UNAUTHORIZED, "{name}");
    }
    // Without a name there is no SNI.
    let client = tls.client("unused.test").build().expect("a client");
    for name in ["127.0.0.1", "localhost"] {
        let health = client.get(tls.url(name, "/healthz")).send().await.expect("an answer");
        assert_eq!(health.status(), StatusCode::OK, "{name}");
    }
    // The name of a sandbox that does not exist.
    let name = "49999-inobody.sandbox.test";
    let health = tls.client(name).build().expect("a client").get(tls.url(name, "/health")).send().await;
    assert_eq!(health.expect("an answer").status(), StatusCode::BAD_GATEWAY);
    // A client that does not trust the CA refuses the connection.
    let stranger = Client::builder().resolve("api.sandbox.test", tls.address).build().expect("a client");
    assert!(stranger.get(tls.url("api.sandbox.test", "/healthz")).send().await.is_err());
}

async fn what_is_not_tls_harms_nothing() {
    let tls = Tls::start(&[]);
    let silent: Vec<_> = (0..64).map(|_| TcpStream::connect(tls.address).expect("a connection")).collect();
    for sent in
        [&b"GET /healthz HTTP/1.1\r\nhost: api.sandbox.test\r\n\r\n"[..], b"\x16\x03\x01\xff\xff", &[0; 1 << 16]]
    {
        let mut stream = TcpStream::connect(tls.address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a socket");
        // The server may hang up before it has read everything.
        let _ = stream.write_all(sent);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
        let client = tls.client("api.sandbox.test").build().expect("a client");
        let health = client.get(tls.url("api.sandbox.test", "/healthz")).send().await.expect("an answer");
        assert_eq!(health.status(), StatusCode::OK);
    }
    // The server closes connections that send nothing, or that stop in the middle of the handshake.
    let mut halfway = TcpStream::connect(tls.address).expect("a connection");
    halfway.write_all(b"\x16\x03\x01\x02\x00\x01").expect("it is sent");
    for mut stream in silent.into_iter().chain([halfway]) {
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        let end = tokio::task::spawn_blocking(move || stream.read(&mut [0; 9])).await.expect("it is read");
        let is_over = end.as_ref().map_or_else(|err| err.kind() == ErrorKind::ConnectionReset, |length| *length == 0);
        assert!(is_over, "{end:?}");
    }
    // The plain port does not accept TLS, and still works.
    let plain = tls.server.url.replace("http://", "https://");
    assert!(tls.client("unused.test").build().expect("a client").get(plain).send().await.is_err());
    eventually("it is ready", async || tls.server.get("/readyz").await.0 == 200).await;
}

async fn a_server_stops_while_clients_stay_connected() {
    let tls = Tls::start(&[("ONCEBOX_DRAIN_TIMEOUT_MS", "20000")]);
    let client = tls.client("api.sandbox.test").pool_max_idle_per_host(8).build().expect("a client");
    let health = client.get(tls.url("api.sandbox.test", "/healthz")).send().await.expect("an answer");
    assert!(!health.text().await.expect("text").is_empty());
    let _unfinished = TcpStream::connect(tls.address).expect("a connection");
    let began = std::time::Instant::now();
    assert!(tls.server.stop());
    assert!(began.elapsed() < Duration::from_secs(15), "it waited for idle clients: {:?}", began.elapsed());
}

async fn certificates_that_cannot_be_meant_stop_the_start() {
    let ((ours, _), (other, _)) = (certs("sandbox.test"), certs("other.test"));
    let path = |directory: &TempDir, name| directory.path().join(name).to_str().expect("text").to_owned();
    let ca_key = path(&ours, "ca-key.pem");
    let cases = [
        ("ONCEBOX_TLS_LISTEN", "8443".to_owned(), "tls_listen: "),
        (
            "ONCEBOX_TLS_LISTEN",
            "localhost:8443".to_owned(),
            "tls_listen: `localhost:8443` is not an address with a port",
        ),
        ("ONCEBOX_TLS_LISTEN", "0.0.0.0:0".to_owned(), "tls_listen = \"0.0.0.0:0\" is not loopback, and anyone"),
        ("ONCEBOX_DOMAIN", String::new(), "tls_listen needs a domain: SDKs reach TLS as api.DOMAIN and PORT-ID.DOMAIN"),
        ("ONCEBOX_DOMAIN", "a b".to_owned(), "cannot be for api.a b: no host name"),
        (
            "ONCEBOX_TLS_CERTIFICATE",
            String::new(),
            "tls_listen needs tls_certificate, a PEM file; `oncebox certs` makes",
        ),
        ("ONCEBOX_TLS_KEY", String::new(), "tls_listen needs tls_key, a PEM file; `oncebox certs` makes one"),
        ("ONCEBOX_TLS_CERTIFICATE", path(&ours, "no.pem"), "no.pem\" cannot be read: No such file"),
        ("ONCEBOX_TLS_KEY", path(&ours, "no.pem"), "no.pem\" cannot be read: No such file"),
        ("ONCEBOX_TLS_CERTIFICATE", ca_key.clone(), "ca-key.pem\" holds no certificate in PEM"),
        ("ONCEBOX_TLS_KEY", path(&ours, "ca.pem"), "ca.pem\" holds no private key in PEM"),
        ("ONCEBOX_TLS_KEY", ca_key, "ca-key.pem\" is not the key of "),
        ("ONCEBOX_TLS_CERTIFICATE", path(&other, "server.pem"), "is not for api.sandbox.test; it must be for api."),
    ];
    for (name, value, reason) in cases {
        let mut variables = variables(ours.path(), "sandbox.test");
        variables.iter_mut().find(|(key, _)| *key == name).expect("one of them").1 = value;
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let said = refuses_to_start(&variables, None);
        assert!(said.contains(reason), "{name}: `{said}` does not say `{reason}`");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let refused = oncebox().args(["certs", "--domain", "lan", "--out"]).arg(directory.path().join("certs")).output();
    let refused = refused.expect("oncebox certs");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("`lan` must contain a dot"));
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0);
}

async fn the_certificates_come_with_instructions() {
    let (directory, said) = certs("Sandbox.test:8443");
    let path = directory.path().canonicalize().expect("a directory").display().to_string();
    for line in [
        "domain = \"sandbox.test:8443\"",
        "tls_listen = \"127.0.0.1:8443\"",
        &format!("tls_certificate = \"{path}/server.pem\""),
        &format!("tls_key = \"{path}/server-key.pem\""),
        "export E2B_DOMAIN=sandbox.test:8443",
        &format!("export SSL_CERT_FILE={path}/ca.pem"),
        &format!("export NODE_EXTRA_CA_CERTS={path}/ca.pem"),
    ] {
        assert!(said.lines().any(|said| said == line), "`{line}` is not in {said}");
    }
}
