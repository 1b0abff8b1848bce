//! A manifest node: 16 children, each a hole, zeros, or a hash. See FORMAT.md 8.
//!
//! One node has one encoding: decoding refuses every other.

use crate::error::{Error, Result};
use crate::format::pack::array_at;
use crate::id::Hash;
use crate::limits::{MANIFEST_FANOUT, MANIFEST_LEVELS_MAX};

const MAGIC: &[u8; 4] = b"SMAN";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 12;
const HASH_BYTES: usize = 32;
/// The upper bit of each kind: set for hashes, and for the kind that there is not.
const UPPER_BITS: u32 = 0xAAAA_AAAA;

/// Bytes of a node at most.
pub const NODE_BYTES_MAX: usize = HEAD_BYTES + MANIFEST_FANOUT * HASH_BYTES;

/// What a cluster, or all clusters below a child, are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Child {
    /// Never written, or discarded. Reads as zeros.
    Hole,
    /// Written with zeros.
    Zero,
    /// A cluster, or a node of the level below.
    Hash(Hash),
}

impl Child {
    fn kind(self) -> u32 {
        match self {
            Self::Hole => 0,
            Self::Zero => 1,
            Self::Hash(_) => 2,
        }
    }

    /// True for holes and zeros, of which there may be runs.
    pub fn is_uniform(self) -> bool {
        !matches!(self, Self::Hash(_))
    }
}

/// A node. Takes as much memory as its hashes need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    level: u8,
    kinds: u32,
    hashes: Box<[Hash]>,
}

impl Node {
    /// 0 for nodes whose children are clusters.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Child `i`, of 16.
    pub fn child(&self, i: usize) -> Child {
        let shift = 2 * i;
        match (self.kinds >> shift) & 3 {
            0 => Child::Hole,
            1 => Child::Zero,
            _ => {
                let before = self.kinds & UPPER_BITS & ((1 << shift) - 1);
                Child::Hash(self.hashes[before.count_ones() as usize])
            }
        }
    }

    /// All children in order.
    pub fn children(&self) -> impl Iterator<Item = Child> + '_ {
        (0..MANIFEST_FANOUT).map(|i| self.child(i))
    }

    /// Hashes of the children that have one, in order.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// The kind of all children, if they are all holes or all zeros. Only a root may be so.
    pub fn uniform(&self) -> Option<Child> {
        let first = self.child(0);
        let kinds = first.kind() * (UPPER_BITS >> 1);
        (first.is_uniform() && self.kinds == kinds).then_some(first)
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + self.hashes.len() * HASH_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[self.level, VERSION, 0, 0]);
        out.extend_from_slice(&self.kinds.to_le_bytes());
        for hash in &self.hashes {
            out.extend_from_slice(&hash.0);
        }
        out
    }

    /// Reads a node.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else {
            return Err(bad_node("it is shorter than its head"));
        };
        if head[..4] != *MAGIC {
            return Err(bad_node("the magic is another"));
        }
        if head[5] != VERSION {
            let version = head[5];
            let why = format!("it has format version {version}, this program knows {VERSION}");
            return Err(bad_node(&why));
        }
        if head[6..8] != [0, 0] {
            return Err(bad_node("its zeros are other"));
        }
        if head[4] >= MANIFEST_LEVELS_MAX {
            return Err(bad_node("its level cannot be"));
        }
        let kinds = u32::from_le_bytes(array_at(head, 8));
        if (kinds & UPPER_BITS) >> 1 & kinds != 0 {
            return Err(bad_node("a child is of no known kind"));
        }
        let hashes = (kinds & UPPER_BITS).count_ones() as usize;
        if rest.len() != hashes * HASH_BYTES {
            return Err(bad_node("its size does not fit its children"));
        }
        let hashes = rest
            .chunks_exact(HASH_BYTES)
            .map(|b| Hash(array_at(b, 0)))
            .collect();
        Ok(Self {
            level: head[4],
            kinds,
            hashes,
        })
    }
}

/// A node whose children come one after the other.
#[derive(Debug, Clone)]
pub struct NodeDraft {
    level: u8,
    kinds: u32,
    hashes: Vec<Hash>,
    len: usize,
}

impl NodeDraft {
    /// A node without children yet.
    pub fn new(level: u8) -> Self {
        Self {
            level,
            kinds: 0,
            hashes: Vec::new(),
            len: 0,
        }
    }

