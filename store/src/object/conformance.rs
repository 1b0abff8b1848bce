//! What every implementation of the object port does, as a suite: run it on a new one before trusting it.
//!
//! It panics with what is wrong. A failure of the port itself is returned.

use super::{Local, Objects, Purse, Put, get_exact, get_whole};
use crate::error::{ErrorKind, Result};
use crate::id::SessionId;

/// Checks objects on an empty store.
///
/// # Panics
/// With what is wrong.
pub fn check_objects(store: &dyn Objects) -> Result<()> {
    bytes_come_back_whole_and_in_part(store)?;
    what_is_not_there_is_not_found(store)?;
    a_key_is_won_once(store)?;
    lists_are_sorted_and_know_where_to_start(store)?;
    deleting_is_final_and_can_be_repeated(store)?;
    one_of_many_threads_wins(store)
}

fn bytes_come_back_whole_and_in_part(store: &dyn Objects) -> Result<()> {
    let long: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let parts: [&[u8]; 4] = [b"head", b"", &long, b"tail"];
    let whole = parts.concat();
    let key = "packs/s-1/000000";
    assert_eq!(store.put_new(key, &parts, Purse::Reserve)?, Put::Created);
    store.sync("packs/s-1")?;
    assert_eq!(store.size(key)?, whole.len() as u64);
    assert_eq!(get_whole(store, key, u64::MAX)?, whole);
    let mut buf = vec![0; 1000];
    assert_eq!(store.get(key, 3, &mut buf)?, 1000);
    assert_eq!(buf, whole[3..1003]);
    let end = whole.len() as u64;
    assert_eq!(
        store.get(key, end - 7, &mut buf)?,
        7,
        "reads stop at the end"
    );
    assert_eq!(buf[..7], whole[whole.len() - 7..]);
    assert_eq!(store.get(key, end, &mut buf)?, 0);
    assert_eq!(store.get(key, end + 5, &mut buf)?, 0);
    let short = get_exact(store, key, end - 7, &mut buf).expect_err("it ends before");
    assert_eq!(short.kind(), ErrorKind::Corrupt);
    let large = get_whole(store, key, end - 1).expect_err("over the limit");
    assert_eq!(large.kind(), ErrorKind::LimitExceeded);
    assert_eq!(store.put_new("log/empty", &[], Purse::Free)?, Put::Created);
    assert_eq!(store.size("log/empty")?, 0);
    assert_eq!(
        store.put_new("store.json", &[b"{}"], Purse::Free)?,
        Put::Created
    );
    store.sync("")?;
    assert_eq!(get_whole(store, "store.json", 2)?, b"{}");
    Ok(())
}

fn what_is_not_there_is_not_found(store: &dyn Objects) -> Result<()> {
    for key in ["log/none", "none", "packs/none/000000"] {
        let error = store.get(key, 0, &mut [0]).expect_err("nothing there");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{key}");
        let error = store.size(key).expect_err("nothing there");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{key}");
    }
    assert!(store.list_after("packs/none", "")?.is_empty());
    assert!(store.list_folders("none")?.is_empty());
    store.sync("packs/none")
}

fn a_key_is_won_once(store: &dyn Objects) -> Result<()> {
    assert_eq!(
        store.put_new("log/won", &[b"first"], Purse::Free)?,
        Put::Created
    );
    assert_eq!(
        store.put_new("log/won", &[b"second"], Purse::Reserve)?,
        Put::Exists
    );
    assert_eq!(get_whole(store, "log/won", 10)?, b"first");
    Ok(())
}

fn lists_are_sorted_and_know_where_to_start(store: &dyn Objects) -> Result<()> {
    for name in ["3", "1", "20", "2"] {
        store.put_new(&format!("checkpoint/{name}"), &[b"x"], Purse::Free)?;
    }
    assert_eq!(store.list_after("checkpoint", "")?, ["1", "2", "20", "3"]);
    assert_eq!(store.list_after("checkpoint", "2")?, ["20", "3"]);
    assert_eq!(store.list_after("checkpoint", "19")?, ["2", "20", "3"]);
    assert!(store.list_after("checkpoint", "3")?.is_empty());
    store.put_new("packs/s-0/000001", &[b"x"], Purse::Free)?;
    store.put_new("packs/s-0/000000", &[b"x"], Purse::Free)?;
    assert_eq!(store.list_folders("packs")?, ["s-0", "s-1"]);
    assert_eq!(store.list_after("packs/s-0", "")?, ["000000", "000001"]);
    assert!(store.list_folders("checkpoint")?.is_empty());
    Ok(())
}

fn deleting_is_final_and_can_be_repeated(store: &dyn Objects) -> Result<()> {
    for key in ["packs/s-0/000000", "packs/s-0/000001"] {
        store.delete(key)?;
        store.delete(key)?;
        let error = store.size(key).expect_err("deleted");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    store.sync("packs/s-0")?;
    assert!(store.list_after("packs/s-0", "")?.is_empty());
    assert_eq!(
        store.put_new("packs/s-0/000002", &[b"again"], Purse::Free)?,
        Put::Created
    );
    store.sync("packs/s-0")?;
    assert_eq!(get_whole(store, "packs/s-0/000002", 10)?, b"again");
    Ok(())
}

fn one_of_many_threads_wins(store: &dyn Objects) -> Result<()> {
    for round in 0..20 {
        let key = format!("log/race-{round}");
        let put = |byte: u8| store.put_new(&key, &[&[byte; 5000]], Purse::Free);
        let puts: Vec<Result<Put>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|byte| scope.spawn(move || put(byte))).collect();
            threads
                .into_iter()
                .map(|t| t.join().expect("no panic in a put"))
                .collect()
        });
        let puts = puts.into_iter().collect::<Result<Vec<_>>>()?;
        let winners: Vec<usize> = (0..4).filter(|n| puts[*n] == Put::Created).collect();
        assert_eq!(winners.len(), 1, "{puts:?}");
        assert_eq!(get_whole(store, &key, 5000)?, [winners[0] as u8; 5000]);
    }
    Ok(())
}

/// Checks leases and notes of two processes' handles on one store.
///
/// # Panics
/// With what is wrong.
pub fn check_local(one: &dyn Local, two: &dyn Local) -> Result<()> {
    let session = SessionId {
        opened_at: 7,
        nonce: 1,
    };
    let other = SessionId {
        opened_at: 7,
        nonce: 2,
    };
    let held = one.hold(session)?.expect("nobody has it");
    assert!(two.hold(session)?.is_none(), "one has it");
    assert!(one.hold(session)?.is_none(), "also against oneself");
    let free = two.hold(other)?.expect("another session");
    drop(held);
    let held = two.hold(session)?.expect("given back");
    two.forget(session)?;
    drop(held);
    drop(free);
    one.forget(session)?;
    let again = one.hold(session)?.expect("forgotten");
    assert!(two.hold(session)?.is_none());
    drop(again);

    assert_eq!(one.note("verified"), None);
    one.put_note("verified", b"1")?;
    two.put_note("verified", b"two")?;
    two.put_note("other", b"")?;
    assert_eq!(one.note("verified").as_deref(), Some(&b"two"[..]));
    assert_eq!(one.note("other").as_deref(), Some(&b""[..]));
    Ok(())
}
