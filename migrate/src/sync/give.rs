//! The sending side. A thread walks the manifests, some windows ahead of the answers; the caller's thread answers them.

use super::{Report, WINDOWS_UNDER_WAY};
use crate::wire::ahead::{self, Got, Item};
use crate::wire::edits::WINDOW_MAX;
use crate::wire::message::{Failed, Plan, Step, Totals, Want};
use crate::wire::outcome::Became;
use crate::wire::outgoing::{announce, tell_contents};
use crate::wire::plan::{Cargo, Known, Wanted};
use crate::wire::{Incoming, Message, Outcome, Outgoing, Preamble, Purpose, Side};
use std::collections::HashMap;
use std::io::{BufWriter, Read, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread::ScopedJoinHandle;
use stillpoint_store::catalog::Catalog;
use stillpoint_store::codec::EncodedFrame;
use stillpoint_store::id::Hash;
use stillpoint_store::ops::give::{Giver, Trees};
use stillpoint_store::progress::Progress;
use stillpoint_store::store::Store;
use stillpoint_store::{Error, ErrorKind, Result};

/// What is to be sent.
#[derive(Debug, Clone, Default)]
pub struct Give {
    /// `D` or `D@S`; none is everything.
    pub targets: Vec<String>,
    /// Snapshots of these devices that the receiver alone has are deleted there.
    pub mirror: bool,
    /// Find out what lacks, and send none of it.
    pub dry_run: bool,
    /// Changes told at a time; by default, and at most, as many as a message may have. Fewer are for tests, where little
    /// data is to make many windows.
    pub window_max: Option<usize>,
}

/// Something to be dealt with.
enum Event {
    Got(Result<Got>),
    /// The walk's next message, and how many messages had to come before it.
    Tell(Message, u16),
    /// The walk has ended.
    Told(Result<u64>),
}

impl From<Result<Got>> for Event {
    fn from(got: Result<Got>) -> Self {
        Self::Got(got)
    }
}

impl Event {
    fn last_words(self) -> Option<LastWords> {
        match self {
            Self::Got(got) => last_words(got),
            Self::Tell(..) | Self::Told(_) => None,
        }
    }
}

/// Events that may wait.
const EVENTS: usize = 64;
/// LIMIT: messages looked through for the receiver's last words; it answers each window once, so there are no more.
const LATE_MAX: usize = 2 * EVENTS;

/// Sends what is asked for to the store at the other end of the pipe. What fails there is an error here.
pub fn give<R, W>(store: &Store, give: &Give, from: R, to: W, progress: &Progress) -> Result<Report>
where
    R: Read + Send + 'static,
    W: Write,
{
    let preamble = Preamble {
        purpose: Purpose::Sync,
        store: store.id(),
        id: store.new_uid(),
        geometry: store.geometry(),
    };
    let mut out = Outgoing::begin(BufWriter::new(to), &preamble)?;
    out.flush()?;
    let (events, next) = sync_channel(EVENTS);
    let begun = (|| {
        let (theirs, incoming) = Incoming::begin(from)?;
        theirs.expect(Purpose::Sync)?;
        theirs.check_clusters(store.geometry(), Side::Sender)?;
        ahead::start(incoming, store.geometry().cluster_bytes, events.clone())
    })();
    let mut giving = Giving {
        store,
        give,
        out,
        next,
        progress,
        windows: HashMap::new(),
        totals: Totals::default(),
        asked_bytes: 0,
        hops: 0,
        late: None,
    };
    match begun.and_then(|()| giving.run(events)) {
        Ok(outcome) => Ok(Report {
            outcome,
            sent_bytes: giving.out.bytes(),
            asked_bytes: giving.asked_bytes,
            hops: giving.hops,
        }),
        Err(error) => Err(giving.failed(error)),
    }
}

struct Giving<'a, W: Write> {
    store: &'a Store,
    give: &'a Give,
    out: Outgoing<BufWriter<W>>,
    next: Receiver<Event>,
    progress: &'a Progress,
    /// What was told and not answered yet.
    windows: HashMap<u32, Vec<Hash>>,
    totals: Totals,
    asked_bytes: u64,
    hops: u16,
    /// What the receiver said last, when it came after this side failed.
    late: Option<LastWords>,
}

