//! The receiving side. What it asks for is written by a thread of its own, so that it never waits for a sender who waits
//! for it.

use super::{Report, WINDOWS_UNDER_WAY};
use crate::wire::ahead::{self, AHEAD, Got, Item};
use crate::wire::intake::{Finished, Intake};
use crate::wire::message::{Failed, Totals, Want};
use crate::wire::plan::Known;
use crate::wire::{Consent, Incoming, Message, Outcome, Outgoing, Preamble, Purpose, Side};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufWriter, Read, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use stillpoint_store::progress::Progress;
use stillpoint_store::store::Store;
use stillpoint_store::{Error, ErrorKind, Result};

/// How it is received.
#[derive(Debug, Clone, Default)]
pub struct Take {
    /// Devices that get another name here.
    pub renames: BTreeMap<String, String>,
    /// What the sender may plan.
    pub consent: Consent,
    /// The devices that were asked for, by the sender's names; all where it is none.
    pub only: BTreeSet<String>,
}

/// Receives what the store at the other end of the pipe sends. Durable when this returns; an error leaves nothing but clusters
/// that the next try finds.
pub fn take<R, W>(store: &Store, take: Take, from: R, to: W, progress: &Progress) -> Result<Report>
where
    R: Read + Send + 'static,
    W: Write + Send + 'static,
{
    let preamble = Preamble {
        purpose: Purpose::Sync,
        store: store.id(),
        id: store.new_uid(),
        geometry: store.geometry(),
    };
    let (got, next) = sync_channel(AHEAD);
    let mut answers = Answers::start(to, &preamble, got.clone())?;
    let taken = take_with(store, take, (from, got, next), &mut answers, progress);
    if let Err(error) = &taken {
        answers.put(&Message::Failed(Failed::of(error)), 0);
    }
    let asked_bytes = answers.end();
    let (outcome, sent_bytes, hops) = taken?;
    Ok(Report {
        outcome,
        sent_bytes,
        // What is done here is done, whether or not the other side heard of it.
        asked_bytes: asked_bytes.unwrap_or_default(),
        hops,
    })
}

fn take_with<R: Read + Send + 'static>(
    store: &Store,
    take: Take,
    (from, got, next): (R, SyncSender<Result<Got>>, Receiver<Result<Got>>),
    answers: &mut Answers,
    progress: &Progress,
) -> Result<(Outcome, u64, u16)> {
    if store.is_read_only() {
        return Err(Error::new(ErrorKind::ReadOnly, "receiving snapshots").at(store.describe()));
    }
    expire(store)?;
    let mut intake = Intake::new(store, take.renames, take.consent)?;
    intake.only(take.only);
    for have in Known::of(&store.catalog()) {
        answers.put(&Message::Have(have), 0);
    }
    answers.put(&Message::Ready, 0);
    let mut taking = Taking {
        answers,
        progress,
        windows: HashMap::new(),
        told: Totals::default(),
        hops: 0,
        sent_bytes: 0,
    };
    let begun = begin(store, from, got);
    if let Err(e) = begun.and_then(|()| taking.run(store, &next, &mut intake)) {
        return Err(intake.give_up(e));
    }
    let outcome = if intake.is_dry_run() {
        intake.dry(taking.told.clusters)?
    } else {
        match intake.finish()? {
            Finished::Done(outcome) => outcome,
            Finished::Lacking { count, .. } => {
                let why = format!("{count} clusters did not come");
                return Err(Error::corrupt("receiving snapshots", why));
            }
        }
    };
    let hops = taking.hops.saturating_add(1);
    let (parts, rest) = outcome.cut();
    for part in parts {
        taking.answers.put(&Message::Became(part), hops);
    }
    taking.answers.put(&Message::Done(rest), hops);
    Ok((outcome, taking.sent_bytes, hops))
}

/// Sessions of processes that died are ended, so that what they claimed is free.
fn expire(store: &Store) -> Result<()> {
    match store.expire_dead() {
        Err(e) if e.kind() != ErrorKind::Busy => Err(e),
        _ => Ok(()),
    }
}

/// Reads the preamble, then ahead.
fn begin<R: Read + Send + 'static>(
    store: &Store,
    from: R,
    got: SyncSender<Result<Got>>,
) -> Result<()> {
    let (theirs, incoming) = Incoming::begin(from)?;
    theirs.expect(Purpose::Sync)?;
    theirs.check_clusters(store.geometry(), Side::Receiver)?;
    ahead::start(incoming, store.geometry().cluster_bytes, got)
}

struct Taking<'a> {
    answers: &'a mut Answers,
    progress: &'a Progress,
    /// Told, and not all frames have come: how many clusters were asked for.
    windows: HashMap<u32, usize>,
    told: Totals,
    hops: u16,
    sent_bytes: u64,
}

