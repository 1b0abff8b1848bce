//! Filling the index with a million places, side by side with sled's own sorted insert of as many pairs of the same
//! size. Prints both rates and their ratio, medians of the rounds: `cargo bench --bench index`.

use std::path::Path;
use std::time::Instant;
use stillpoint_store::id::{Hash, PackName, PackNumber, SessionId, Uid};
use stillpoint_store::index::slot::LocalSlots;
use stillpoint_store::index::{IndexHome, Key, key_of};

const PLACES: u64 = 1_000_000;
/// About what a pack of 24 MiB lists.
const PACK_PLACES: usize = 6_000;
const CACHE_BYTES: usize = 32 << 20;
const ROUNDS: usize = 5;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    // What cargo hands to every bench, such as --bench, is of no use here.
    let keys: Vec<Key> = (0..PLACES)
        .map(|n| key_of(&Hash::of(&n.to_le_bytes())))
        .collect();
    let (mut ours, mut sleds) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(rate(&|folder| fill_index(folder, &keys))?);
        sleds.push(rate(&|folder| fill_sled(folder, &keys))?);
    }
    let (ours, sleds) = (median(ours), median(sleds));
    println!(
        "index: {ours:.0} places/s; sled, sorted: {sleds:.0} pairs/s; {:.2}",
        ours / sleds
    );
    Ok(())
}

fn rate(fill: &dyn Fn(&Path) -> Result<()>) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let began = Instant::now();
    fill(folder.path())?;
    Ok(PLACES as f64 / began.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Packs come in the order in which they were made, each with its keys sorted; keys of all packs lie all over.
fn fill_index(folder: &Path, keys: &[Key]) -> Result<()> {
    let slots = LocalSlots::new(folder, Uid([7; 16]), CACHE_BYTES);
    let (index, _) = slots.open()?.ok_or("no slot is free")?;
    index.expect_many(true);
    for (n, pack) in (0..).zip(keys.chunks(PACK_PLACES)) {
        let session = SessionId {
            opened_at: 1,
            nonce: 1,
        };
        let mut places: Vec<(Key, u32)> = pack.iter().copied().zip(0..).collect();
        places.sort_unstable();
        index.insert_pack(PackNumber(n), &PackName { session, n }, &places)?;
    }
    index.flush()?;
    Ok(())
}

/// The best that sled can be given: all keys in order, in batches, one flush.
fn fill_sled(folder: &Path, keys: &[Key]) -> Result<()> {
    let db: sled::Db<1024> = sled::Config::new()
        .path(folder.join("sled"))
        .cache_capacity_bytes(CACHE_BYTES)
        .flush_every_ms(None)
        .open()?;
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    for chunk in keys.chunks(10_000) {
        let mut batch = sled::Batch::default();
        for key in chunk {
            batch.insert(&key[..], &key[..8]);
        }
        db.apply_batch(batch)?;
    }
    db.flush()?;
    Ok(())
}
