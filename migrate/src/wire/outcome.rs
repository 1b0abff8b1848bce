//! What became of a transfer, and how it is told where it is long.

use serde::{Deserialize, Serialize};
use stillpoint_store::id::Uid;
use stillpoint_store::limits::{NAME_BYTES_MAX, SNAPSHOT_ID_BYTES_MAX};
use stillpoint_store::{Error, ErrorKind, Result};

/// Snapshots that one message tells of: with names as long as they may be, 6 MiB.
pub const TAKEN_MAX: usize = 8192;
/// LIMIT: bytes that a sender keeps of what a receiver tells: half a million snapshots with short names.
const ALL_BYTES_MAX: usize = 64 << 20;

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Snapshots that are there now and were not before.
    pub snapshots: Vec<Taken>,
    /// Snapshots that were there already.
    pub already: u64,
    /// Snapshots deleted, since the sender does not have them.
    pub deleted: Vec<Taken>,
    /// Clusters that the store lacked.
    pub clusters: u64,
    /// Bytes that they take in packs.
    pub stored_bytes: u64,
}

/// A snapshot that came or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The device's name here.
    pub device: String,
    /// Its uid.
    pub uid: Uid,
    /// Its id here.
    pub id: Vec<u8>,
    /// Its name.
    pub name: Vec<u8>,
    /// The id that it had at the sender, where that was taken.
    pub renumbered: Option<Vec<u8>>,
}

/// Part of an outcome that is too long for one message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Became {
    /// As in [`Outcome`].
    pub snapshots: Vec<Taken>,
    /// As in [`Outcome`].
    pub deleted: Vec<Taken>,
}

impl Taken {
    /// Whether there can be such a snapshot.
    fn is_possible(&self) -> bool {
        let id_fits = |id: &[u8]| id.len() <= SNAPSHOT_ID_BYTES_MAX;
        let names_fit = self.device.len().max(self.name.len()) <= NAME_BYTES_MAX;
        names_fit && id_fits(&self.id) && self.renumbered.as_deref().is_none_or(id_fits)
    }

    fn bytes(&self) -> usize {
        let id = self.renumbered.as_ref().map_or(0, Vec::len);
        size_of::<Self>() + self.device.len() + self.id.len() + self.name.len() + id
    }
}

fn fit(snapshots: &[Taken], deleted: &[Taken]) -> bool {
    let mut all = snapshots.iter().chain(deleted);
    snapshots.len() + deleted.len() <= TAKEN_MAX && all.all(Taken::is_possible)
}

impl Became {
    /// Whether it is possible, and a message can hold it.
    pub fn fits(&self) -> bool {
        fit(&self.snapshots, &self.deleted)
    }

    /// Takes in what another message tells.
    pub fn add(&mut self, more: Self) -> Result<()> {
        self.snapshots.extend(more.snapshots);
        self.deleted.extend(more.deleted);
        let all = self.snapshots.iter().chain(&self.deleted);
        if all.map(Taken::bytes).sum::<usize>() <= ALL_BYTES_MAX {
            return Ok(());
        }
        Err(
            Error::new(ErrorKind::LimitExceeded, "reading what became of it")
                .detail("the other side tells of more snapshots than there can be"),
        )
    }
}

impl Outcome {
    /// Whether it is possible, and a message can hold it.
    pub fn fits(&self) -> bool {
        fit(&self.snapshots, &self.deleted)
    }

    /// What must be told before the rest, which then fits.
    pub fn cut(&self) -> (Vec<Became>, Self) {
        let mut rest = self.clone();
        let mut parts = Vec::new();
        while rest.snapshots.len() + rest.deleted.len() > TAKEN_MAX {
            let take = |list: &mut Vec<Taken>, most: usize| {
                list.drain(..list.len().min(most)).collect::<Vec<_>>()
            };
            let snapshots = take(&mut rest.snapshots, TAKEN_MAX);
            let deleted = take(&mut rest.deleted, TAKEN_MAX - snapshots.len());
            parts.push(Became { snapshots, deleted });
        }
        (parts, rest)
    }

    /// The whole again.
    #[must_use]
    pub fn joined(mut self, before: Became) -> Self {
        self.snapshots.splice(0..0, before.snapshots);
        self.deleted.splice(0..0, before.deleted);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(n: usize) -> Taken {
        Taken {
            device: "d".repeat(255),
            uid: Uid([n as u8; 16]),
            id: n.to_string().into_bytes(),
            name: vec![b'n'; 255],
            renumbered: Some(vec![b'9'; 127]),
        }
    }

    #[test]
    fn an_outcome_of_any_length_is_told_in_messages_and_put_together_again() {
        use crate::wire::Message;
        use crate::wire::stream::PAYLOAD_BYTES_MAX;
        for (came, went) in [
            (0, 0),
            (TAKEN_MAX, 0),
            (TAKEN_MAX + 1, 3),
            (9, 20_000),
            (20_000, 9_000),
        ] {
            let outcome = Outcome {
                snapshots: (0..came).map(taken).collect(),
                deleted: (0..went).map(|n| taken(n + 1)).collect(),
                already: 3,
                ..Outcome::default()
            };
            let (parts, rest) = outcome.cut();
            assert_eq!(parts.is_empty(), came + went <= TAKEN_MAX);
            let mut before = Became::default();
            for part in parts {
                let (_, payload) = Message::Became(part.clone()).encode();
                assert!(part.fits() && payload.len() <= PAYLOAD_BYTES_MAX as usize);
                before.add(part).unwrap();
            }
            let (_, payload) = Message::Done(rest.clone()).encode();
            assert!(payload.len() <= PAYLOAD_BYTES_MAX as usize);
            assert_eq!(rest.joined(before), outcome);
        }
    }

    #[test]
    fn a_receiver_that_tells_of_snapshots_without_end_is_not_believed() {
        let part = Became {
            snapshots: Vec::new(),
            deleted: vec![taken(1); TAKEN_MAX],
        };
        let mut all = Became::default();
        let refused = (0..200).find_map(|_| all.add(part.clone()).err());
        assert_eq!(refused.unwrap().kind(), ErrorKind::LimitExceeded);
        let long = Became {
            snapshots: vec![Taken {
                name: vec![b'n'; NAME_BYTES_MAX + 1],
                ..taken(1)
            }],
            deleted: Vec::new(),
        };
        assert!(part.fits() && !long.fits());
    }
}
