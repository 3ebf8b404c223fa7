//! The TLS listener. It serves the same routes, in HTTP/1.1 or HTTP/2 as the client requests.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{Error as RustlsError, ServerConfig};
use tokio_rustls::server::TlsStream;

/// The longest time of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The address and the certificate of the TLS listener. Key, certificate and domain are checked to match.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// The address to listen on.
    pub listen: SocketAddr,
    server: Arc<ServerConfig>,
}

impl TlsConfig {
    /// Reads the PEM files of the certificate and its private key, and checks that the certificate is valid for
    /// `domain`.
    ///
    /// # Errors
    ///
    /// The first key of the configuration that cannot be used.
    pub fn read(listen: SocketAddr, certificate: &str, key: &str, domain: &str) -> Result<Self, TlsConfigError> {
        if domain.is_empty() {
            let reason = "tls_listen needs a domain: SDKs reach TLS as api.DOMAIN and PORT-ID.DOMAIN".to_owned();
            return Err(TlsConfigError { key: "domain", reason });
        }
        for (name, path) in [("tls_certificate", certificate), ("tls_key", key)] {
            if path.is_empty() {
                let reason = format!("tls_listen needs {name}, a PEM file; `oncebox certs` makes one");
                return Err(TlsConfigError { key: name, reason });
            }
        }
        let chain =
            certificates(Path::new(certificate)).map_err(|reason| key_error("tls_certificate", certificate, reason))?;
        let private = private_key(Path::new(key)).map_err(|reason| key_error("tls_key", key, reason))?;
        check_names(&chain[0], domain).map_err(|reason| key_error("tls_certificate", certificate, reason))?;
        let server = server_config(chain, private).map_err(|err| match err {
            RustlsError::InconsistentKeys(_) => key_error("tls_key", key, format!("is not the key of {certificate}")),
            err => key_error("tls_certificate", certificate, format!("cannot be used with its key: {err}")),
        })?;
        Ok(Self { listen, server: Arc::new(server) })
    }
}

/// A key of the configuration that cannot be used.
#[derive(Debug, Error)]
#[error("{reason}")]
pub struct TlsConfigError {
    /// The key.
    pub key: &'static str,
    reason: String,
}

fn key_error(key: &'static str, path: &str, reason: String) -> TlsConfigError {
    TlsConfigError { key, reason: format!("{key} = \"{path}\" {reason}") }
}

/// Reads a chain of at least one certificate, the server's own first.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err("holds no certificate in PEM".to_owned()),
        Ok(chain) => Ok(chain),
        Err(err) => Err(format!("is not PEM: {err}")),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|err| match err {
        pem::Error::NoItemsFound => "holds no private key in PEM".to_owned(),
        err => format!("is not PEM: {err}"),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|err| format!("cannot be read: {err}"))
}

/// Checks that the certificate is valid for the domain's names. Otherwise every client would refuse it.
fn check_names(certificate: &CertificateDer<'_>, domain: &str) -> Result<(), String> {
    let parsed = ParsedCertificate::try_from(certificate).map_err(|err| format!("is no certificate: {err}"))?;
    let domain = domain.split(':').next().unwrap_or_default();
    for name in [format!("api.{domain}"), format!("49999-i0.{domain}")] {
        let server = ServerName::try_from(name.as_str()).map_err(|_| format!("cannot be for {name}: no host name"))?;
        if verify_server_name(&parsed, &server).is_err() {
            return Err(format!("is not for {name}; it must be for api.{domain} and *.{domain}"));
        }
    }
    Ok(())
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, RustlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Accepts TLS connections. Handshakes run concurrently, so that a slow client delays no other.
pub struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl TlsListener {
    /// Listens on the configured address.
    ///
    /// # Errors
    ///
    /// If the address is not available.
    pub async fn bind(config: &TlsConfig) -> io::Result<Self> {
        let tcp = TcpListener::bind(config.listen).await?;
        Ok(Self { tcp, acceptor: TlsAcceptor::from(config.server.clone()), handshakes: JoinSet::new() })
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                (stream, peer) = Listener::accept(&mut self.tcp) => {
                    self.handshakes.spawn(handshake(self.acceptor.clone(), stream, peer));
                }
                Some(ended) = self.handshakes.join_next() => {
                    if let Ok(Some(accepted)) = ended {
                        return accepted;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Performs the handshake. `None` if it fails; that is logged at debug level only, because anyone can send anything to
/// an open port.
async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<(TlsStream<TcpStream>, SocketAddr)> {
    // As without TLS: responses that are streams consist of many small writes.
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some((stream, peer)),
        Ok(Err(err)) => {
            tracing::debug!(%peer, "the TLS handshake with {peer} failed: {err}");
            None
        }
        Err(_) => {
            tracing::debug!(%peer, "the TLS handshake with {peer} took too long");
            None
        }
    }
}
