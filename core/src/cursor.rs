//! The cursor: one opaque string that says how far every topic of a connection has been delivered.
//!
//! It holds a [`Mark`] per partition and a signature over the marks and the tenant, so that it can
//! be neither changed nor carried into another tenant. Layout: a version byte, two that stand for the key, per partition four bytes that stand
//! for the epoch and the clock as LEB128, eight bytes of SipHash-2-4; all in base64url without padding.

use std::hash::Hasher as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use siphasher::sip::SipHasher24;

use crate::{MAX_PARTITIONS, TenantId};

/// How far one partition has been delivered: everything up to this clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    epoch: u32,
    /// The clock of the last message that is covered.
    pub clock: u64,
}

impl Mark {
    /// A place in no epoch: a client that comes back from there is told of a gap.
    pub const NOWHERE: Self = Self { epoch: 0, clock: 0 };

    /// A place in an epoch. Of the epoch 32 bits are kept, enough to tell two random ones apart.
    pub fn new(epoch: u64, clock: u64) -> Self {
        Self { epoch: fold(epoch), clock }
    }

    /// Whether this is a place in that epoch.
    pub fn is_of(self, epoch: u64) -> bool {
        self.epoch == fold(epoch)
    }

    /// Whether both are places in the same epoch.
    pub(crate) fn is_of_epoch(self, of: Self) -> bool {
        self.epoch == of.epoch
    }

    /// Whether whoever is at `mark` has passed this.
    pub(crate) fn is_passed_by(self, mark: Self) -> bool {
        self.is_of_epoch(mark) && mark.clock >= self.clock
    }

    /// The later of both; of another epoch the other one.
    pub(crate) fn advanced(self, to: Self) -> Self {
        if to.is_passed_by(self) { self } else { to }
    }
}

fn fold(epoch: u64) -> u32 {
    (epoch ^ (epoch >> 32)) as u32
}

/// What signs and reads cursors; the same on all nodes of a bus.
#[derive(Clone)]
pub struct CursorKey(SipHasher24);

impl std::fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CursorKey")
    }
}

/// The text is no cursor of this tenant on this bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no cursor of this tenant")]
pub struct CursorError;

impl CursorKey {
    /// A signer with a secret.
    pub fn new(secret: &[u8; 16]) -> Self {
        Self(SipHasher24::new_with_key(secret))
    }

    /// Writes marks, one per partition, as a cursor of a tenant.
    pub fn write(&self, tenant: &TenantId, marks: &[Mark]) -> String {
        let mut bytes = Vec::with_capacity(16 + 8 * marks.len());
        bytes.push(VERSION);
        bytes.extend(self.tag());
        for mark in marks {
            bytes.extend(mark.epoch.to_le_bytes());
            push_number(&mut bytes, mark.clock);
        }
        let signature = self.sign(tenant, &bytes);
        bytes.extend(signature);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor that a client presents.
    ///
    /// # Errors
    /// [`CursorError`] when it was not written by this key for this tenant.
    pub fn read(&self, tenant: &TenantId, text: &str) -> Result<Vec<Mark>, CursorError> {
        if text.len() > LONGEST {
            return Err(CursorError);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError)?;
        let (signed, signature) = bytes.split_last_chunk::<8>().ok_or(CursorError)?;
        if self.sign(tenant, signed) != *signature {
            return Err(CursorError);
        }
        let mut rest =
            signed.strip_prefix(&[VERSION]).and_then(|rest| rest.get(2..)).ok_or(CursorError)?;
        let mut marks = Vec::new();
        while let Some((epoch, after)) = rest.split_first_chunk::<4>() {
            let (clock, after) = take_number(after).ok_or(CursorError)?;
            marks.push(Mark { epoch: u32::from_le_bytes(*epoch), clock });
            rest = after;
        }
        if rest.is_empty() { Ok(marks) } else { Err(CursorError) }
    }

    /// Whether a text looks like a cursor of another key, as that of a store that was lost is. Whoever makes one up is
    /// given what a client without any cursor may ask for.
    pub fn is_foreign(&self, text: &str) -> bool {
        let bytes = URL_SAFE_NO_PAD.decode(text.get(..4).unwrap_or_default()).unwrap_or_default();
        matches!(*bytes, [VERSION, a, b] if [a, b] != self.tag()) && text.len() >= SHORTEST
    }

    /// Tells two keys apart, and says nothing of them.
    fn tag(&self) -> [u8; 2] {
        let mut hasher = self.0;
        hasher.write(b"tag");
        (hasher.finish() as u16).to_le_bytes()
    }

    fn sign(&self, tenant: &TenantId, bytes: &[u8]) -> [u8; 8] {
        let mut hasher = self.0;
        hasher.write(bytes);
        // A byte that no name holds keeps the default tenant apart from every named one.
        hasher.write(&[0]);
        hasher.write(tenant.name().map_or(&[0], str::as_bytes));
        hasher.finish().to_le_bytes()
    }
}

fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (place, &byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f).checked_shl(7 * place as u32)?;
        if byte < 0x80 {
            return Some((number, &bytes[place + 1..]));
        }
    }
    None
}

