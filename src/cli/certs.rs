//! `oncebox certs`: makes a CA of the user's own, and a server certificate for clients that trust the CA.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints,
};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, DnsName, ServerName, UnixTime};

use super::{CliResult, print};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The life of the CA. It is long, because clients are set up to trust it only once.
const CA_LIFE: Duration = DAY.saturating_mul(10 * 365);
/// The life of the server's certificate. Some clients refuse one that is valid for more than 825 days.
const SERVER_LIFE: Duration = DAY.saturating_mul(2 * 365);

/// The arguments of `oncebox certs`.
#[derive(Debug, Args)]
pub(super) struct CertsArgs {
    /// The domain of the server's host names, with the port unless that is 443: sandbox.lan:8443.
    #[arg(long, value_name = "DOMAIN[:PORT]", value_parser = parse_domain)]
    domain: Domain,
    /// The directory for ca.pem, ca-key.pem, server.pem and server-key.pem. A CA that is already there is used again.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Domain {
    name: String,
    port: Option<u16>,
}

fn parse_domain(text: &str) -> Result<Domain, String> {
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port.parse().map_err(|_| format!("`{port}` is not a port"))?)),
        None => (text, None),
    };
    let name = name.to_ascii_lowercase();
    if DnsName::try_from(name.as_str()).is_err() || name.parse::<IpAddr>().is_ok() || name.ends_with('.') {
        return Err(format!("`{name}` is not a domain name"));
    }
    if !name.contains('.') {
        return Err(format!(
            "`{name}` must contain a dot, as in sandbox.lan: many clients refuse a certificate for `*.{name}`"
        ));
    }
    Ok(Domain { name, port })
}

/// The files of one directory.
struct Files {
    ca: PathBuf,
    ca_key: PathBuf,
    server: PathBuf,
    server_key: PathBuf,
}

impl Files {
    fn new(directory: &Path) -> Self {
        let file = |name| directory.join(name);
        Self {
            ca: file("ca.pem"),
            ca_key: file("ca-key.pem"),
            server: file("server.pem"),
            server_key: file("server-key.pem"),
        }
    }
}

pub(super) fn certs(args: &CertsArgs) -> CliResult {
    fs::create_dir_all(&args.out).map_err(|err| format!("{}: {err}", args.out.display()))?;
    // Absolute paths: other programs use them, in other directories.
    let files = Files::new(&args.out.canonicalize()?);
    let is_new = mint(&files, &args.domain.name)?;
    print(&advice(&files, &args.domain, is_new));
    Ok(ExitCode::SUCCESS)
}

/// Makes a new server certificate, and a CA if there is none. True if the CA is new.
fn mint(files: &Files, domain: &str) -> Result<bool, Box<dyn std::error::Error>> {
    let (has_ca, has_key) = (files.ca.try_exists()?, files.ca_key.try_exists()?);
    if has_ca != has_key {
        let (there, missing) = if has_ca { (&files.ca, &files.ca_key) } else { (&files.ca_key, &files.ca) };
        let (there, missing) = (there.display(), missing.display());
        return Err(format!("{there} exists, but {missing} does not: restore it, or remove {there}").into());
    }
    let ca_key = match has_ca {
        true => {
            let text = fs::read_to_string(&files.ca_key);
            let text = text.map_err(|err| format!("{} cannot be read: {err}", files.ca_key.display()))?;
            KeyPair::from_pem(&text).map_err(|err| format!("{}: {err}", files.ca_key.display()))?
        }
        false => KeyPair::generate()?,
    };
    let key = KeyPair::generate()?;
    let ca = ca_params(domain);
    let certificate = server_params(domain)?.signed_by(&key, &Issuer::from_params(&ca, &ca_key))?;
    if has_ca {
        check(&files.ca, certificate.der(), domain).map_err(|reason| {
            let (ca, ca_key) = (files.ca.display(), files.ca_key.display());
            format!("{ca} cannot sign for {domain} ({reason}): use another directory, or remove {ca} and {ca_key}")
        })?;
    } else {
        write(&files.ca_key, &ca_key.serialize_pem(), 0o600)?;
        write(&files.ca, &ca.self_signed(&ca_key)?.pem(), 0o644)?;
    }
    write(&files.server_key, &key.serialize_pem(), 0o600)?;
    write(&files.server, &certificate.pem(), 0o644)?;
    Ok(!has_ca)
}

