use std::path::Path;
use std::time::Instant;
use stillpoint_api::store::geometry::{Compression, Geometry};
use stillpoint_api::store::progress::Progress;
use stillpoint_api::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let kb = |s: &str| s.parse::<u32>().unwrap() << 10;
    let store = Path::new(&a[1]);
    let g = Geometry {
        cluster_bytes: kb(&a[2]),
        frame_bytes: kb(&a[3]),
        compression: Compression::Zstd(a[4].parse().unwrap()),
    };
    System::init(store, g).unwrap();
    let p = Progress::default();
    for (n, img) in a[5..].iter().enumerate() {
        let s = System::open(
            store,
            OpenOptions {
                say: std::sync::Arc::new(|l| eprintln!("{l}")),
                ..OpenOptions::default()
            },
        )
        .unwrap();
        let name = format!("d{}", n);
        s.device_add(&name, Path::new(img), "raw", false).unwrap();
        let t = Instant::now();
        let c = s
            .create(
                &Create {
                    name: Some("one".into()),
                    devices: vec![name.clone()],
                    changed: None,
                },
                &p,
            )
            .unwrap();
        println!(
            "create {img} {:.3} {:?}",
            t.elapsed().as_secs_f64(),
            c.devices[0].counts
        );
    }
    let s = System::open(store, OpenOptions::default()).unwrap();
    let t = Instant::now();
    s.create(
        &Create {
            name: Some("again".into()),
            devices: vec!["d0".into()],
            changed: None,
        },
        &p,
    )
    .unwrap();
    println!("again {:.3}", t.elapsed().as_secs_f64());
    let out = store.with_extension("out");
    let _ = std::fs::remove_file(&out);
    let t = Instant::now();
    s.export("d0@one", Output::File(&out), &p).unwrap();
    println!("export {:.3}", t.elapsed().as_secs_f64());
    let t = Instant::now();
    assert!(s.store().verify(&p).unwrap().is_good());
    println!("verify {:.3}", t.elapsed().as_secs_f64());
    let _ = std::fs::remove_file(&out);
}
