//! Selectors: `NAME`, `name:NAME`, `id:ID` and `id:ID,name:NAME` for a snapshot, `DEVICE[@SNAPSHOT]` for one of a device. A
//! bare word is always a name, so that a snapshot called `3` and the one with id 3 are never mixed up.

use crate::view::text;
use std::fmt;
use std::sync::Arc;
use stillpoint_store::catalog::{Catalog, DeviceState, SnapshotState};
use stillpoint_store::id::Uid;
use stillpoint_store::{Error, ErrorKind, Result};

/// Which snapshot of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// By name.
    Name(String),
    /// By id.
    Id(String),
    /// By both: the snapshot with that id, if it also has that name.
    Both {
        /// The id.
        id: String,
        /// The name.
        name: String,
    },
}

/// A device and, perhaps, one of its snapshots; without, its present contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRef {
    /// The device's name.
    pub device: String,
    /// Which snapshot.
    pub snapshot: Option<Selector>,
}

impl Selector {
    /// Reads `NAME`, `name:NAME`, `id:ID` or `id:ID,name:NAME`. An id that has `,name:` in it cannot be written so.
    pub fn parse(text: &str) -> Result<Self> {
        let nothing = || {
            let why = format!("{text:?} names nothing");
            Error::invalid("reading a snapshot selector", why)
        };
        let full = |word: &str| Some(word.to_owned()).filter(|w| !w.is_empty());
        if let Some(rest) = text.strip_prefix("id:") {
            let Some((id, name)) = rest.split_once(",name:") else {
                return full(rest).map(Self::Id).ok_or_else(nothing);
            };
            let both = full(id).zip(full(name));
            return both
                .map(|(id, name)| Self::Both { id, name })
                .ok_or_else(nothing);
        }
        let name = text.strip_prefix("name:").unwrap_or(text);
        full(name).map(Self::Name).ok_or_else(nothing)
    }

    /// Whether it means this snapshot.
    pub fn is(&self, snapshot: &SnapshotState) -> bool {
        match self {
            Self::Name(name) => snapshot.record.name == name.as_bytes(),
            Self::Id(id) => snapshot.record.id == id.as_bytes(),
            Self::Both { id, name } => {
                snapshot.record.id == id.as_bytes() && snapshot.record.name == name.as_bytes()
            }
        }
    }

    /// The one snapshot of the device that it means. Several, which imports can bring, are an error that says how to
    /// choose.
    pub fn find<'c>(
        &self,
        catalog: &'c Catalog,
        device: &DeviceState,
    ) -> Result<Option<&'c SnapshotState>> {
        let all = catalog.snapshots_of(&device.uid);
        let mut found = all.iter().filter(|s| self.is(s));
        let first = found.next();
        if let (Some(first), Some(second)) = (first, found.next()) {
            let why = format!("device {:?} has several such snapshots", device.name);
            return Err(Error::invalid(format!("looking for snapshot {self}"), why)
                .hint(how_to_choose(&all, [second, first], &device.name)));
        }
        Ok(first.map(|s| &***s))
    }

    /// The same, where there must be one.
    pub fn get<'c>(&self, catalog: &'c Catalog, device: &DeviceState) -> Result<&'c SnapshotState> {
        self.find(catalog, device)?.ok_or_else(|| {
            let why = format!("device {:?} has no such snapshot", device.name);
            let hint = "`still list` shows what there is";
            Error::new(ErrorKind::NotFound, format!("looking for snapshot {self}"))
                .detail(why)
                .hint(hint)
        })
    }
}

/// How to mean one of the two, of which the second was made first, and nothing else.
fn how_to_choose(
    all: &[&Arc<SnapshotState>],
    two: [&Arc<SnapshotState>; 2],
    device: &str,
) -> String {
    let words = two.map(|s| (text(&s.record.id), text(&s.record.name)));
    let by_id = words.clone().map(|(id, _)| format!("id:{id}"));
    let by_both = words.map(|(id, name)| format!("id:{id},name:{name}"));
    let means_one = |word: &&String| {
        let is_one = |s: Selector| all.iter().filter(|a| s.is(a)).count() == 1;
        Selector::parse(word).is_ok_and(is_one)
    };
    match by_id.iter().chain(&by_both).find(means_one) {
        Some(word) if word.contains(",name:") => format!("choose by id and name, as in {word}"),
        Some(word) => format!("choose by id, as in {word}"),
        None => {
            format!(
                "their ids and names are equal: `still qemu-img snapshot -d NAME {device}` deletes the first one"
            )
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name:?}"),
            Self::Id(id) => write!(f, "id:{id}"),
            Self::Both { id, name } => write!(f, "id:{id},name:{name}"),
        }
    }
}

impl SnapshotRef {
    /// Reads `DEVICE` or `DEVICE@SNAPSHOT`.
    pub fn parse(text: &str) -> Result<Self> {
        let (device, snapshot) = match text.split_once('@') {
            Some((device, snapshot)) => (device, Some(Selector::parse(snapshot)?)),
            None => (text, None),
        };
        if device.is_empty() {
            return Err(Error::invalid(
                "reading a selector",
                format!("{text:?} names no device"),
            ));
        }
        Ok(Self {
            device: device.into(),
            snapshot,
        })
    }
}

/// The device of that name.
pub fn device<'c>(catalog: &'c Catalog, name: &str) -> Result<&'c DeviceState> {
    catalog.device_named(name).map(|d| &**d).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("looking for device {name:?}"))
            .detail("there is none of that name")
            .hint("`still device list` shows all")
    })
}

/// The device of that uid, whose name was this when somebody took hold of it.
pub(crate) fn device_of_uid<'c>(
    catalog: &'c Catalog,
    uid: Uid,
    name: &str,
) -> Result<&'c DeviceState> {
    let found = catalog.device(&uid).map(|d| &**d);
    found.ok_or_else(|| other(name))
}

/// A device that was removed, whether or not there is another of its name.
pub(crate) fn other(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("looking for device {name:?}"))
        .detail("it was removed; one that has its name now is another")
        .hint("`still device list` shows all")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_word_is_a_name_whatever_it_looks_like() {
        assert_eq!(Selector::parse("3").unwrap(), Selector::Name("3".into()));
        assert_eq!(
            Selector::parse("name:3").unwrap(),
            Selector::Name("3".into())
        );
        assert_eq!(Selector::parse("id:3").unwrap(), Selector::Id("3".into()));
        assert_eq!(
            Selector::parse("name:id:3").unwrap(),
            Selector::Name("id:3".into())
        );
        let both = Selector::parse("id:3,name:a,name:b").unwrap();
        let (id, name) = ("3".to_owned(), "a,name:b".to_owned());
        assert_eq!(both, Selector::Both { id, name });
        assert!(Selector::parse("id:,name:a").is_err());
        assert!(Selector::parse("id:3,name:").is_err());
        assert!(Selector::parse("id:").is_err());
        assert!(Selector::parse("").is_err());
    }

    #[test]
    fn a_reference_has_a_device_and_perhaps_a_snapshot() {
        let all = SnapshotRef::parse("root@id:2").unwrap();
        assert_eq!(
            (all.device.as_str(), all.snapshot),
            ("root", Some(Selector::Id("2".into())))
        );
        assert_eq!(SnapshotRef::parse("root").unwrap().snapshot, None);
        assert!(SnapshotRef::parse("@x").is_err());
        assert!(SnapshotRef::parse("root@").is_err());
    }
}
