//! Names and ids, checked once at construction; nothing checks them again.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A name that is not 1 to 255 bytes without control characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty. Give it at least one byte.
    #[error("a name must not be empty")]
    Empty,
    /// The name is longer than 255 bytes. Shorten it.
    #[error("a name must have at most {MAX_NAME_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// The name has a character of C0, DEL or C1. Remove it.
    #[error("a name must not contain control characters")]
    ControlCharacter,
}

/// What the protocol allows as the name of a room, user, tenant or node.
fn check(name: &str) -> Result<(), NameError> {
    match name.len() {
        0 => Err(NameError::Empty),
        n if n > MAX_NAME_BYTES => Err(NameError::TooLong(n)),
        _ if name.chars().any(char::is_control) => Err(NameError::ControlCharacter),
        _ => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the name: 1 to 255 bytes, no control characters (C0, DEL, C1).
            ///
            /// # Errors
            /// [`NameError`] says which of these it breaks.
            pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
                check(name.as_ref())?;
                Ok(Self(Arc::from(name.as_ref())))
            }

            /// The name as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }
    };
}

name! {
    /// The name of a room.
    RoomId
}
name! {
    /// The name of a user, as the authenticator gave it.
    UserId
}
name! {
    /// The name of a node: one hub on a bus.
    NodeId
}
name! {
    /// The name of a lease under which a node claims who is there; no two leases have one name.
    LeaseId
}

/// Whose rooms and users these are. Two tenants never meet, whatever their rooms are called.
///
/// The default tenant is that of identities without one; it has no name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TenantId(Option<Arc<str>>);

impl TenantId {
    /// Checks the name of a tenant: 1 to 255 bytes, no control characters.
    ///
    /// # Errors
    /// [`NameError`] says which of these it breaks.
    pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
        check(name.as_ref())?;
        Ok(Self(Some(Arc::from(name.as_ref()))))
    }

    /// The name; `None` for the default tenant.
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or("(default)"))
    }
}

/// One connection, unique over all nodes: 128 random bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId([u8; 16]);

impl ClientId {
    /// The id made of these bits; a hub draws them at random.
    pub fn from_bits(bits: u128) -> Self {
        // Bytes, since an integer's alignment would cost every topic 8 bytes more.
        Self(bits.to_be_bytes())
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not the 32 lower-case hexadecimal digits of a [`ClientId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a client id is 32 lower-case hexadecimal digits")]
pub struct ClientIdError;

impl FromStr for ClientId {
    type Err = ClientIdError;
    fn from_str(text: &str) -> Result<Self, ClientIdError> {
        let canonical = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 32 || !text.bytes().all(canonical) {
            return Err(ClientIdError);
        }
        u128::from_str_radix(text, 16).map(Self::from_bits).map_err(|_| ClientIdError)
    }
}

/// Longest name of a room, user, tenant or node, in bytes (protocol, "Messages").
const MAX_NAME_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_1_to_255_bytes_and_no_control_characters() {
        assert_eq!(RoomId::new(""), Err(NameError::Empty));
        assert!(RoomId::new("x".repeat(255)).is_ok());
        assert_eq!(RoomId::new("x".repeat(256)), Err(NameError::TooLong(256)));
        for hostile in ["a\0b", "a\nb", "a\x7fb", "a\u{85}b"] {
            assert_eq!(UserId::new(hostile), Err(NameError::ControlCharacter), "{hostile:?}");
        }
        for odd in ["*", "a:b", "{x}", " ", "ünï", "a/b?c", "🦀"] {
            assert_eq!(RoomId::new(odd).map(|r| r.to_string()), Ok(odd.to_owned()));
        }
    }

    #[test]
    fn a_client_id_reads_back_as_written_and_in_no_other_spelling() {
        let id = ClientId::from_bits(0xabc);
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in
            ["", "abc", &id.to_string().to_uppercase(), &format!("+{}", &id.to_string()[1..])]
        {
            assert_eq!(wrong.parse::<ClientId>(), Err(ClientIdError), "{wrong}");
        }
    }
}
