//! The stream: a preamble, then messages, each with a checksum over all that came before it. A cut is found at the next
//! message, a flipped byte in its own.

use std::io::{ErrorKind as Io, Read, Write};
use stillpoint_store::geometry::{Compression, Geometry};
use stillpoint_store::id::Uid;
use stillpoint_store::{Error, ErrorKind, Result};

/// Bytes of the preamble.
pub const PREAMBLE_BYTES: usize = 64;
/// Bytes before a message's payload.
pub const HEAD_BYTES: usize = 16;
/// Bytes of a payload at most: a frame of 4 MiB fits, and so do 65,536 changes with a hash each.
pub const PAYLOAD_BYTES_MAX: u32 = 8 << 20;
/// The version that this program writes and reads.
pub const VERSION: u32 = 1;

const READING: &str = "reading a stream of snapshots";

/// What a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A file with snapshots.
    Bundle,
    /// What a store has.
    Summary,
    /// One direction of a sync.
    Sync,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Bundle, Self::Summary, Self::Sync];

    fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Bundle => b"STILLBUN",
            Self::Summary => b"STILLSUM",
            Self::Sync => b"STILLSYN",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Bundle => "a bundle",
            Self::Summary => "a summary",
            Self::Sync => "a sync",
        }
    }
}

/// The first bytes: what it is, from which store, and how that cuts and compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preamble {
    /// What follows.
    pub purpose: Purpose,
    /// The store that wrote it.
    pub store: Uid,
    /// Its own random name.
    pub id: Uid,
    /// The store's geometry.
    pub geometry: Geometry,
}

impl Preamble {
    /// The bytes.
    pub fn encode(&self) -> [u8; PREAMBLE_BYTES] {
        let mut out = [0; PREAMBLE_BYTES];
        out[..8].copy_from_slice(self.purpose.magic());
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let level = match self.geometry.compression {
            Compression::None => 0,
            Compression::Zstd(level) => u32::from(level),
        };
        out[16..20].copy_from_slice(&self.geometry.cluster_bytes.to_le_bytes());
        out[20..24].copy_from_slice(&self.geometry.frame_bytes.to_le_bytes());
        out[24..28].copy_from_slice(&level.to_le_bytes());
        out[32..48].copy_from_slice(&self.store.0);
        out[48..].copy_from_slice(&self.id.0);
        out
    }

    /// Reads it. Another version is refused by its number.
    pub fn decode(bytes: &[u8; PREAMBLE_BYTES]) -> Result<Self> {
        let magic = |p: &Purpose| p.magic() == &bytes[..8];
        let Some(purpose) = Purpose::ALL.into_iter().find(magic) else {
            return Err(bad("the magic number is wrong")
                .hint("bundles are made by `still send`, summaries by `still summary`"));
        };
        let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        if number(8) != VERSION {
            let why = format!(
                "it has format version {}, this program knows {VERSION}",
                number(8)
            );
            return Err(Error::new(ErrorKind::Unsupported, READING)
                .detail(why)
                .hint("use the same release of still on both sides"));
        }
        let compression = match u8::try_from(number(24)) {
            Ok(0) => Compression::None,
            Ok(level) => Compression::Zstd(level),
            Err(_) => return Err(bad("its compression cannot be")),
        };
        let geometry = Geometry {
            cluster_bytes: number(16),
            frame_bytes: number(20),
            compression,
        };
        let geometry = geometry
            .check()
            .map_err(|e| bad("its geometry cannot be").source(e))?;
        let uid = |at: usize| {
            let mut uid = [0; 16];
            uid.copy_from_slice(&bytes[at..at + 16]);
            Uid(uid)
        };
        let preamble = Self {
            purpose,
            store: uid(32),
            id: uid(48),
            geometry,
        };
        // All fields are taken, so encoding gives back every byte: zeros too.
        if preamble.encode() != *bytes {
            return Err(bad("its zeros are other"));
        }
        Ok(preamble)
    }

    /// Refuses another purpose.
    pub fn expect(&self, purpose: Purpose) -> Result<()> {
        if self.purpose == purpose {
            return Ok(());
        }
        let (is, wanted) = (self.purpose.name(), purpose.name());
        Err(Error::invalid(
            READING,
            format!("it is {is}, {wanted} is wanted"),
        ))
    }

