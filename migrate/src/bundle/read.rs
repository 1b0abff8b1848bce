//! A bundle on its way in.

use crate::wire::ahead::{self, AHEAD, Got, Item};
use crate::wire::intake::{Finished, Intake};
use crate::wire::message::Totals;
use crate::wire::{Consent, Incoming, Message, Outcome, Purpose, Side};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::mpsc::{Receiver, sync_channel};
use stillpoint_store::id::Hash;
use stillpoint_store::progress::Progress;
use stillpoint_store::store::Store;
use stillpoint_store::{Error, ErrorKind, Result};

/// How it is received.
#[derive(Debug, Clone, Default)]
pub struct Receive {
    /// Devices that get another name here.
    pub renames: BTreeMap<String, String>,
}

/// What a bundle brought.
#[derive(Debug, Clone)]
pub enum Received {
    /// All of its snapshots are there, durably, since one moment.
    Whole(Outcome),
    /// None is: these clusters are neither here nor in the bundle. What it had is kept, so that only these are needed.
    Lacking {
        /// Sorted; a million at most.
        needed: Vec<Hash>,
        /// How many there are.
        count: u64,
    },
}

/// Takes a bundle in. An error leaves nothing but clusters that the next try finds.
pub fn receive<R: Read + Send + 'static>(
    store: &Store,
    receive: &Receive,
    from: R,
    progress: &Progress,
) -> Result<Received> {
    if store.is_read_only() {
        return Err(Error::new(ErrorKind::ReadOnly, "receiving snapshots").at(store.describe()));
    }
    match store.expire_dead() {
        Err(e) if e.kind() != ErrorKind::Busy => return Err(e),
        _ => {}
    }
    let (preamble, incoming) = Incoming::begin(from)?;
    preamble.expect(Purpose::Bundle)?;
    preamble.check_clusters(store.geometry(), Side::Receiver)?;
    let mut intake = Intake::new(store, receive.renames.clone(), Consent::default())?;
    let (got, next): (_, Receiver<Result<Got>>) = sync_channel(AHEAD);
    ahead::start(incoming, store.geometry().cluster_bytes, got)?;
    if let Err(e) = take_all(&next, &mut intake, progress) {
        return Err(intake.give_up(e));
    }
    Ok(match intake.finish()? {
        Finished::Done(outcome) => Received::Whole(outcome),
        Finished::Lacking { hashes, count } => Received::Lacking {
            needed: hashes,
            count,
        },
    })
}

fn take_all(
    next: &Receiver<Result<Got>>,
    intake: &mut Intake<'_>,
    progress: &Progress,
) -> Result<()> {
    let mut seen = Totals::default();
    loop {
        match ahead::wait(next, progress)??.item {
            Item::Frame(frame) => {
                seen.clusters += frame.clusters();
                intake.offer(frame, progress)?;
            }
            Item::Message(Message::Edits(edits)) => {
                seen.windows += 1;
                intake.check(&edits)?;
            }
            Item::Message(Message::End(totals)) if totals == seen => return Ok(()),
            Item::Message(Message::End(_)) => {
                return Err(Error::corrupt(
                    "receiving snapshots",
                    "a part of the bundle is missing",
                ));
            }
            Item::Message(message) => {
                seen.contents += u64::from(matches!(message, Message::Content(_)));
                intake.take(message)?;
            }
        }
    }
}
