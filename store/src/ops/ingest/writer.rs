//! The writing side of an operation: packs filled and made durable in the background; `commit` publishes them as they go,
//! and puts the one entry that makes it all count.
//!
//! ORDER: a pack's bytes, then its name, then the entry that publishes it, then the index. The session is opened before
//! its first pack is put; an operation that stores nothing has no session and is one entry in all.

use super::decide::{Encoder, Frame};
use super::parents::ParentNodes;
use crate::catalog::Catalog;
use crate::codec::{EncodedFrame, FrameCodec, encode_frame};
use crate::content::nodes::Nodes;
use crate::content::suspects::{Distrusted, Suspects};
use crate::content::tables::{BLOCKS_MAX, Tables};
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::{Op, PackKind, PackRecord, SessionKind};
use crate::format::envelope::{self, EnvelopeKind};
use crate::format::pack::FRAME_ITEMS_MAX;
use crate::format::snapshot::SnapshotRecord;
use crate::geometry::{Compression, Geometry};
use crate::id::{Hash, PackName};
use crate::index::Places;
use crate::index::keeper::Keeper;
use crate::log::{Durability, Session};
use crate::object::{Objects, Purse, Put};
use crate::pack::writer::{PackBuilder, SealedPack};
use crate::store::Store;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Bytes of manifest nodes in a frame; small nodes end it sooner, by their number.
pub(crate) const NODE_FRAME_BYTES: usize = 64 << 10;

/// Adds to a store; see the module.
pub struct Writer<'a> {
    pub(super) store: &'a Store,
    pub(super) purse: Purse,
    pub(super) kind: SessionKind,
    pub(super) session: Option<Session>,
    pub(super) packs_begun: u32,
    pub(super) clusters: Option<PackBuilder>,
    pub(super) nodes_pack: Option<PackBuilder>,
    pub(super) nodes_frame: Vec<(Hash, Vec<u8>)>,
    pub(super) nodes_frame_bytes: usize,
    pub(super) flights: VecDeque<JoinHandle<Result<Landed>>>,
    pub(super) landed: Vec<Landed>,
    /// Hashes of clusters that this writer has stored and not yet published.
    pub(super) fresh: HashSet<Hash>,
    /// The same of nodes. Apart, since what comes from elsewhere may give one for the other.
    pub(super) fresh_nodes: HashSet<Hash>,
    pub(super) relied: Relied,
    pub(super) tables: Tables,
    pub(super) distrusted: Distrusted,
    pub(super) nodes: Arc<Nodes<'a>>,
    pub(super) parents: Arc<ParentNodes<'a>>,
    pub(super) codec: FrameCodec,
}

/// What belongs to others and must still be there when the entry is put.
#[derive(Clone, Default)]
pub(super) struct Relied {
    pub(super) packs: BTreeSet<PackName>,
    pub(super) roots: BTreeSet<Hash>,
}

/// A durable pack that is not published yet.
pub(super) struct Landed {
    pub(super) name: PackName,
    pub(super) record: PackRecord,
    pub(super) entries: Vec<(Hash, u32)>,
}

impl<'a> Writer<'a> {
    /// Nothing is written, and no session opened, before there is something to store.
    pub fn new(store: &'a Store, kind: SessionKind, purse: Purse) -> Result<Self> {
        let catalog = store.log.refresh()?;
        let nodes = Arc::new(Nodes::new(
            (&store.log, &store.keeper),
            store.objects.clone(),
            &catalog,
            store.geometry().cluster_bytes,
        ));
        let suspects = Suspects::noted(&*store.local);
        Ok(Self {
            store,
            purse,
            kind,
            session: None,
            packs_begun: 0,
            clusters: None,
            nodes_pack: None,
            nodes_frame: Vec::new(),
            nodes_frame_bytes: 0,
            flights: VecDeque::new(),
            landed: Vec::new(),
            fresh: HashSet::new(),
            fresh_nodes: HashSet::new(),
            relied: Relied::default(),
            distrusted: suspects.hashes(&*store.objects, &catalog),
            tables: Tables::new(store.objects.clone(), catalog, suspects, BLOCKS_MAX),
            parents: Arc::new(ParentNodes::new(nodes.clone())),
            nodes,
            codec: FrameCodec::new(store.geometry().compression),
        })
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.store.geometry()
    }

