//! An image with its snapshots, and the layers of its chain if that is wanted, as a history that the engine takes in.

use super::disk::{Part, What};
use super::{Image, Kind, Link, Snapshot, State};
use crate::read_only::ReadOnly;
use crate::take::{LeftOut, Wanted};
use std::path::Path;
use stillpoint_store::disk::{DiskFile, Stamp};
use stillpoint_store::history::{Earlier, History, Ranges};
use stillpoint_store::limits::NAME_BYTES_MAX;
use stillpoint_store::world::Moment;
use stillpoint_store::{Error, Result};

/// What becomes of a backing chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ChainMode {
    /// Its bytes are part of every state.
    #[default]
    Flatten,
    /// Each file of it is a state of its own, named after the file.
    Snapshots,
}

/// States before one that are looked at for the one it shares most with.
const CANDIDATES: usize = 32;
/// L2 tables that are compared for that.
const SAMPLES: usize = 4;

/// See the module.
pub struct Past {
    image: Image,
    earlier: Vec<Earlier>,
    states: Vec<Place>,
}

/// Where a state is.
#[derive(Debug, Clone)]
enum Place {
    /// A file of the chain, below the image.
    Link(usize),
    /// A state of the image.
    Own(State),
}

impl Past {
    /// The wanted snapshots of an image, oldest first, and its active state; and what is not carried over.
    pub fn new(image: Image, wanted: &Wanted, chain: ChainMode) -> Result<(Self, Vec<LeftOut>)> {
        let table = image.top().snapshots();
        let chosen = wanted.choose(image.top().path(), table)?;
        let mut left_out = left_out(&image, chain);
        let unwanted = table.len() - chosen.len();
        if unwanted > 0 {
            let why = format!("{unwanted} of {} were not asked for", table.len());
            left_out.push(LeftOut::new("snapshots", why));
        }
        let (mut earlier, mut states) = (Vec::new(), Vec::new());
        if chain == ChainMode::Snapshots {
            for link in (1..image.links().len()).rev() {
                earlier.push(of_link(&image.links()[link], &earlier)?);
                states.push(Place::Link(link));
            }
        }
        for n in chosen {
            earlier.push(of_snapshot(&table[n], &mut left_out));
            states.push(Place::Own(image.snapshot(n)?));
        }
        states.push(Place::Own(image.active()?));
        let past = Self {
            image,
            earlier,
            states,
        };
        Ok((past, left_out))
    }

    fn state(&self, n: usize) -> Result<&Place> {
        self.states
            .get(n)
            .ok_or_else(|| Error::invalid("reading a qcow2 image", "it has no such state"))
    }

    /// Ranges that a state, or a file of the chain, has of its own, whatever is below.
    fn own(&self, place: &Place, below: u64) -> Ranges<'_> {
        let map = match place {
            Place::Own(state) => state.map(0..state.size()),
            Place::Link(link) => match &self.image.links()[*link] {
                Link::Qcow2(state) => state.map(0..state.size()),
                Link::Raw { len, .. } => return Box::new(std::iter::once(Ok(0..*len))),
            },
        };
        Box::new(map.filter_map(move |mapped| match mapped {
            // Past the end of what is below, zeros are not that file's holes.
            Ok(m) if m.kind == Kind::Unallocated => {
                (m.end() > below).then(|| Ok(m.start.max(below)..m.end()))
            }
            Ok(m) => Some(Ok(m.start..m.end())),
            Err(e) => Some(Err(e)),
        }))
    }
}

/// A file of the chain as a state.
fn of_link(link: &Link, before: &[Earlier]) -> Result<Earlier> {
    let stamp = match link {
        Link::Qcow2(state) => state.layer().stamp()?,
        Link::Raw { file, .. } => file.stamp()?,
    };
    Ok(name_of_file(Path::new(link.path()), &stamp, before))
}

/// A file of a chain as a state: named after the file, of the time when that was written.
pub(crate) fn name_of_file(path: &Path, stamp: &Stamp, before: &[Earlier]) -> Earlier {
    let nanos = u64::try_from(stamp.times.0).unwrap_or(0);
    let name = path.file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    let mut names = std::iter::once(name.clone()).chain((2..).map(|n| format!("{name}-{n}")));
    let free = |n: &String| before.iter().all(|e| e.name != n.as_bytes());
    let mut name = names.find(free).unwrap_or(name).into_bytes();
    name.truncate(NAME_BYTES_MAX);
    Earlier {
        id: Vec::new(),
        name,
        date: Moment {
            sec: nanos / 1_000_000_000,
            nsec: (nanos % 1_000_000_000) as u32,
        },
        vm_clock_nsec: 0,
        icount: None,
        extra: Vec::new(),
    }
}

