//! Where a server is found, and what tells it from another that takes its place.

use std::fmt;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;

use crate::connection::Opener;
use crate::fault::Failure;
use crate::url::Address;

/// Where a server is found.
#[derive(Debug)]
pub(crate) enum Place {
    /// Always there.
    Fixed(Address),
}

impl Place {
    /// Where it is now.
    pub(crate) async fn find(&self, _opener: &Opener) -> Result<Address, Failure> {
        match self {
            Self::Fixed(address) => Ok(address.clone()),
        }
    }

    /// What the store is to remember it by; empty where nothing can take its place.
    pub(crate) async fn identity(
        &self,
        _address: &Address,
        _redis: &mut MultiplexedConnection,
    ) -> Result<Arc<str>, Failure> {
        match self {
            Self::Fixed(_) => Ok(Arc::from("")),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address) => address.fmt(f),
        }
    }
}