    /// Children so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True before the first child.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True with all 16.
    pub fn is_full(&self) -> bool {
        self.len == MANIFEST_FANOUT
    }

    /// Adds the same child `count` times.
    ///
    /// # Panics
    /// With more children than 16.
    pub fn push(&mut self, child: Child, count: usize) {
        assert!(
            count <= MANIFEST_FANOUT - self.len,
            "a node has 16 children"
        );
        for i in self.len..self.len + count {
            self.kinds |= child.kind() << (2 * i);
            if let Child::Hash(hash) = child {
                self.hashes.push(hash);
            }
        }
        self.len += count;
    }

    /// The node; what is missing is holes. The draft is empty after.
    pub fn take(&mut self) -> Node {
        let hashes = self.hashes.as_slice().into();
        let node = Node {
            level: self.level,
            kinds: self.kinds,
            hashes,
        };
        self.kinds = 0;
        self.hashes.clear();
        self.len = 0;
        node
    }
}

fn bad_node(why: &str) -> Error {
    Error::corrupt("reading a manifest node", why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(level: u8, children: &[Child]) -> Node {
        let mut draft = NodeDraft::new(level);
        for child in children {
            draft.push(*child, 1);
        }
        draft.take()
    }

    fn child() -> impl Strategy<Value = Child> {
        prop_oneof![
            Just(Child::Hole),
            Just(Child::Zero),
            any::<u64>().prop_map(|n| Child::Hash(Hash::of(&n.to_le_bytes()))),
        ]
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let hash = Hash([0xab; 32]);
        let bytes = node(
            2,
            &[Child::Hash(hash), Child::Zero, Child::Hole, Child::Zero],
        )
        .encode();
        assert_eq!(bytes[..12], *b"SMAN\x02\x01\0\0\x46\0\0\0");
        assert_eq!(bytes[12..], hash.0);
    }

    #[test]
    fn uniform_means_all_of_one_kind() {
        assert_eq!(node(0, &[]).uniform(), Some(Child::Hole));
        assert_eq!(node(1, &[Child::Zero; 16]).uniform(), Some(Child::Zero));
        assert_eq!(node(1, &[Child::Zero; 15]).uniform(), None);
        assert_eq!(node(1, &[Child::Hash(Hash([0; 32])); 16]).uniform(), None);
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        let good = node(0, &[Child::Hash(Hash([1; 32])), Child::Zero]).encode();
        assert!(Node::decode(&good).is_ok());
        let changed = |at: usize, value: u8| {
            let mut bad = good.clone();
            bad[at] = value;
            bad
        };
        // Magic, level, version, zeros, an unknown kind, a kind more and one less that has a hash.
        for (at, value) in [
            (0, 0),
            (4, 13),
            (5, 2),
            (6, 1),
            (7, 1),
            (8, 3),
            (11, 0x80),
            (8, 0),
        ] {
            assert!(
                Node::decode(&changed(at, value)).is_err(),
                "byte {at} = {value}"
            );
        }
        assert!(Node::decode(&good[..good.len() - 1]).is_err());
        assert!(Node::decode(&[&good[..], &[0]].concat()).is_err());
        assert!(Node::decode(&good[..11]).is_err() && Node::decode(&[]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            level in 0u8..13, children in prop::collection::vec(child(), 0..=16),
        ) {
            let node = node(level, &children);
            let bytes = node.encode();
            prop_assert!(bytes.len() <= NODE_BYTES_MAX);
            let read = Node::decode(&bytes).unwrap();
            prop_assert_eq!(&read, &node);
            let padded = children.iter().copied().chain(std::iter::repeat(Child::Hole));
            prop_assert!(read.children().eq(padded.take(16)));
        }

        #[test]
        fn a_flipped_bit_gives_an_error_or_another_node(
            children in prop::collection::vec(child(), 0..=16),
            at: prop::sample::Index, bit in 0u8..8,
        ) {
            let good = node(1, &children);
            let mut bytes = good.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            // The name of a node is the hash of its bytes, so another node is found by its name.
            if let Ok(read) = Node::decode(&bytes) {
                prop_assert_ne!(&read, &good);
                prop_assert_eq!(read.encode(), bytes);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Node::decode(&bytes);
            let mut headed = node(0, &[]).encode()[..8].to_vec();
            headed.extend(bytes);
            if let Ok(node) = Node::decode(&headed) {
                prop_assert_eq!(node.encode(), headed);
            }
        }
    }
}