/// The CA's parameters. They depend only on the domain, so that a CA can be used again without parsing its certificate.
fn ca_params(domain: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    valid_for(&mut params, CA_LIFE);
    params.distinguished_name.push(DnType::CommonName, format!("oncebox CA for {domain}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // With a stolen key of a CA that may sign for every name, a thief can pose as any server. This one may sign for
    // this server only.
    let names = [domain, "localhost"].map(|name| GeneralSubtree::DnsName(name.to_owned()));
    let address = GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(Ipv4Addr::LOCALHOST.into(), 32));
    let permitted_subtrees = names.into_iter().chain([address]).collect();
    params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    params
}

/// The parameters of the server's certificate. It is not the CA's own: recent clients refuse a CA certificate from a
/// server.
fn server_params(domain: &str) -> Result<CertificateParams, rcgen::Error> {
    let names = [format!("*.{domain}"), domain.to_owned(), format!("api.{domain}")];
    let names: Vec<_> = names.into_iter().chain(["localhost".to_owned(), "127.0.0.1".to_owned()]).collect();
    let mut params = CertificateParams::new(names)?;
    valid_for(&mut params, SERVER_LIFE);
    params.distinguished_name.push(DnType::CommonName, "oncebox server");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Sets the period of validity. It starts yesterday, because clocks differ.
fn valid_for(params: &mut CertificateParams, life: Duration) {
    params.not_before = (SystemTime::now() - DAY).into();
    params.not_after = (SystemTime::now() + life).into();
}

/// Checks that a client that trusts this CA accepts the certificate.
fn check(ca: &Path, certificate: &CertificateDer<'_>, domain: &str) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(ca).map_err(|err| err.to_string())?;
    roots.add(ca).map_err(|err| err.to_string())?;
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let verifier = verifier.map_err(|err| err.to_string())?;
    let name = ServerName::try_from(format!("api.{domain}")).map_err(|err| err.to_string())?;
    let verified = verifier.verify_server_cert(certificate, &[], &name, &[], UnixTime::now());
    verified.map(|_| ()).map_err(|err| err.to_string())
}

/// Writes a new file and renames it: an existing file could have another mode.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let result = (|| {
        let mut new = path.to_path_buf();
        new.set_extension("new");
        match fs::remove_file(&new) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&new, path)
    })();
    result.map_err(|err| format!("{} cannot be written: {err}", path.display()))
}

fn advice(files: &Files, Domain { name, port }: &Domain, is_new: bool) -> String {
    let [ca, ca_key, server, server_key] =
        [&files.ca, &files.ca_key, &files.server, &files.server_key].map(|path| path.display());
    let day = |life| humantime::format_rfc3339_seconds(SystemTime::now() + life).to_string()[..10].to_owned();
    let minted = match is_new {
        true => {
            format!(
                "{ca} is a new CA, valid until {}. It can sign for {name}, localhost and 127.0.0.1 only.",
                day(CA_LIFE)
            )
        }
        false => format!("{ca} existed already and is used again."),
    };
    let domain = port.map_or_else(|| name.clone(), |port| format!("{name}:{port}"));
    let port = port.unwrap_or(443);
    let until = day(SERVER_LIFE);
    format!(
        r#"{minted} Keep {ca_key} to yourself.
{server} is for {name}, *.{name}, localhost and 127.0.0.1, valid until {until}. Run this command again to renew it.

For the server, in oncebox.toml:

domain = "{domain}"
tls_listen = "127.0.0.1:{port}"
tls_certificate = "{server}"
tls_key = "{server_key}"

For the programs that use an SDK (in Python, {ca} then replaces all other CAs; in JavaScript it is added to them):

export E2B_DOMAIN={domain}
export SSL_CERT_FILE={ca}
export NODE_EXTRA_CA_CERTS={ca}

Or for all programs on Debian or Ubuntu, as root:

cp {ca} /usr/local/share/ca-certificates/oncebox.crt && update-ca-certificates

The names api.{name} and *.{name} must resolve to the server: in dnsmasq, address=/{name}/127.0.0.1
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> Result<(String, Option<u16>), String> {
        parse_domain(text).map(|domain| (domain.name, domain.port))
    }

    #[test]
    fn a_domain_may_contain_a_port() {
        assert_eq!(domain("Sandbox.lan"), Ok(("sandbox.lan".to_owned(), None)));
        assert_eq!(domain("sandbox.lan:8443"), Ok(("sandbox.lan".to_owned(), Some(8443))));
        for wrong in ["", "lan", "sandbox.lan:", "sandbox.lan:99999", "192.0.2.1", "*.sandbox.lan", "a..b", "a.b."] {
            assert!(domain(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_ca_is_used_again_for_its_domain_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = Files::new(directory.path());
        let mint = |domain| mint(&files, domain).map_err(|err| err.to_string());
        let read = |path: &Path| fs::read_to_string(path).expect("a file");
        assert_eq!(mint("sandbox.lan"), Ok(true));
        let (ca, server) = (read(&files.ca), read(&files.server));
        let verified = || {
            let server = CertificateDer::from_pem_file(&files.server).expect("a certificate");
            check(&files.ca, &server, "sandbox.lan")
        };
        assert_eq!(verified(), Ok(()));
        assert_eq!(mint("sandbox.lan"), Ok(false));
        assert_eq!((read(&files.ca) == ca, read(&files.server) == server), (true, false));
        assert_eq!(verified(), Ok(()));
        let refused = mint("elsewhere.lan").expect_err("another domain");
        assert!(refused.contains("ca.pem cannot sign for elsewhere.lan ("), "{refused}");
        assert_eq!(verified(), Ok(()));
        fs::remove_file(&files.ca_key).expect("it was there");
        let refused = mint("sandbox.lan").expect_err("half a CA");
        assert!(refused.contains("ca-key.pem does not: restore it"), "{refused}");
    }

    #[test]
    fn only_the_owner_can_read_keys() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        let files = Files::new(directory.path());
        fs::write(&files.server_key, "").expect("a file that others may read");
        mint(&files, "sandbox.lan").expect("certificates");
        for key in [&files.ca_key, &files.server_key] {
            assert_eq!(fs::metadata(key).expect("a key").permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 4);
    }
}
