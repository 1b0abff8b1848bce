//! What snapshots of a group are called: names, ids, and the records that they are in.

use crate::create::{Locked, Taken};
use std::collections::BTreeMap;
use stillpoint_store::catalog::Catalog;
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::id::Uid;
use stillpoint_store::log::salvage::DEVICE_LABEL;
use stillpoint_store::world::Moment;
use stillpoint_store::{Error, ErrorKind, Result};

/// What the snapshots of a group share.
pub(crate) struct Draft {
    pub name: String,
    /// The name was not asked for: where it is taken, a number follows it.
    pub generated: bool,
    pub date: Moment,
    pub group: Option<Uid>,
    pub vm_clock_nsec: u64,
    pub icount: Option<u64>,
}

impl Draft {
    /// A record a device, with the ids that the state gives.
    pub fn records(
        &self,
        catalog: &Catalog,
        devices: &[Locked],
        uids: &[Uid],
        taken: &[Taken],
    ) -> Result<Vec<SnapshotRecord>> {
        let name = check_free(catalog, devices, &self.name, self.generated)?;
        let record = |((d, uid), t): ((&Locked, &Uid), &Taken)| SnapshotRecord {
            uid: *uid,
            device: d.uid,
            id: native_id(catalog, &d.uid),
            name: name.clone().into_bytes(),
            date_sec: self.date.sec,
            date_nsec: self.date.nsec,
            vm_clock_nsec: self.vm_clock_nsec,
            icount: self.icount,
            vm_state: t.vm_state.map(|vm| vm.content),
            content: t.disk.content,
            group: self.group,
            parent: d.parent_uid,
            extra: Vec::new(),
            labels: BTreeMap::from([(DEVICE_LABEL.into(), d.name.clone())]),
        };
        Ok(devices.iter().zip(uids).zip(taken).map(record).collect())
    }
}

/// Unlike QEMU's, no two of a device's snapshots get the same.
fn native_id(catalog: &Catalog, device: &Uid) -> Vec<u8> {
    let free = catalog.free_ids(device, &[]).next();
    // There are more numbers than snapshots.
    free.unwrap_or(u64::MAX).to_string().into_bytes()
}

/// The name, or the first free one made of it, if none of the devices has a snapshot of that name.
pub(crate) fn check_free(
    catalog: &Catalog,
    devices: &[Locked],
    name: &str,
    generated: bool,
) -> Result<String> {
    let taken = |name: &str| {
        let has = |d: &&Locked| {
            catalog
                .snapshots_of(&d.uid)
                .iter()
                .any(|s| s.record.name == name.as_bytes())
        };
        devices.iter().find(has)
    };
    let Some(device) = taken(name) else {
        return Ok(name.into());
    };
    if generated {
        return (2..u32::MAX)
            .map(|n| format!("{name}-{n}"))
            .find(|name| taken(name).is_none())
            .ok_or_else(|| Error::invalid("naming a snapshot", "no name is free"));
    }
    Err(Error::new(
        ErrorKind::AlreadyExists,
        format!("making snapshot {name:?}"),
    )
    .detail(format!("device {:?} has one of that name", device.name))
    .hint("choose another name, or delete that one first"))
}

/// `20261121-024500` for the moment, in UTC.
pub(crate) fn name_of(moment: Moment) -> String {
    let (days, seconds) = (moment.sec / 86_400, moment.sec % 86_400);
    let (year, month, day) = civil(days.cast_signed());
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}-{h:02}{m:02}{s:02}")
}

/// Year, month and day of a day counted from 1970, in the Gregorian calendar.
/// Years begin in March here, so that the leap day is a year's last.
pub fn civil(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468); // from 0000-03-01
    let era = days.div_euclid(146_097); // 400 years
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_the_time_in_utc() {
        assert_eq!(name_of(Moment { sec: 0, nsec: 0 }), "19700101-000000");
        assert_eq!(
            name_of(Moment {
                sec: 1_709_251_199,
                nsec: 0
            }),
            "20240229-235959"
        );
    }
}
