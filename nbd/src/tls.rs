//! Certificates and keys for rustls, in the files that QEMU and libnbd look for.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

/// A server's side from a folder with `server-cert.pem` and `server-key.pem`. With `verify_peer`, clients must have
/// a certificate that `ca-cert.pem` of the same folder vouches for.
pub fn server(folder: &Path, verify_peer: bool) -> io::Result<Arc<ServerConfig>> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(bad)?;
    let builder = if verify_peer {
        let roots = Arc::new(authorities(folder)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
        builder.with_client_cert_verifier(verifier.build().map_err(bad)?)
    } else {
        builder.with_no_client_auth()
    };
    let (chain, key) = identity(folder, "server")?;
    let config = builder.with_single_cert(chain, key).map_err(bad)?;
    Ok(Arc::new(config))
}

/// A client's side from a folder with `ca-cert.pem`, which must vouch for the server, and `client-cert.pem` and
/// `client-key.pem`, if the server wants to know who comes.
pub fn client(folder: &Path) -> io::Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(bad)?
        .with_root_certificates(authorities(folder)?);
    let config = if folder.join("client-cert.pem").exists() {
        let (chain, key) = identity(folder, "client")?;
        builder.with_client_auth_cert(chain, key).map_err(bad)?
    } else {
        builder.with_no_client_auth()
    };
    Ok(Arc::new(config))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn authorities(folder: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(folder, "ca-cert.pem")? {
        roots.add(certificate).map_err(bad)?;
    }
    Ok(roots)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(folder: &Path, whose: &str) -> io::Result<Identity> {
    let chain = certificates(folder, &format!("{whose}-cert.pem"))?;
    let file = format!("{whose}-key.pem");
    let key = PrivateKeyDer::from_pem_slice(&read(folder, &file)?);
    let key = key.map_err(|error| bad(format!("{file}: {error}")))?;
    Ok((chain, key))
}

fn certificates(folder: &Path, file: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let pem = read(folder, file)?;
    let all = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| bad(format!("{file}: {error}")))?;
    if all.is_empty() {
        return Err(bad(format!("{file} has no certificate")));
    }
    Ok(all)
}

fn read(folder: &Path, file: &str) -> io::Result<Vec<u8>> {
    let path = folder.join(file);
    fs::read(&path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

fn bad(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
