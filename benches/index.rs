//! What it costs to find an event's subscribers, where many wait and few want it, beside one
//! subscriber alone and beside asking each of them.
//!
//!     cargo bench --bench index

use criterion::{Criterion, criterion_group, criterion_main};
use walmill::server::fanout::Index;

#[path = "workloads/subscribers.rs"]
mod subscribers;

use subscribers::{CUSTOMERS, event, filter, many};

fn index(subscribers: impl IntoIterator<Item = usize>) -> Index {
    let mut index = Index::default();
    subscribers
        .into_iter()
        .for_each(|customer| index.insert(&filter(&format!("customer=eq.{customer}")), customer));
    index
}

fn fanout(c: &mut Criterion) {
    let event = event();
    let mut found = Vec::new();
    let mut one = index([4711]);
    c.bench_function("one subscriber, who matches", |b| {
        b.iter(|| one.find(&event, &mut found).map(<[usize]>::len));
    });
    let mut all = index(0..CUSTOMERS);
    assert_eq!(all.find(&event, &mut found), Some(&[4711][..]));
    c.bench_function("10,000 subscribers, of whom one matches", |b| {
        b.iter(|| all.find(&event, &mut found).map(<[usize]>::len));
    });
    let mut many = many();
    assert_eq!(many.find(&event, &mut found).map(<[usize]>::len), Some(10));
    c.bench_function("100,000 subscribers, of whom ten match", |b| {
        b.iter(|| many.find(&event, &mut found).map(<[usize]>::len));
    });
    let mut alone: Vec<Index> = (0..CUSTOMERS).map(|customer| index([customer])).collect();
    c.bench_function("10,000 subscribers, each asked", |b| {
        b.iter(|| {
            let asked =
                alone.iter_mut().map(|own| own.find(&event, &mut found).map(<[usize]>::len));
            asked.flatten().sum::<usize>()
        });
    });
}

criterion_group!(benches, fanout);
criterion_main!(benches);