fn of_snapshot(snapshot: &Snapshot, left_out: &mut Vec<LeftOut>) -> Earlier {
    const SECOND: u32 = 1_000_000_000;
    if snapshot.date_nsec >= SECOND {
        let name = String::from_utf8_lossy(&snapshot.name);
        let why = format!(
            "{name:?} has {} of them: cut to a second",
            snapshot.date_nsec
        );
        left_out.push(LeftOut::new("nanoseconds of a date", why));
    }
    Earlier {
        id: snapshot.id.clone(),
        name: snapshot.name.clone(),
        date: Moment {
            sec: u64::from(snapshot.date_sec),
            nsec: snapshot.date_nsec.min(SECOND - 1),
        },
        vm_clock_nsec: snapshot.vm_clock_nsec,
        icount: snapshot.icount,
        extra: snapshot.unknown_extra.clone(),
    }
}

/// What an image has that a store has no place for.
fn left_out(image: &Image, chain: ChainMode) -> Vec<LeftOut> {
    let top = image.top();
    let mut all = Vec::new();
    for bitmap in top.bitmaps() {
        let name = String::from_utf8_lossy(&bitmap.name).into_owned();
        all.push(LeftOut::new(
            "bitmap",
            format!("{name:?}: the next backup starts anew"),
        ));
    }
    if top.header().bitmaps.is_some() && !top.header().bitmaps_in_step {
        all.push(LeftOut::new(
            "bitmaps",
            "they are out of date in the image already",
        ));
    }
    for extension in &top.header().unknown_extensions {
        let why = format!("type {:#010x}, {} bytes", extension.id, extension.len);
        all.push(LeftOut::new("unknown header extension", why));
    }
    if top.header().corrupt {
        all.push(LeftOut::new(
            "mark of corruption",
            "QEMU found the image damaged; what could be read was taken",
        ));
    }
    if chain == ChainMode::Flatten && image.links().len() > 1 {
        let why = format!("{} files became one disk", image.links().len());
        all.push(LeftOut::new("backing chain", why));
    }
    for link in &image.links()[1..] {
        if let Link::Qcow2(state) = link {
            let count = state.layer().snapshots().len();
            if count > 0 {
                let why = format!("{count} in backing file {}", link.path());
                all.push(LeftOut::new("snapshots of a backing file", why));
            }
        }
    }
    all
}

impl History for Past {
    fn earlier(&self) -> &[Earlier] {
        &self.earlier
    }

    fn disk(&self, state: usize) -> Result<Box<dyn DiskFile + '_>> {
        let what = match self.state(state)? {
            Place::Link(link) => What::Link(*link),
            Place::Own(state) => What::Disk(state.clone()),
        };
        let image = &self.image;
        Ok(Box::new(ReadOnly(Part { image, what })))
    }

    fn vm_state(&self, state: usize) -> Result<Option<Box<dyn DiskFile + '_>>> {
        let image = &self.image;
        Ok(match self.state(state)? {
            Place::Own(state) if state.vm_state_size() > 0 => {
                let what = What::VmState(state.clone());
                Some(Box::new(ReadOnly(Part { image, what })))
            }
            _ => None,
        })
    }

    fn base(&self, state: usize) -> Result<Option<usize>> {
        let Place::Own(own) = self.state(state)? else {
            return Ok(state.checked_sub(1));
        };
        let first = state.saturating_sub(CANDIDATES);
        let mut best: Option<(u64, usize)> = None;
        for n in (first..state).rev() {
            if let Place::Own(other) = &self.states[n] {
                let distance = own.distance(other, SAMPLES)?;
                if best.is_none_or(|(least, _)| distance < least) {
                    best = Some((distance, n));
                }
            }
        }
        // The first state of the image itself stands on the file below it.
        Ok(best.map(|(_, n)| n).or(state.checked_sub(1)))
    }

    fn changes(&self, state: usize, base: usize) -> Result<Ranges<'_>> {
        let place = self.state(state)?;
        match (place, self.state(base)?) {
            (Place::Own(new), Place::Own(old)) => Ok(Box::new(new.changes(old)?)),
            (_, Place::Link(link)) => Ok(self.own(place, self.image.links()[*link].size())),
            (Place::Link(_), Place::Own(_)) => {
                let why = "files of the chain come before the image's own states";
                Err(Error::invalid("comparing states of an image", why))
            }
        }
    }

    fn check_unchanged(&self) -> Result<()> {
        self.image.check_unchanged()
    }
}
