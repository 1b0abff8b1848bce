//! Streams of a good sender in which messages are changed, dropped, doubled and swapped, their checksums right.

use crate::host::{Dice, GEOMETRY, Host, disk};
use stillpoint_migrate::bundle::{Receive, receive};
use stillpoint_migrate::sync::{Take, take};
use stillpoint_migrate::wire::stream::Raw;
use stillpoint_migrate::wire::{Consent, Incoming, Message, Outgoing, Preamble, Purpose};
use stillpoint_store::id::Uid;
use stillpoint_store::progress::Progress;

/// Three disks, one told as changes of another, one with VM state.
fn messages() -> Vec<Raw> {
    let host = Host::new(1);
    let mut bytes = disk(0..40);
    host.save("d", "one", &bytes);
    bytes[4096..8192].copy_from_slice(&disk([700]));
    host.save_with("d", "two", &bytes, Some(&disk(3..9)));
    host.save("e", "small", &disk([5]));
    let bundle = host.send(&["d@one", "d@two", "e@small"], &[]);
    let (_, mut incoming) = Incoming::begin(&bundle[..]).unwrap();
    let mut all = Vec::new();
    while all.last().is_none_or(|raw: &Raw| raw.kind != 13) {
        all.push(incoming.read().unwrap());
    }
    all
}

/// The same as a sync has them: frames behind the changes that name their clusters.
fn as_sync(bundle: &[Raw]) -> Vec<Raw> {
    let mut all = Vec::new();
    let mut frames = Vec::new();
    for raw in bundle {
        match raw.kind {
            10 => frames.push(raw.clone()),
            8 => {
                all.push(raw.clone());
                all.append(&mut frames);
                let (kind, payload) = Message::WindowEnd(window(raw)).encode();
                let hops = 0;
                all.push(Raw {
                    kind,
                    hops,
                    payload,
                });
            }
            _ => all.push(raw.clone()),
        }
    }
    all
}

fn window(edits: &Raw) -> u32 {
    u32::from_le_bytes(edits.payload[..4].try_into().unwrap())
}

fn mutate(messages: &mut Vec<Raw>, dice: &mut Dice) {
    let at = |dice: &mut Dice, len: usize| dice.roll() as usize % len.max(1);
    for _ in 0..=dice.roll() % 2 {
        let (i, j) = (at(dice, messages.len()), at(dice, messages.len()));
        match dice.roll() % 6 {
            0 => drop(messages.remove(i)),
            1 => messages.insert(j, messages[i].clone()),
            2 => messages.swap(i, j),
            _ if messages[i].payload.is_empty() => messages[i].kind = dice.roll() as u8 % 17,
            _ => {
                let len = messages[i].payload.len();
                let byte = at(dice, len.min(200));
                messages[i].payload[byte] ^= 1 << (dice.roll() % 8);
            }
        }
    }
}

fn stream(purpose: Purpose, messages: &[Raw]) -> Vec<u8> {
    let preamble = Preamble {
        purpose,
        store: Uid([1; 16]),
        id: Uid([2; 16]),
        geometry: GEOMETRY,
    };
    let mut bytes = Vec::new();
    let mut out = Outgoing::begin(&mut bytes, &preamble).unwrap();
    for raw in messages {
        out.put(raw.kind, raw.hops, &raw.payload).unwrap();
    }
    bytes
}

/// Takes the stream; what is there afterwards is whole, and after an error it is what was there before.
fn check(to: &Host, purpose: Purpose, stream: Vec<u8>) -> bool {
    let before = to.records();
    let from = std::io::Cursor::new(stream);
    let idle = Progress::default();
    let taken = if purpose == Purpose::Bundle {
        receive(to.store(), &Receive::default(), from, &idle).is_ok()
    } else {
        let any = Take {
            consent: Consent::Any,
            ..Take::default()
        };
        take(to.store(), any, from, std::io::sink(), &idle).is_ok()
    };
    assert_eq!(to.catalog().sessions().count(), 0);
    assert!(taken || to.records() == before);
    to.verify();
    taken
}

#[test]
fn streams_changed_at_random_leave_nothing_that_cannot_be_read() {
    let bundle = messages();
    let sync = as_sync(&bundle);
    let mut dice = Dice::new(17);
    let mut taken = [0; 2];
    for (nth, (purpose, good)) in [(Purpose::Bundle, bundle), (Purpose::Sync, sync)]
        .into_iter()
        .enumerate()
    {
        let host = Host::new(9);
        assert!(check(&host, purpose, stream(purpose, &good)));
        // Into an empty store, and into one that has it all.
        for round in 0..600 {
            let mut bad = good.clone();
            mutate(&mut bad, &mut dice);
            let empty = Host::new(2);
            let to = if round % 2 == 0 { &empty } else { &host };
            taken[nth] += u32::from(check(to, purpose, stream(purpose, &bad)));
        }
        assert!(taken[nth] < 300, "{} of 600 were taken", taken[nth]);
        let all = stillpoint_store::ops::gc::Options {
            all: true,
            dry_run: false,
        };
        host.store().gc(all, &Progress::default()).unwrap();
        host.verify();
    }
}
