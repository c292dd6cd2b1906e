//! What a row costs on each part of its way: decoding, encoding, a plugin, finding its readers; and
//! the store, with its disk.
//!
//!     scripts/build-plugins
//!     WALMILL_PLUGINS=target/plugins cargo bench --bench rows

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use walmill::model::{EventsBuilder, Lsn, Offset};
use walmill::store::Outcome;

mod workloads;

fn rows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rows");
    group.sample_size(20).throughput(Throughput::Elements(workloads::ROWS as u64));
    for (name, ready) in workloads::WORKLOADS {
        let Some(mut round) = ready() else { continue };
        group.bench_function(name, |bencher| bencher.iter(&mut round));
    }
    let mut store = store();
    // It grows with every round.
    group.sample_size(10).measurement_time(Duration::from_secs(1));
    group.bench_function("store", |bencher| bencher.iter(&mut store));
    group.finish();
}

/// Events into a stream, and the pipeline's cursor with them, in commits of a thousand; the syncs
/// are others' work.
fn store() -> workloads::Round {
    const IN_COMMIT: usize = 1_000;
    let (folder, store) = workloads::open_store();
    let (event, mut commit) = (workloads::subscribers::event(), 0);
    Box::new(move || {
        let _kept = &folder;
        for _ in 0..workloads::ROWS / IN_COMMIT {
            commit += 1;
            let mut events = EventsBuilder::default();
            for ordinal in 0..IN_COMMIT as u32 {
                let offset = Offset::new(Lsn(commit), ordinal);
                let (key, json) = (&event.key, &event.json);
                events.push(offset, |out| out.extend(key), |out| out.extend_from_slice(json));
            }
            let outcome = Outcome {
                pipeline: "people".into(),
                cursor: Offset::end_of(Lsn(commit)),
                events: vec![("people".into(), events.finish())],
                ..Outcome::default()
            };
            store.commit(outcome).expect("a store that takes it");
        }
    })
}

criterion_group!(benches, rows);
criterion_main!(benches);