    /// Refuses a receiver that cuts disks in other clusters than the sender: no cluster of one is one of the other.
    pub fn check_clusters(&self, ours: Geometry, we: Side) -> Result<()> {
        let (theirs, ours) = (self.geometry.cluster_bytes, ours.cluster_bytes);
        if theirs == ours {
            return Ok(());
        }
        let why = format!("its clusters have {theirs} bytes, those of this store {ours}");
        let senders = match we {
            Side::Receiver => theirs,
            Side::Sender => ours,
        };
        let hint = format!(
            "receive into a store made with `still init --cluster-size {senders}`, or move single disks with \
             `still export` and `still import`"
        );
        Err(Error::new(ErrorKind::Refused, READING)
            .detail(why)
            .hint(hint))
    }
}

/// Who reads a preamble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Who takes snapshots in.
    Receiver,
    /// Who sends them.
    Sender,
}

fn bad(why: &str) -> Error {
    Error::corrupt(READING, why)
}

/// The checksum so far: of the preamble, then of each message with all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chain([u8; 32]);

impl Chain {
    fn begin(preamble: &[u8; PREAMBLE_BYTES]) -> Self {
        Self(*blake3::hash(preamble).as_bytes())
    }

    fn next(&mut self, head: &[u8], payload: &[u8]) -> [u8; 8] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(head).update(payload);
        self.0 = *hasher.finalize().as_bytes();
        let mut sum = [0; 8];
        sum.copy_from_slice(&self.0[..8]);
        sum
    }
}

/// Writes a stream.
pub struct Outgoing<W> {
    out: W,
    chain: Chain,
    bytes: u64,
}

impl<W: Write> Outgoing<W> {
    /// Writes the preamble.
    pub fn begin(mut out: W, preamble: &Preamble) -> Result<Self> {
        let preamble = preamble.encode();
        out.write_all(&preamble).map_err(cannot_write)?;
        Ok(Self {
            out,
            chain: Chain::begin(&preamble),
            bytes: preamble.len() as u64,
        })
    }

    /// Writes one message. `hops` is how many messages had to come, one after the other, before this one could be sent.
    pub fn put(&mut self, kind: u8, hops: u16, payload: &[u8]) -> Result<()> {
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        if len > PAYLOAD_BYTES_MAX {
            let why = format!("a message would have {} bytes", payload.len());
            return Err(Error::new(ErrorKind::LimitExceeded, "sending").detail(why));
        }
        let mut head = [0; HEAD_BYTES];
        head[0] = kind;
        head[2..4].copy_from_slice(&hops.to_le_bytes());
        head[4..8].copy_from_slice(&len.to_le_bytes());
        let sum = self.chain.next(&head[..8], payload);
        head[8..].copy_from_slice(&sum);
        self.out.write_all(&head).map_err(cannot_write)?;
        self.out.write_all(payload).map_err(cannot_write)?;
        self.bytes += (HEAD_BYTES + payload.len()) as u64;
        Ok(())
    }

    /// Nothing stays in buffers.
    pub fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(cannot_write)
    }

    /// Bytes written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn cannot_write(e: std::io::Error) -> Error {
    Error::io("writing the stream", e)
}

/// A message as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// Which.
    pub kind: u8,
    /// See [`Outgoing::put`].
    pub hops: u16,
    /// What it says.
    pub payload: Vec<u8>,
}

/// Reads a stream.
pub struct Incoming<R> {
    from: R,
    chain: Chain,
    bytes: u64,
    purpose: Purpose,
}

impl<R: Read> Incoming<R> {
    /// Reads the preamble.
    pub fn begin(mut from: R) -> Result<(Preamble, Self)> {
        let mut bytes = [0; PREAMBLE_BYTES];
        match fill(&mut from, &mut bytes)? {
            0 => return Err(cut(0).detail("there is nothing in it")),
            PREAMBLE_BYTES => {}
            n => return Err(cut(n as u64)),
        }
        let preamble = Preamble::decode(&bytes)?;
        let incoming = Self {
            from,
            chain: Chain::begin(&bytes),
            bytes: bytes.len() as u64,
            purpose: preamble.purpose,
        };
        Ok((preamble, incoming))
    }

