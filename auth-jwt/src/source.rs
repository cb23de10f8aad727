//! Where the text of a JWKS comes from.

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncReadExt;

/// Where a JWKS document is read from, as often as keys may have changed.
#[async_trait]
pub trait KeySource: Debug + Send + Sync + 'static {
    /// The document as it is now. [`Jwks`](crate::Jwks) bounds the time this may take, and its size.
    ///
    /// # Errors
    /// [`SourceError`] when it cannot be read now.
    async fn fetch(&self) -> Result<Document, SourceError>;
}

/// What a [`KeySource`] gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// The text of the JWKS.
    pub text: Bytes,
    /// How long its publisher says it stays as it is; `None` when it says nothing.
    pub fresh_for: Option<Duration>,
}

impl<T: Into<Bytes>> From<T> for Document {
    fn from(text: T) -> Self {
        Self { text: text.into(), fresh_for: None }
    }
}

/// Why a [`KeySource`] could not be read. It is for the log of the server; no client sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// A JWKS document in a file, read again whenever the keys may have changed.
#[derive(Debug, Clone)]
pub struct FileSource(PathBuf);

impl FileSource {
    /// Reads the file at `path`; it need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

#[async_trait]
impl KeySource for FileSource {
    async fn fetch(&self) -> Result<Document, SourceError> {
        let told = |error: std::io::Error| SourceError(format!("{}: {error}", self.0.display()));
        let file = tokio::fs::File::open(&self.0).await.map_err(told)?;
        let mut text = Vec::new();
        // One byte more than allowed is enough to be refused as too long.
        file.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_end(&mut text).await.map_err(told)?;
        Ok(text.into())
    }
}

/// Longest JWKS document that is read, in bytes; published sets have a few kilobytes.
pub(crate) const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