impl Taking<'_> {
    /// Takes everything up to the end.
    fn run(
        &mut self,
        store: &Store,
        next: &Receiver<Result<Got>>,
        intake: &mut Intake<'_>,
    ) -> Result<()> {
        loop {
            let got = ahead::wait(next, self.progress)??;
            self.sent_bytes = got.bytes;
            self.hops = self.hops.max(got.hops);
            match got.item {
                Item::Frame(frame) if self.windows.is_empty() || intake.is_dry_run() => {
                    let why = format!("{} clusters came that nobody asked for", frame.clusters());
                    return Err(Error::corrupt("reading a message", why));
                }
                Item::Frame(frame) => intake.answer(frame, self.progress)?,
                Item::Message(Message::Edits(edits)) => {
                    // LIMIT: what is asked for and has not come is kept in memory.
                    if self.windows.len() == WINDOWS_UNDER_WAY {
                        let why = "more is told at a time than may be";
                        return Err(Error::corrupt("reading a message", why));
                    }
                    let lacking = intake.ask(&edits)?;
                    let asked = self.count(store, &lacking);
                    self.windows.insert(edits.window, asked);
                    self.told.windows += 1;
                    let want = Want::of(edits.window, &lacking);
                    let hops = got.hops.saturating_add(1);
                    self.answers.put(&Message::Want(want), hops);
                }
                Item::Message(Message::WindowEnd(window)) => self.window_end(window, intake)?,
                Item::Message(Message::End(totals)) => return self.end(totals, intake),
                Item::Message(message) => {
                    self.told.contents += u64::from(matches!(message, Message::Content(_)));
                    intake.take(message)?;
                }
            }
        }
    }

    fn count(&mut self, store: &Store, lacking: &[bool]) -> usize {
        let asked = lacking.iter().filter(|lacks| **lacks).count();
        self.told.clusters += asked as u64;
        let bytes = asked as u64 * u64::from(store.geometry().cluster_bytes);
        Progress::add(&self.progress.bytes_total, bytes);
        asked
    }

    /// LIMIT: so what is awaited is of the windows that are under way.
    fn window_end(&mut self, window: u32, intake: &Intake<'_>) -> Result<()> {
        let why = if self.windows.remove(&window).is_none() {
            "a window ends that is not under way"
        } else if intake.awaited() > self.windows.values().sum() {
            "a window ends before all of it has come"
        } else {
            return Ok(());
        };
        Err(Error::corrupt("reading a message", why))
    }

    /// Everything that was told has come.
    fn end(&self, totals: Totals, intake: &Intake<'_>) -> Result<()> {
        let whole = self.windows.is_empty() && totals == self.told;
        if whole && (intake.is_dry_run() || intake.awaited() == 0) {
            return Ok(());
        }
        Err(Error::corrupt(
            "receiving snapshots",
            "it ends before all of it has come",
        ))
    }
}

/// Writes what goes back.
struct Answers {
    queue: Option<Sender<(Message, u16)>>,
    writer: Option<JoinHandle<Option<u64>>>,
}

impl Answers {
    /// A pipe that breaks is told to `got`: whoever waits for an answer to what could not be asked waits for ever else.
    fn start<W: Write + Send + 'static>(
        to: W,
        preamble: &Preamble,
        got: SyncSender<Result<Got>>,
    ) -> Result<Self> {
        let mut out = Outgoing::begin(BufWriter::new(to), preamble)?;
        out.flush()?;
        let (queue, messages) = channel::<(Message, u16)>();
        let write = move || {
            for (message, hops) in messages {
                let (kind, payload) = message.encode();
                if let Err(e) = out.put(kind, hops, &payload).and_then(|()| out.flush()) {
                    // Where nobody listens any more, nobody waits.
                    let _ = got.try_send(Err(e));
                    return None;
                }
            }
            Some(out.bytes())
        };
        let writer = std::thread::Builder::new()
            .name("answer".into())
            .spawn(write)
            .map_err(|e| Error::io("starting a thread", e))?;
        Ok(Self {
            queue: Some(queue),
            writer: Some(writer),
        })
    }

    /// LIMIT: the sender gets no more answers than there are windows under way.
    fn put(&mut self, message: &Message, hops: u16) {
        if let Some(queue) = &self.queue {
            // The thread has told why it ended.
            let _ = queue.send((message.clone(), hops));
        }
    }

    /// Writes what is left; the bytes of all.
    fn end(&mut self) -> Option<u64> {
        self.queue.take();
        self.writer.take()?.join().ok()?
    }
}