    /// Reads manifest nodes below roots that are relied on.
    pub(super) fn parent_nodes(&self) -> Arc<ParentNodes<'a>> {
        self.parents.clone()
    }

    pub(super) fn random(&self) -> [u8; 16] {
        self.store.world.random()
    }

    /// What a parent proves nothing of.
    pub(super) fn distrusted(&self) -> &Distrusted {
        &self.distrusted
    }

    pub(super) fn index(&self) -> &'a Keeper {
        &self.store.keeper
    }

    /// Opens the index and brings it in step with the packs live now.
    pub(super) fn open_index(&self) -> Result<()> {
        self.store
            .index_packs(&self.store.log.current())
            .map(|_| ())
    }

    pub(super) fn encoder(&self) -> Encoder<'_> {
        Encoder {
            geometry: self.geometry(),
            codec: &self.codec,
        }
    }

    /// Clusters of this root are taken over without looking them up.
    pub(super) fn rely_on_root(&mut self, root: Option<Hash>) {
        self.relied.roots.extend(root);
    }

    /// Whether the hash is in a pack of this writer, or in a live one whose own table lists it. Marks it as stored, as
    /// the caller will now do so.
    pub(super) fn is_stored(&mut self, hash: &Hash, hints: &Places) -> Result<bool> {
        if self.fresh.contains(hash) {
            return Ok(true);
        }
        if let Some(name) = self.tables.prove(hash, hints.iter())? {
            self.relied.packs.insert(name);
            return Ok(true);
        }
        self.fresh.insert(*hash);
        Ok(false)
    }

    /// Appends a frame of clusters.
    pub(super) fn store_frame(&mut self, frame: Frame) -> Result<()> {
        self.push(PackKind::Clusters, &frame.encoded, &frame.hashes)?;
        self.codec.recycle(frame.encoded.bytes);
        Ok(())
    }

    /// Appends a frame of clusters as it stands in another pack, or encoded anew.
    pub fn store_encoded(
        &mut self,
        kind: PackKind,
        frame: &EncodedFrame,
        hashes: &[Hash],
    ) -> Result<()> {
        self.push(kind, frame, hashes)
    }

    /// Stores a manifest node unless a parent, a live pack, or this writer holds it. That it is there proves nothing about what
    /// lies below it: the caller has seen to that.
    pub fn store_node(&mut self, hash: Hash, bytes: Vec<u8>) -> Result<()> {
        if self.fresh_nodes.contains(&hash) || self.parents.has_read(&hash) {
            return Ok(());
        }
        if let Some(name) = self.nodes.holder(&hash) {
            self.relied.packs.insert(name);
            return Ok(());
        }
        self.fresh_nodes.insert(hash);
        self.nodes_frame_bytes += bytes.len();
        self.nodes_frame.push((hash, bytes));
        if self.nodes_frame_bytes >= NODE_FRAME_BYTES || self.nodes_frame.len() == FRAME_ITEMS_MAX {
            self.end_nodes_frame()
        } else {
            Ok(())
        }
    }

    pub(super) fn end_nodes_frame(&mut self) -> Result<()> {
        let nodes = std::mem::take(&mut self.nodes_frame);
        self.nodes_frame_bytes = 0;
        if nodes.is_empty() {
            return Ok(());
        }
        let items: Vec<&[u8]> = nodes.iter().map(|(_, b)| b.as_slice()).collect();
        let hashes: Vec<Hash> = nodes.iter().map(|(h, _)| *h).collect();
        // Nodes are hashes for the most part: the default level finds all there is to find.
        let how = match self.geometry().compression {
            Compression::None => Compression::None,
            Compression::Zstd(_) => Compression::Zstd(3),
        };
        let frame = encode_frame(PackKind::Nodes, &items, how);
        self.push(PackKind::Nodes, &frame, &hashes)
    }

    fn push(&mut self, kind: PackKind, frame: &EncodedFrame, hashes: &[Hash]) -> Result<()> {
        if self
            .slot(kind)
            .as_ref()
            .is_some_and(|pack| !pack.room_for(frame))
        {
            self.seal(kind)?;
        }
        if self.slot(kind).is_none() {
            let name = self.next_name()?;
            let cluster_bytes = self.geometry().cluster_bytes;
            let pack = PackBuilder::new(self.store.id(), name, kind, cluster_bytes)
                .with_target(self.store.tuning.pack_bytes);
            *self.slot(kind) = Some(pack);
        }
        if let Some(pack) = self.slot(kind) {
            pack.push(frame, hashes);
        }
        Ok(())
    }

    fn slot(&mut self, kind: PackKind) -> &mut Option<PackBuilder> {
        match kind {
            PackKind::Clusters => &mut self.clusters,
            PackKind::Nodes => &mut self.nodes_pack,
        }
    }

    fn next_name(&mut self) -> Result<PackName> {
        let session = self.opened()?.id();
        let n = self.packs_begun;
        self.packs_begun += 1;
        Ok(PackName { session, n })
    }

    /// The session, opened if it is not yet, with a claim on the roots that are relied on.
    fn opened(&mut self) -> Result<&mut Session> {
        if self.session.is_none() {
            let roots = self.relied.roots.clone();
            // Roots that are gone already are found out when the operation ends.
            let session = self
                .store
                .log
                .open_session(self.kind, self.purse, &mut |catalog| {
                    let roots: Vec<Hash> = roots
                        .iter()
                        .filter(|r| catalog.reachable(r))
                        .copied()
                        .collect();
                    Ok(if roots.is_empty() {
                        vec![]
                    } else {
                        vec![Op::Pin {
                            packs: vec![],
                            roots,
                        }]
                    })
                })?;
            self.session = Some(session);
        }
        self.session.as_mut().ok_or_else(no_session)
    }

    /// Opens the session, if it is not yet, with a claim on the roots that are relied on.
    pub(super) fn claim(&mut self) -> Result<()> {
        self.opened().map(drop)
    }

    /// Claims packs until the session ends.
    pub(super) fn pin_packs(&mut self, packs: Vec<PackName>) -> Result<()> {
        let (store, purse) = (self.store, self.purse);
        let roots = vec![];
        let op = Op::Pin { packs, roots };
        let session = self.opened()?;
        let plan = &mut |_: &Catalog| Ok(vec![op.clone()]);
        store.log.commit(session, purse, Durability::Later, plan)?;
        Ok(())
    }

    pub(super) fn seal(&mut self, kind: PackKind) -> Result<()> {
        let Some(pack) = self.slot(kind).take() else {
            return Ok(());
        };
        let tuning = self.store.tuning;
        while self.flights.len() >= tuning.packs_in_flight.max(1) {
            self.land()?;
        }
        if self.landed.len() >= tuning.publish_every {
            self.publish()?;
        }
        let (objects, purse) = (self.store.objects.clone(), self.purse);
        let flight = move || fly(&*objects, pack.seal(), purse);
        if tuning.packs_in_flight == 0 {
            self.landed.push(flight()?);
            return Ok(());
        }
        self.flights.push_back(std::thread::spawn(flight));
        Ok(())
    }

    pub(super) fn land(&mut self) -> Result<()> {
        let Some(flight) = self.flights.pop_front() else {
            return Ok(());
        };
        let landed = flight.join().map_err(|_| {
            Error::new(ErrorKind::Poisoned, "writing a pack").detail("the writing thread panicked")
        })??;
        self.landed.push(landed);
        Ok(())
    }

    /// Everything stored so far is durable when this returns.
    pub fn flush(&mut self) -> Result<()> {
        self.end_nodes_frame()?;
        self.seal(PackKind::Clusters)?;
        self.seal(PackKind::Nodes)?;
        while !self.flights.is_empty() {
            self.land()?;
        }
        Ok(())
    }
}

/// The stored copy of a record: an envelope. Its hash follows from the record, so that gc knows which copies to keep.
pub fn record_copy(record: &SnapshotRecord) -> Vec<u8> {
    let payload = crate::format::codec::encode(record);
    envelope::seal(EnvelopeKind::Record, 0, Hash([0; 32]), &payload).0
}

fn no_session() -> Error {
    Error::new(ErrorKind::Busy, "writing a pack").detail("the session has ended")
}

/// Contents durable, then the name.
fn fly(objects: &dyn Objects, pack: SealedPack, purse: Purse) -> Result<Landed> {
    let key = pack.name.key();
    if objects.put_new(&key, &[&pack.bytes], purse)? == Put::Exists {
        return Err(Error::new(ErrorKind::AlreadyExists, "writing a pack")
            .at(objects.describe(&key))
            .detail("a pack name was used twice"));
    }
    objects.sync(&format!("packs/{}", pack.name.session))?;
    Ok(Landed {
        name: pack.name,
        record: pack.record,
        entries: pack.entries,
    })
}
