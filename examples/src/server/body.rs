//! How bodies of requests are read: bounded in bytes and in time.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::StatusCode;
use tokio::time::timeout;

/// Reads a body of at most `most` bytes that is whole within `deadline`.
///
/// # Errors
/// The status to answer: 408 when it is late, 413 when it is too long.
pub(crate) async fn read(body: Body, most: usize, deadline: Duration) -> Result<Bytes, StatusCode> {
    let read = timeout(deadline, to_bytes(body, most)).await;
    read.map_err(|_| StatusCode::REQUEST_TIMEOUT)?.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)
}
