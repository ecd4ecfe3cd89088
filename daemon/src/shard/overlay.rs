//! What the leader has proposed and not yet applied, as evaluation needs to see it.
//!
//! Invariants:
//! - For every key written by an entry that is proposed and not applied, the overlay knows the newest state of the key.
//! - It is empty on a replica that does not lead.

use bytes::Bytes;
use mesh_base::Revision;
use mesh_base::table::Table;
use mesh_engine::Version;
use smallvec::SmallVec;

/// The state of a key as evaluation needs it. Absent keys have none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyState {
    /// The revision of the newest version.
    pub revision: Revision,
    /// The revision that created the key.
    pub create_revision: Revision,
    /// How many times it was written since.
    pub version: u64,
}

impl KeyState {
    /// That of a version in the store.
    #[must_use]
    pub const fn of(version: &Version<'_>) -> Self {
        Self {
            revision: version.revision,
            create_revision: version.attributes.create_revision,
            version: version.attributes.version,
        }
    }
}

/// What a key will be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pending {
    /// The revision of the write.
    pub revision: Revision,
    /// `None` where the key was deleted.
    pub state: Option<KeyState>,
    /// Its value then.
    pub value: Bytes,
}

/// The pending states of keys, oldest first.
#[derive(Debug)]
pub struct Overlay {
    keys: Table<Bytes, SmallVec<[Pending; 1]>>,
}

impl Overlay {
    /// Nothing pending. The seed is for the hash of the keys, which clients choose.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { keys: Table::new(seed) }
    }

    /// What a key will be by the newest of the writes that are pending for it; `None` if none is.
    #[must_use]
    pub fn newest(&self, key: &[u8]) -> Option<&Pending> {
        self.keys.get(key)?.last()
    }

    /// Notes that the write with `revision` leaves the key in `state`, with a value.
    pub fn push(&mut self, key: Bytes, revision: Revision, state: Option<KeyState>, value: Bytes) {
        let pending = self.keys.entry(key).or_default();
        debug_assert!(pending.last().is_none_or(|last| last.revision < revision));
        pending.push(Pending { revision, state, value });
    }

    /// The write with `revision` was applied: what the store says of the key now includes it.
    pub fn applied(&mut self, key: &[u8], revision: Revision) {
        self.retain(key, |pending| pending.revision > revision);
    }

    /// The write with `revision` will never be applied. Nothing later was evaluated on it.
    pub fn dropped(&mut self, key: &[u8], revision: Revision) {
        self.retain(key, |pending| pending.revision != revision);
    }

    fn retain(&mut self, key: &[u8], keep: impl Fn(&Pending) -> bool) {
        if let Some(pending) = self.keys.get_mut(key) {
            pending.retain(|one| keep(one));
            if pending.is_empty() {
                self.keys.remove(key);
            }
        }
    }

    /// Forgets everything: the replica does not lead any more.
    pub fn clear(&mut self) {
        self.keys.clear();
    }

    /// Keys with a pending state.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nothing is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(revision: u64) -> Option<KeyState> {
        Some(KeyState { revision: Revision(revision), create_revision: Revision(1), version: revision })
    }

    const KEY: &[u8] = b"k";

    fn push(overlay: &mut Overlay, revision: u64, state: Option<KeyState>) {
        overlay.push(Bytes::from_static(KEY), Revision(revision), state, Bytes::from_static(b"v"));
    }

    fn newest(overlay: &Overlay) -> Option<Option<KeyState>> {
        overlay.newest(KEY).map(|pending| pending.state)
    }

    #[test]
    fn the_newest_pending_state_wins_until_it_is_applied() {
        let mut overlay = Overlay::new(1);
        push(&mut overlay, 1, state(1));
        push(&mut overlay, 2, None);
        assert_eq!(newest(&overlay), Some(None));
        overlay.applied(KEY, Revision(1));
        assert_eq!(newest(&overlay), Some(None));
        overlay.applied(KEY, Revision(2));
        assert_eq!(newest(&overlay), None);
        assert!(overlay.is_empty());
    }

    #[test]
    fn a_dropped_write_uncovers_what_was_pending_before_it() {
        let mut overlay = Overlay::new(1);
        push(&mut overlay, 1, state(1));
        push(&mut overlay, 2, None);
        overlay.dropped(KEY, Revision(2));
        assert_eq!(newest(&overlay), Some(state(1)));
    }
}