const VERSION: u8 = 2;
/// Text of a cursor of no partition.
const SHORTEST: usize = 15;
/// Longest text that is looked at, and there is: a version, epochs and clocks of all partitions, and a signature.
const LONGEST: usize = (4 * (1 + 2 + (4 + 10) * MAX_PARTITIONS as usize + 8)).div_ceil(3);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> CursorKey {
        CursorKey::new(&[7; 16])
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).expect("a name")
    }

    proptest! {
        #[test]
        fn a_cursor_reads_back_as_written(marks in prop::collection::vec((any::<u64>(), any::<u64>()), 0..=usize::from(MAX_PARTITIONS))) {
            let marks: Vec<_> = marks.iter().map(|&(epoch, clock)| Mark::new(epoch, clock)).collect();
            let text = key().write(&tenant("t"), &marks);
            prop_assert_eq!(key().read(&tenant("t"), &text), Ok(marks));
        }

        #[test]
        fn a_changed_cursor_is_refused(place in 0usize..26, letter in "[A-Za-z0-9_-]") {
            let text = key().write(&TenantId::default(), &[Mark::new(3, 5), Mark::new(4, 6)]);
            let mut other = text.clone();
            other.replace_range(place..=place, &letter);
            prop_assume!(other != text);
            prop_assert_eq!(key().read(&TenantId::default(), &other), Err(CursorError));
        }

        #[test]
        fn garbage_is_refused(text in ".{0,40}") {
            prop_assert_eq!(key().read(&TenantId::default(), &text), Err(CursorError));
        }
    }

    #[test]
    fn a_cursor_is_good_for_its_tenant_and_key_alone() {
        let text = key().write(&tenant("a"), &[Mark::new(1, 2)]);
        assert!(key().read(&tenant("b"), &text).is_err());
        assert!(key().read(&TenantId::default(), &text).is_err());
        let other = CursorKey::new(&[8; 16]);
        assert!(other.read(&tenant("a"), &text).is_err());
        assert!(
            other.is_foreign(&text) && !key().is_foreign(&text) && !key().is_foreign("nonsense")
        );
    }

    #[test]
    fn the_longest_cursor_reads_back_and_a_longer_one_is_none() {
        let mut marks = vec![Mark::new(u64::MAX, u64::MAX); usize::from(MAX_PARTITIONS)];
        let longest = key().write(&tenant("t"), &marks);
        assert_eq!(longest.len(), LONGEST);
        assert_eq!(key().read(&tenant("t"), &longest), Ok(marks.clone()));
        marks.push(marks[0]);
        let text = key().write(&tenant("t"), &marks);
        assert_eq!(key().read(&tenant("t"), &text), Err(CursorError));
    }

    #[test]
    fn one_partition_takes_few_bytes() {
        assert_eq!(key().write(&TenantId::default(), &[Mark::new(u64::MAX, 1_000_000)]).len(), 24);
    }

    #[test]
    fn a_mark_knows_its_epoch() {
        assert!(Mark::new(9, 1).is_of(9) && !Mark::new(9, 1).is_of(10));
    }
}
