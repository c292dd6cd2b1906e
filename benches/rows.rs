//! What a row costs on each part of its way: decoding, encoding, a plugin, finding its readers; and
//! the store, with its disk.
//!
//!     scripts/build-plugins
//!     WALMILL_PLUGINS=target/plugins cargo bench --bench rows

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

mod workloads;

fn rows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rows");
    group.sample_size(20).throughput(Throughput::Elements(workloads::ROWS as u64));
    for (name, ready) in workloads::WORKLOADS {
        let Some(mut round) = ready() else { continue };
        group.bench_function(name, |bencher| bencher.iter(&mut round));
    }
    let mut store = workloads::store();
    // It grows with every round.
    group.sample_size(10).measurement_time(Duration::from_secs(1));
    group.bench_function("store", |bencher| bencher.iter(&mut store));
    group.finish();
}

criterion_group!(benches, rows);
criterion_main!(benches);
