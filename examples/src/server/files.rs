//! How many files the process may have open, sockets among them, and what is kept back of them.

use std::os::fd::RawFd;

use crate::log::say;

/// Which numbers of files are kept back for probes and for the administrators' port. The system gives each socket the
/// lowest number that is free, so its number says how many are in use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spare {
    /// From this number on connections are for `/healthz` and `/readyz`, and all else is refused.
    pub(crate) from: RawFd,
    /// From this number on connections are dropped at once.
    pub(crate) none_from: RawFd,
}

/// Raises the soft limit of files to the hard one, and returns what it is then.
pub(crate) fn raise_limit() -> u64 {
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        say(format_args!("tidings-server: cannot raise the limit of open files: {error}"));
        rlimit::Resource::NOFILE.get_soft().unwrap_or(u64::MAX)
    })
}

impl Spare {
    /// Nothing is kept back.
    pub(crate) const NOTHING: Self = Self { from: RawFd::MAX, none_from: RawFd::MAX };

    /// What is kept back of so many files.
    pub(crate) fn of(files: u64) -> Self {
        let files = RawFd::try_from(files).unwrap_or(RawFd::MAX);
        Self { from: files - FOR_PROBES - FOR_OTHERS, none_from: files - FOR_OTHERS }
    }
}

/// Files that are kept back for requests to `/healthz` and `/readyz`.
const FOR_PROBES: RawFd = 8;
/// Files that are kept back for the administrators' port, the bus and key sources.
const FOR_OTHERS: RawFd = 16;
