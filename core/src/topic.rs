//! Where a message goes: a tenant and, in it, a room, a user, one client, or everyone.

use crate::{ClientId, RoomId, TenantId, UserId};

/// The address of a message. Typed, so that no name can be spelled into another topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic {
    /// Whose topic it is.
    pub tenant: TenantId,
    /// Which of the tenant's topics.
    pub scope: Scope,
}

/// Which topic of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// All connections that joined the room.
    Room(RoomId),
    /// All connections of the user.
    User(UserId),
    /// One connection.
    Client(ClientId),
    /// All connections of the tenant.
    Everyone,
}

impl Topic {
    /// The topic of a room.
    pub fn room(tenant: TenantId, room: RoomId) -> Self {
        Self { tenant, scope: Scope::Room(room) }
    }

    /// The topic of all connections of a user.
    pub fn user(tenant: TenantId, user: UserId) -> Self {
        Self { tenant, scope: Scope::User(user) }
    }

    /// The topic of one connection.
    pub fn client(tenant: TenantId, client: ClientId) -> Self {
        Self { tenant, scope: Scope::Client(client) }
    }

    /// The topic of all connections of a tenant.
    pub fn everyone(tenant: TenantId) -> Self {
        Self { tenant, scope: Scope::Everyone }
    }

    /// The room, when this is the topic of one.
    pub fn as_room(&self) -> Option<&RoomId> {
        match &self.scope {
            Scope::Room(room) => Some(room),
            _ => None,
        }
    }
}
