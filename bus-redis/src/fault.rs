//! What goes wrong with a Redis, told apart.

use redis::{ErrorKind, RedisError, ServerError};
use tidings_core::BusError;

/// Which kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Away,
    TimedOut,
    Busy,
    OutOfMemory,
    NoPermission,
    NoAuth,
    Loading,
    ReadOnly,
    ClusterDown,
    MasterDown,
    /// Redis cannot save its data, and refuses writes meanwhile.
    CannotSave,
    /// Fewer replicas follow than Redis was told to demand.
    NoReplicas,
    /// The slot is not, or only partly, on this server.
    Moved,
    Other,
}

/// A failure, with what to say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(fault: Fault, text: impl Into<String>) -> Self {
        Self { fault, text: text.into() }
    }

    pub(crate) fn away(text: impl Into<String>) -> Self {
        Self::new(Fault::Away, text)
    }

    pub(crate) fn timed_out() -> Self {
        Self::new(Fault::TimedOut, "no answer in time")
    }

    /// For the whole of its time a slot was not where it was looked for.
    pub(crate) fn moving() -> Self {
        Self::new(Fault::Moved, advice(Fault::Moved))
    }

    /// What Redis answered, in its own words: `CODE detail`.
    pub(crate) fn told(text: &str) -> Self {
        // Redis repeats a command that it does not know, credentials and all.
        let text = text.split(", with args beginning with").next().unwrap_or_default();
        let code = text.split(' ').next().unwrap_or_default();
        // In a script a missing right has no code of its own.
        let fault = if text.contains("user executing the script can't") {
            Fault::NoPermission
        } else {
            fault_of(code)
        };
        Self::new(fault, format!("{text} ({})", advice(fault)))
    }

    /// An error that Redis answered.
    pub(crate) fn answered(error: &ServerError) -> Self {
        Self::told(format!("{} {}", error.code(), error.details().unwrap_or_default()).trim_end())
    }

    /// What it is for those whose commands were never sent.
    pub(crate) fn unsent(mut self) -> Self {
        if self.fault == Fault::TimedOut {
            self.fault = Fault::Away;
        }
        self
    }

    /// Whether the connection is of no more use after it.
    pub(crate) fn is_fatal(&self) -> bool {
        use Fault::{Away, NoAuth, ReadOnly, TimedOut};
        matches!(self.fault, Away | TimedOut | NoAuth | ReadOnly)
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

fn fault_of(code: &str) -> Fault {
    match code {
        "BUSY" => Fault::Busy,
        "OOM" => Fault::OutOfMemory,
        "NOPERM" => Fault::NoPermission,
        "NOAUTH" | "WRONGPASS" => Fault::NoAuth,
        "LOADING" => Fault::Loading,
        "READONLY" => Fault::ReadOnly,
        "CLUSTERDOWN" => Fault::ClusterDown,
        "MASTERDOWN" => Fault::MasterDown,
        "MISCONF" => Fault::CannotSave,
        "NOREPLICAS" => Fault::NoReplicas,
        "MOVED" | "ASK" | "TRYAGAIN" => Fault::Moved,
        _ => Fault::Other,
    }
}

/// What to do about it.
fn advice(fault: Fault) -> &'static str {
    match fault {
        Fault::Away => "is it running, and is this its address?",
        Fault::TimedOut => "it hangs, or the network drops what is sent",
        Fault::Busy => "a script runs too long in Redis: SCRIPT KILL ends it",
        Fault::OutOfMemory => "Redis is at its maxmemory and keeps no more: raise it, or keep less",
        Fault::NoPermission => "the user needs more rights, see the README",
        Fault::NoAuth => "give the right user and password in the URL",
        Fault::Loading => "Redis loads its data and will serve soon",
        Fault::ReadOnly => "this is a replica: give the address of its primary",
        Fault::ClusterDown => "the cluster has lost primaries or slots",
        Fault::MasterDown => "a replica has lost its primary",
        Fault::CannotSave => "Redis cannot save its data: look at its log and its disk",
        Fault::NoReplicas => "too few replicas follow: min-replicas-to-write demands more",
        Fault::Moved => "the slot is moving between servers",
        Fault::Other => "not expected of Redis 7 and later",
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        if error.is_timeout() {
            return Self::timed_out();
        }
        match (error.code(), error.kind()) {
            (Some(code), _) => {
                Self::told(format!("{code} {}", error.detail().unwrap_or_default()).trim_end())
            }
            (None, ErrorKind::AuthenticationFailed) => Self::new(
                Fault::NoAuth,
                format!(
                    "WRONGPASS {} ({})",
                    error.detail().unwrap_or_default(),
                    advice(Fault::NoAuth)
                ),
            ),
            (None, ErrorKind::RESP3NotSupported) => Self::new(
                Fault::Other,
                "this server does not speak RESP3: Redis 7 or later is needed",
            ),
            _ => Self::away(error.to_string()),
        }
    }
}

impl From<Failure> for BusError {
    fn from(Failure { fault, text }: Failure) -> Self {
        match fault {
            Fault::TimedOut => Self::TimedOut,
            Fault::OutOfMemory | Fault::NoPermission | Fault::NoAuth | Fault::Other => {
                Self::Refused(text)
            }
            _ => Self::Unavailable(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_argument_of_a_command_is_repeated() {
        let told =
            "ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'u' 'hunter2' ";
        let failure = Failure::told(told);
        assert!(failure.text().starts_with("ERR unknown command 'HELLO' ("), "{failure:?}");
    }

    #[test]
    fn answers_of_redis_are_told_apart() {
        let fault = |text| Failure::told(text).fault;
        assert_eq!(
            fault("OOM command not allowed when used memory > 'maxmemory'."),
            Fault::OutOfMemory
        );
        assert_eq!(fault("READONLY You can't write against a read only replica."), Fault::ReadOnly);
        assert_eq!(fault("NOAUTH Authentication required."), Fault::NoAuth);
        assert_eq!(fault("ERR unknown command"), Fault::Other);
        assert_eq!(fault("MISCONF Redis is configured to save RDB snapshots"), Fault::CannotSave);
        assert_eq!(fault("NOREPLICAS Not enough good replicas to write."), Fault::NoReplicas);
        let in_script = "ERR The user executing the script can't run this command or subcommand";
        assert_eq!(fault(in_script), Fault::NoPermission);
        assert!(matches!(BusError::from(Failure::told("OOM x")), BusError::Refused(_)));
        assert!(matches!(BusError::from(Failure::told("BUSY x")), BusError::Unavailable(_)));
    }
}
