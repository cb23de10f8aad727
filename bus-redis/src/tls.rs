//! TLS by rustls on ring, chosen here so that no process-wide default matters.

#[cfg(feature = "tls")]
pub(crate) use real::Tls;

#[cfg(feature = "tls")]
mod real {
    use std::fmt;
    use std::io;
    use std::sync::Arc;

    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    /// What is trusted.
    pub(crate) struct Tls(TlsConnector);

    impl fmt::Debug for Tls {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Tls")
        }
    }

    impl Tls {
        /// Trusts the system's certificates and these.
        pub(crate) fn new(ca: Option<&[u8]>) -> Result<Self, String> {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            for certificate in ca.into_iter().flat_map(CertificateDer::pem_slice_iter) {
                let certificate = certificate.map_err(|e| format!("tls_ca is not PEM: {e}"))?;
                roots.add(certificate).map_err(|e| format!("tls_ca: {e}"))?;
            }
            let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|e| e.to_string())?
                .with_root_certificates(roots)
                .with_no_client_auth();
            Ok(Self(TlsConnector::from(Arc::new(config))))
        }

        pub(crate) async fn connect(
            &self,
            host: &str,
            stream: TcpStream,
        ) -> io::Result<TlsStream<TcpStream>> {
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            self.0.connect(name, stream).await
        }
    }
}

/// Without the feature `tls` there is none.
#[cfg(not(feature = "tls"))]
#[derive(Debug)]
pub(crate) struct Tls;

#[cfg(not(feature = "tls"))]
impl Tls {
    pub(crate) fn new(_ca: Option<&[u8]>) -> Result<Self, String> {
        Err("this program was built without the feature `tls` of tidings-bus-redis".to_owned())
    }

    pub(crate) async fn connect(
        &self,
        _host: &str,
        _stream: tokio::net::TcpStream,
    ) -> std::io::Result<tokio::net::TcpStream> {
        Err(std::io::Error::other("built without TLS"))
    }
}
