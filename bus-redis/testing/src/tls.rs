//! Certificates for one test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority of a test and the certificate that it gave to `127.0.0.1` and `localhost`, as PEM files.
#[derive(Debug)]
pub struct Certificates {
    /// The authority's certificate, which a client must trust.
    pub authority: PathBuf,
}

impl Certificates {
    /// Writes `ca.crt`, `server.crt` and `server.key` into a folder.
    pub(crate) fn create(folder: &Path) -> Self {
        std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n")
            .expect("a file can be written");
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let authority = ["req", "-x509", "-days", "2", "-subj", "/CN=authority of a test"];
        let files = ["-keyout", "ca.key", "-out", "ca.crt"];
        openssl(folder, &[&authority[..], &key, &files].concat());
        let request = ["req", "-new", "-subj", "/CN=server of a test"];
        let files = ["-keyout", "server.key", "-out", "server.csr"];
        openssl(folder, &[&request[..], &key, &files].concat());
        let sign = ["x509", "-req", "-days", "2", "-in", "server.csr", "-CA", "ca.crt"];
        let files =
            ["-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-out", "server.crt"];
        openssl(folder, &[&sign[..], &files].concat());
        Self { authority: folder.join("ca.crt") }
    }
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| {
        panic!("cannot run openssl ({error}): install it, on Debian `apt-get install openssl`")
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
