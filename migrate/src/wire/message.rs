//! The messages: what each says, and its bytes. See FORMAT.md 2.

use super::edits::Edits;
use super::outcome::{Became, Outcome};
use super::stream::{PAYLOAD_BYTES_MAX, Raw};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stillpoint_store::format::codec;
use stillpoint_store::format::entry::Content;
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::id::{Hash, Uid};
use stillpoint_store::limits::NAME_BYTES_MAX;
use stillpoint_store::{Error, ErrorKind, Result};

/// Snapshots and roots that one `Have` names at most.
pub const HAVE_MAX: usize = 1 << 16;
/// Bytes of a text of the other side.
const TEXT_MAX: usize = 4096;

/// A message.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Part of what the receiver has.
    Have(Have),
    /// The receiver has said all that it has.
    Ready,
    /// What is to be done besides taking in.
    Plan(Plan),
    /// Contents that the receiver must have.
    Base(Base),
    /// A device.
    Device(Device),
    /// A snapshot of a device that was told before.
    Snapshot(SnapshotRecord),
    /// Contents begin.
    Content(Step),
    /// Changes that lead from their base to them.
    Edits(Edits),
    /// Which clusters of a window the receiver lacks.
    Want(Want),
    /// A frame of clusters, as in a pack.
    Frame(Vec<u8>),
    /// All frames of this window were sent.
    WindowEnd(u32),
    /// All changes of the contents were sent.
    ContentEnd,
    /// Nothing follows.
    End(Totals),
    /// It is durable.
    Done(Outcome),
    /// The sender of this message gives up.
    Failed(Failed),
    /// Part of what `Done` tells, before it.
    Became(Became),
}

/// See [`Message::Have`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// Uids of snapshots.
    pub snapshots: Vec<Uid>,
    /// Roots of contents that are there whole.
    pub roots: Vec<Hash>,
}

/// See [`Message::Plan`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Snapshots that the sender's devices do not have are to be deleted.
    pub mirror: bool,
    /// Nothing is to be stored.
    pub dry_run: bool,
}

/// See [`Message::Base`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The contents.
    pub content: Content,
    /// What the sender calls them, for messages.
    pub name: String,
}

/// See [`Message::Device`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its uid.
    pub uid: Uid,
    /// Its name at the sender.
    pub name: String,
    /// Its present contents and the snapshot that they come from, where they are sent too.
    pub head: Option<(Content, Option<Uid>)>,
    /// All snapshots that it has at the sender; none where that is not told.
    pub snapshots: Vec<Uid>,
}

/// Contents and what they are told as changes of; without, of holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Contents that the receiver has by then.
    pub base: Option<Content>,
    /// What they become.
    pub content: Content,
}

/// See [`Message::Want`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// The window.
    pub window: u32,
    /// A bit for each hash of the window, the lowest first.
    pub mask: Vec<u8>,
}

impl Want {
    /// Of a list with a verdict a hash.
    pub fn of(window: u32, lacking: &[bool]) -> Self {
        let mut mask = vec![0; lacking.len().div_ceil(8)];
        for (i, _) in lacking.iter().enumerate().filter(|(_, lacks)| **lacks) {
            mask[i / 8] |= 1 << (i % 8);
        }
        Self { window, mask }
    }

    /// The wanted ones of the window's hashes. `None` where the mask is of another window.
    pub fn choose(&self, hashes: &[Hash]) -> Option<Vec<Hash>> {
        let bit = |i: usize| self.mask[i / 8] >> (i % 8) & 1 == 1;
        let chosen = || hashes.iter().enumerate().filter(|(i, _)| bit(*i));
        (self.mask.len() == hashes.len().div_ceil(8)).then(|| chosen().map(|(_, h)| *h).collect())
    }
}

/// See [`Message::End`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Contents.
    pub contents: u64,
    /// Windows.
    pub windows: u64,
    /// Clusters in frames.
    pub clusters: u64,
}

/// See [`Message::Failed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Place in the list of kinds.
    pub kind: u32,
    /// What went wrong.
    pub text: String,
    /// What to do next; empty where nothing is to say.
    pub hint: String,
}

/// Kinds by their number on the wire. New ones go to the end.
pub const KINDS: [ErrorKind; 13] = [
    ErrorKind::Io,
    ErrorKind::Corrupt,
    ErrorKind::NotFound,
    ErrorKind::AlreadyExists,
    ErrorKind::Busy,
    ErrorKind::Refused,
    ErrorKind::InvalidInput,
    ErrorKind::Unsupported,
    ErrorKind::LimitExceeded,
    ErrorKind::NoSpace,
    ErrorKind::ReadOnly,
    ErrorKind::Poisoned,
    ErrorKind::Cancelled,
];

