//! A message of a sync: its first byte the kind, the rest what it says. One message has one encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint_migrate::wire::Message;
use stillpoint_migrate::wire::stream::Raw;
use stillpoint_store::id::Hash;

fuzz_target!(|data: &[u8]| {
    let Some((kind, payload)) = data.split_first() else {
        return;
    };
    let raw = Raw {
        kind: *kind,
        hops: 0,
        payload: payload.to_vec(),
    };
    let Ok(message) = Message::decode(raw) else {
        return;
    };
    assert_eq!(message.encode(), (*kind, payload.to_vec()));
    match message {
        Message::Want(want) => {
            let hashes = vec![Hash([1; 32]); want.mask.len() * 8];
            assert!(want.choose(&hashes).is_some());
        }
        Message::Edits(edits) => assert!(edits.hashes().len() <= edits.runs.len()),
        Message::Failed(failed) => drop(failed.error()),
        _ => {}
    }
});