    /// The next message, its checksum proved; an end before it is an error, since the last message is known by its kind.
    pub fn read(&mut self) -> Result<Raw> {
        let mut head = [0; HEAD_BYTES];
        let read = fill(&mut self.from, &mut head)?;
        if read < HEAD_BYTES {
            return Err(cut(self.bytes + read as u64));
        }
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if len > PAYLOAD_BYTES_MAX || head[1] != 0 {
            return Err(bad("a message's head cannot be").offset(self.bytes));
        }
        // LIMIT: checked above.
        let mut payload = vec![0; len as usize];
        let read = fill(&mut self.from, &mut payload)?;
        if read < payload.len() {
            return Err(cut(self.bytes + (HEAD_BYTES + read) as u64));
        }
        if self.chain.next(&head[..8], &payload) != head[8..] {
            return Err(bad("the checksum does not fit").offset(self.bytes));
        }
        self.bytes += (HEAD_BYTES + payload.len()) as u64;
        let hops = u16::from_le_bytes([head[2], head[3]]);
        Ok(Raw {
            kind: head[0],
            hops,
            payload,
        })
    }

    /// Bytes read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing may follow the last message. Over a pipe that stays open for the answer, nobody looks.
    pub fn is_file(&self) -> bool {
        self.purpose != Purpose::Sync
    }

    /// Fails where something follows.
    pub fn end(&mut self) -> Result<()> {
        match fill(&mut self.from, &mut [0; 1])? {
            0 => Ok(()),
            _ => Err(bad("something follows its end").offset(self.bytes)),
        }
    }
}

fn cut(bytes: u64) -> Error {
    Error::corrupt(READING, "it is cut off")
        .offset(bytes)
        .hint("do it again: what has arrived is kept")
}

/// As many bytes as there are.
fn fill(from: &mut impl Read, into: &mut [u8]) -> Result<usize> {
    let mut n = 0;
    while n < into.len() {
        match from.read(&mut into[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == Io::Interrupted => {}
            Err(e) => return Err(Error::io(READING, e)),
        }
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preamble() -> Preamble {
        Preamble {
            purpose: Purpose::Bundle,
            store: Uid([3; 16]),
            id: Uid([9; 16]),
            geometry: Geometry::DEFAULT,
        }
    }

    fn stream() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut out = Outgoing::begin(&mut bytes, &preamble()).unwrap();
        out.put(1, 0, b"abc").unwrap();
        out.put(2, 7, b"").unwrap();
        assert_eq!(out.bytes(), bytes.len() as u64);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<(Preamble, Vec<Raw>)> {
        let (preamble, mut incoming) = Incoming::begin(bytes)?;
        let messages = vec![incoming.read()?, incoming.read()?];
        incoming.end()?;
        Ok((preamble, messages))
    }

    #[test]
    fn what_was_written_is_read() {
        let (read_preamble, messages) = read(&stream()).unwrap();
        assert_eq!(read_preamble, preamble());
        assert_eq!((messages[0].kind, messages[1].hops), (1, 7));
        assert_eq!(messages[0].payload, b"abc");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let good = stream();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(read(&good[..len]).is_err(), "{len} bytes");
        }
        assert!(read(&[&good[..], &[0]].concat()).is_err());
    }

    #[test]
    fn messages_of_another_place_do_not_pass() {
        let good = stream();
        let (first, second) = good[PREAMBLE_BYTES..].split_at(HEAD_BYTES + 3);
        let swapped = [&good[..PREAMBLE_BYTES], second, first].concat();
        assert!(read(&swapped).is_err());
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = stream();
        bytes[8] = 2;
        let e = read(&bytes).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert!(
            e.to_string()
                .contains("format version 2, this program knows 1")
        );
    }

    #[test]
    fn a_lying_length_costs_no_memory() {
        let mut bytes = stream();
        bytes[PREAMBLE_BYTES + 4..PREAMBLE_BYTES + 8].fill(0xff);
        assert_eq!(read(&bytes).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn stores_with_other_clusters_are_told_what_to_do() {
        let other = Geometry {
            cluster_bytes: 4096,
            ..Geometry::DEFAULT
        };
        let e = preamble()
            .check_clusters(other, Side::Receiver)
            .unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Refused);
        assert!(e.what_next().unwrap().contains("--cluster-size 8192"));
        let e = preamble().check_clusters(other, Side::Sender).unwrap_err();
        assert!(e.what_next().unwrap().contains("--cluster-size 4096"));
        assert!(
            preamble()
                .check_clusters(Geometry::DEFAULT, Side::Sender)
                .is_ok()
        );
    }
}