impl<W: Write> Giving<'_, W> {
    fn run(&mut self, events: SyncSender<Event>) -> Result<Outcome> {
        let catalog = self.store.refresh()?;
        let known = self.known(&catalog)?;
        let wanted = Wanted::parse(&catalog, &self.give.targets)?;
        let cargo = Cargo::plan(&catalog, &wanted, &known, true);
        let _pin = self.store.pin(&cargo.contents())?;
        let plan = Plan {
            mirror: self.give.mirror,
            dry_run: self.give.dry_run,
        };
        let hops = self.hops.saturating_add(1);
        self.put(&Message::Plan(plan), hops)?;
        announce(&cargo, |message| self.put(&message, hops))?;
        let trees = self.store.trees();
        let mut giver = self.store.giver();
        let (tokens, permits) = channel();
        for _ in 0..WINDOWS_UNDER_WAY {
            // Nobody can have hung up yet.
            let _ = tokens.send(hops);
        }
        std::thread::scope(|scope| {
            let steps = &cargo.steps;
            let window_max = self.give.window_max.unwrap_or(WINDOW_MAX);
            let walking =
                scope.spawn(move || walk(&trees, (steps, window_max), (&permits, hops), &events));
            let served = self.serve(&mut giver, &tokens);
            // Without permits the walk ends, also where that failed.
            drop(tokens);
            if served.is_err() {
                self.end_walk(&walking);
            }
            served
        })
    }

    /// Makes room for the walk to end: contents without changes need no permits. Keeps the last words of the receiver.
    fn end_walk(&mut self, walk: &ScopedJoinHandle<'_, ()>) {
        while !walk.is_finished() {
            if let Some(Event::Got(got)) = ahead::wait_a_moment(&self.next) {
                self.late = self.late.take().or_else(|| last_words(got));
            }
        }
    }

    /// What the receiver says that it has.
    fn known(&mut self, here: &Catalog) -> Result<Known> {
        let mut known = Known::default();
        loop {
            match self.event()? {
                Event::Got(got) => match self.message(got?)? {
                    (Message::Have(have), _) => known.add(have, here),
                    (Message::Ready, _) => return Ok(known),
                    (other, _) => return Err(other.out_of_turn()),
                },
                Event::Tell(..) | Event::Told(_) => {}
            }
        }
    }

    /// Sends what the walk tells and what is wanted, until all is done there.
    fn serve(&mut self, giver: &mut Giver<'_>, tokens: &Sender<u16>) -> Result<Outcome> {
        let mut told = false;
        let mut ended = false;
        let mut became = Became::default();
        loop {
            if told && !ended && self.windows.is_empty() {
                let end = Message::End(self.totals);
                self.put(&end, self.hops)?;
                ended = true;
            }
            match self.event()? {
                Event::Tell(message, hops) => {
                    match &message {
                        Message::Edits(edits) => {
                            self.windows.insert(edits.window, edits.hashes());
                        }
                        Message::Content(_) => self.totals.contents += 1,
                        _ => {}
                    }
                    self.put(&message, hops)?;
                }
                Event::Told(windows) => {
                    self.totals.windows = windows?;
                    told = true;
                }
                Event::Got(got) => match self.message(got?)? {
                    (Message::Want(want), hops) => {
                        let hops = hops.saturating_add(1);
                        self.answer(giver, &want, hops)?;
                        // The walk may have ended.
                        let _ = tokens.send(hops);
                    }
                    (Message::Became(part), _) if ended => became.add(part)?,
                    (Message::Done(outcome), hops) if ended => {
                        self.hops = hops;
                        return Ok(outcome.joined(became));
                    }
                    (other, _) => return Err(other.out_of_turn()),
                },
            }
        }
    }

    fn answer(&mut self, giver: &mut Giver<'_>, want: &Want, hops: u16) -> Result<()> {
        let unknown =
            || Error::corrupt("reading a message", "a window is wanted that was not told");
        let hashes = self.windows.remove(&want.window).ok_or_else(unknown)?;
        let wanted = want.choose(&hashes).ok_or_else(unknown)?;
        let bytes = wanted.len() as u64 * u64::from(self.store.geometry().cluster_bytes);
        Progress::add(&self.progress.bytes_total, bytes);
        self.totals.clusters += wanted.len() as u64;
        if !self.give.dry_run && !wanted.is_empty() {
            let out = &mut self.out;
            let stored = &self.progress.bytes_stored;
            let mut send = |frame: EncodedFrame| {
                Progress::add(stored, frame.bytes.len() as u64);
                let (kind, payload) = Message::Frame(frame.bytes).encode();
                out.put(kind, hops, &payload)
            };
            giver.frames(wanted, None, &mut send, self.progress)?;
        }
        self.put(&Message::WindowEnd(want.window), hops)
    }

    fn put(&mut self, message: &Message, hops: u16) -> Result<()> {
        self.hops = self.hops.max(hops);
        let (kind, payload) = message.encode();
        self.out.put(kind, hops, &payload)
    }

    /// The next event; before waiting for one, all that was written goes out.
    fn event(&mut self) -> Result<Event> {
        match self.next.try_recv() {
            Ok(event) => Ok(event),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                self.out.flush()?;
                ahead::wait(&self.next, self.progress)
            }
        }
    }

    /// A message of the receiver; one that says that it failed is an error.
    fn message(&mut self, got: Got) -> Result<(Message, u16)> {
        self.asked_bytes = got.bytes;
        match got.item {
            Item::Message(Message::Failed(failed)) => Err(failed.error()),
            Item::Message(message) => Ok((message, got.hops)),
            Item::Frame(_) => Err(Error::corrupt(
                "reading a message",
                "the receiver sends a frame",
            )),
        }
    }

    /// Tells the receiver; what it said last explains a pipe that broke.
    fn failed(&mut self, error: Error) -> Error {
        let (kind, payload) = Message::Failed(Failed::of(&error)).encode();
        let told = self
            .out
            .put(kind, self.hops, &payload)
            .and_then(|()| self.out.flush());
        if told.is_ok() && error.kind() != ErrorKind::Io {
            return error;
        }
        // Not for ever: where only one direction broke, the receiver may wait for us.
        let rest = std::iter::from_fn(|| ahead::wait_briefly(&self.next));
        let words = self
            .late
            .take()
            .or_else(|| rest.take(LATE_MAX).find_map(Event::last_words));
        match words {
            Some(LastWords::Failed(failed)) => failed.error(),
            Some(LastWords::Cut) | None => error,
        }
    }
}

/// How the receiver's stream ended.
enum LastWords {
    Failed(Failed),
    Cut,
}

fn last_words(got: Result<Got>) -> Option<LastWords> {
    match got {
        Err(_) => Some(LastWords::Cut),
        Ok(Got {
            item: Item::Message(Message::Failed(failed)),
            ..
        }) => Some(LastWords::Failed(failed)),
        Ok(_) => None,
    }
}

/// Tells all contents, a window a permit.
fn walk(
    trees: &Trees<'_>,
    (steps, window_max): (&[Step], usize),
    (permits, hops): (&Receiver<u16>, u16),
    events: &SyncSender<Event>,
) {
    let gone = || Error::new(ErrorKind::Cancelled, "telling what is to be sent");
    let mut hops = hops;
    let told = tell_contents(trees, steps, window_max, &mut |message| {
        if matches!(message, Message::Edits(_)) {
            let permit = permits.recv().map_err(|_| gone())?;
            hops = hops.max(permit);
        }
        events.send(Event::Tell(message, hops)).map_err(|_| gone())
    });
    // Nobody listens where the other end failed first.
    let _ = events.send(Event::Told(told));
}