impl Failed {
    /// Of an error and what caused it.
    pub fn of(error: &Error) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self {
            kind: KINDS.iter().position(|k| *k == error.kind()).unwrap_or(0) as u32,
            text: shorter(text),
            hint: shorter(error.what_next().unwrap_or_default().into()),
        }
    }

    /// As an error here.
    pub fn error(self) -> Error {
        let kind = KINDS.get(self.kind as usize).copied();
        let error = Error::new(kind.unwrap_or(ErrorKind::Io), "the other side").detail(self.text);
        if self.hint.is_empty() {
            error
        } else {
            error.hint(self.hint)
        }
    }
}

/// Not longer than a text may be.
fn shorter(mut text: String) -> String {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

impl Message {
    /// Its kind and payload.
    pub fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Have(m) => (1, codec::encode(m)),
            Self::Ready => (2, Vec::new()),
            Self::Plan(m) => (3, codec::encode(m)),
            Self::Base(m) => (4, codec::encode(m)),
            Self::Device(m) => (5, codec::encode(m)),
            Self::Snapshot(m) => (6, codec::encode(m)),
            Self::Content(m) => (7, codec::encode(m)),
            Self::Edits(m) => (8, m.encode()),
            Self::Want(m) => (9, codec::encode(m)),
            Self::Frame(m) => (10, m.clone()),
            Self::WindowEnd(m) => (11, codec::encode(m)),
            Self::ContentEnd => (12, Vec::new()),
            Self::End(m) => (13, codec::encode(m)),
            Self::Done(m) => (14, codec::encode(m)),
            Self::Failed(m) => (15, codec::encode(m)),
            Self::Became(m) => (16, codec::encode(m)),
        }
    }

    /// Reads one; its fields are checked against what the format allows.
    pub fn decode(raw: Raw) -> Result<Self> {
        let bytes = &raw.payload;
        Ok(match raw.kind {
            1 => Self::Have(checked(bytes, Have::check)?),
            2 => empty(bytes, Self::Ready)?,
            3 => Self::Plan(checked(bytes, |_| true)?),
            4 => Self::Base(checked(bytes, Base::check)?),
            5 => Self::Device(checked(bytes, Device::check)?),
            6 => Self::Snapshot(record(bytes)?),
            7 => Self::Content(checked(bytes, Step::check)?),
            8 => Self::Edits(Edits::decode(bytes)?),
            9 => Self::Want(checked(bytes, |_| true)?),
            10 => Self::Frame(raw.payload),
            11 => Self::WindowEnd(checked(bytes, |_| true)?),
            12 => empty(bytes, Self::ContentEnd)?,
            13 => Self::End(checked(bytes, |_| true)?),
            14 => Self::Done(checked(bytes, Outcome::fits)?),
            15 => Self::Failed(checked(bytes, Failed::check)?),
            16 => Self::Became(checked(bytes, Became::fits)?),
            kind => {
                return Err(bad(format!(
                    "a message of kind {kind}, which this version does not know"
                )));
            }
        })
    }

    /// A word for it, for messages about what came where it should not.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Have(_) => "have",
            Self::Ready => "ready",
            Self::Plan(_) => "plan",
            Self::Base(_) => "base",
            Self::Device(_) => "device",
            Self::Snapshot(_) => "snapshot",
            Self::Content(_) => "content",
            Self::Edits(_) => "edits",
            Self::Want(_) => "want",
            Self::Frame(_) => "frame",
            Self::WindowEnd(_) => "window end",
            Self::ContentEnd => "content end",
            Self::End(_) => "end",
            Self::Done(_) => "done",
            Self::Failed(_) => "failed",
            Self::Became(_) => "became",
        }
    }

    /// The error of a message that came out of turn.
    pub fn out_of_turn(&self) -> Error {
        bad(format!(
            "the message \"{}\" came where it cannot be",
            self.name()
        ))
    }
}

impl Have {
    fn check(&self) -> bool {
        self.snapshots.len() <= HAVE_MAX && self.roots.len() <= HAVE_MAX
    }
}

impl Base {
    fn check(&self) -> bool {
        self.content.is_possible() && self.name.len() <= TEXT_MAX
    }
}

impl Device {
    fn check(&self) -> bool {
        let head = self.head.is_none_or(|(content, _)| content.is_possible());
        head && (1..=NAME_BYTES_MAX).contains(&self.name.len())
    }
}

impl Step {
    fn check(&self) -> bool {
        self.content.is_possible() && self.base.is_none_or(|base| base.is_possible())
    }
}

impl Failed {
    fn check(&self) -> bool {
        self.text.len() <= TEXT_MAX && self.hint.len() <= TEXT_MAX
    }
}

fn bad(why: impl Into<String>) -> Error {
    Error::corrupt("reading a message", why)
}

fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    codec::decode(bytes, u64::from(PAYLOAD_BYTES_MAX))
        .map_err(|e| bad("its fields cannot be").source(e))
}

fn checked<T: DeserializeOwned>(bytes: &[u8], fits: impl Fn(&T) -> bool) -> Result<T> {
    let value = decoded(bytes)?;
    if fits(&value) {
        Ok(value)
    } else {
        Err(bad("its fields cannot be"))
    }
}

fn record(bytes: &[u8]) -> Result<SnapshotRecord> {
    let record: SnapshotRecord = decoded(bytes)?;
    record
        .check()
        .map_err(|e| bad("a record cannot be").source(e))?;
    // A map takes its keys in any order and twice; the same record has one form only.
    if codec::encode(&record) == bytes {
        Ok(record)
    } else {
        Err(bad("the labels of a record are not in order, each once"))
    }
}

fn empty(bytes: &[u8], message: Message) -> Result<Message> {
    if bytes.is_empty() {
        Ok(message)
    } else {
        Err(bad("it has more bytes than it may have"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mask_chooses_what_it_was_made_of() {
        let hashes: Vec<Hash> = (0..19).map(|n| Hash([n; 32])).collect();
        let lacking: Vec<bool> = (0..19).map(|n| n % 3 == 0).collect();
        let want = Want::of(4, &lacking);
        let chosen = want.choose(&hashes).unwrap();
        assert_eq!(chosen.len(), 7);
        assert!(chosen.iter().all(|h| h.0[0].is_multiple_of(3)));
        assert!(want.choose(&hashes[..8]).is_none());
    }

    #[test]
    fn an_error_reaches_the_other_side_with_its_causes() {
        let cause = std::io::Error::other("no more paper");
        let error = Error::io("printing", cause).hint("buy some");
        let there = Failed::of(&error).error();
        assert_eq!(there.kind(), ErrorKind::Io);
        assert_eq!(there.to_string(), "the other side: printing: no more paper");
        assert_eq!(there.what_next(), Some("buy some"));
    }

    #[test]
    fn every_kind_of_message_is_read_back() {
        let content = Content {
            root: Hash([1; 32]),
            size: 5,
        };
        let all = [
            Message::Have(Have::default()),
            Message::Ready,
            Message::Plan(Plan::default()),
            Message::Base(Base {
                content,
                name: "d@a".into(),
            }),
            Message::Device(Device {
                uid: Uid([1; 16]),
                name: "d".into(),
                head: Some((content, None)),
                snapshots: vec![Uid([2; 16])],
            }),
            Message::Content(Step {
                base: Some(content),
                content,
            }),
            Message::Edits(Edits::default()),
            Message::Want(Want::of(1, &[true])),
            Message::Frame(vec![1]),
            Message::WindowEnd(7),
            Message::ContentEnd,
            Message::End(Totals::default()),
            Message::Done(Outcome::default()),
            Message::Failed(Failed {
                kind: 1,
                text: "t".into(),
                hint: String::new(),
            }),
            Message::Became(Became::default()),
        ];
        for message in all {
            let (kind, payload) = message.encode();
            let raw = Raw {
                kind,
                hops: 0,
                payload,
            };
            assert_eq!(Message::decode(raw).unwrap(), message);
        }
    }

    #[test]
    fn labels_out_of_order_or_twice_are_refused() {
        let mut labels = std::collections::BTreeMap::new();
        labels.insert("kk1".to_owned(), "1".to_owned());
        labels.insert("kk2".to_owned(), "2".to_owned());
        let content = Content {
            root: Hash([1; 32]),
            size: 5,
        };
        let payload = codec::encode(&SnapshotRecord {
            uid: Uid([1; 16]),
            device: Uid([2; 16]),
            id: b"1".to_vec(),
            name: b"n".to_vec(),
            date_sec: 0,
            date_nsec: 0,
            vm_clock_nsec: 0,
            icount: None,
            vm_state: None,
            content,
            group: None,
            parent: None,
            extra: Vec::new(),
            labels,
        });
        assert!(decode_snapshot(&payload).is_ok());
        for (from, to) in [(b"kk1", b"kk3"), (b"kk1", b"kk2")] {
            let mut other = payload.clone();
            let at = other.windows(3).position(|w| w == from).unwrap();
            other[at..at + 3].copy_from_slice(to);
            let refused = decode_snapshot(&other).unwrap_err().to_string();
            assert!(refused.contains("not in order"), "{refused}");
        }
    }

    fn decode_snapshot(payload: &[u8]) -> Result<Message> {
        Message::decode(Raw {
            kind: 6,
            hops: 0,
            payload: payload.to_vec(),
        })
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind: u8, payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Message::decode(Raw { kind, hops: 0, payload });
        }
    }
}
