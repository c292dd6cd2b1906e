//! What it costs to find an event's subscribers, where many wait and few want it, beside one
//! subscriber alone and beside asking each of them.
//!
//!     cargo bench --bench index

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use walmill::model::{EventRecord, Offset};
use walmill::server::fanout::Index;
use walmill::server::filter::Filter;

const SUBSCRIBERS: usize = 10_000;

fn event() -> EventRecord {
    let json = r#"{"specversion":"1.0","source":"/walmill/7/1","id":"0/1/0","type":"walmill.row.insert","subject":"public.orders/7","time":"2026-11-24T03:07:13.123456Z","datacontenttype":"application/json","lsn":"0/1","xid":"735","partitionkey":"public.orders/7","stream":"orders","data":{"schema":"public","table":"orders","op":"insert","key":{"id":7},"record":{"id":7,"customer":4711,"country":"NZ","status":"paid","total":129.90,"note":"leave it at the door, please","created":"2026-11-24T03:07:13.123456Z"},"old_record":null,"unchanged":[]}}"#;
    let key = Bytes::from_static(b"public.orders/7");
    EventRecord { offset: Offset::START, key, json: Bytes::from_static(json.as_bytes()) }
}

fn filter(customer: usize) -> Filter {
    Filter::read([format!("customer=eq.{customer}").as_str()], "filter").expect("a filter")
}

fn index(subscribers: impl IntoIterator<Item = usize>) -> Index {
    let mut index = Index::default();
    subscribers.into_iter().for_each(|customer| index.insert(&filter(customer), customer));
    index
}

fn fanout(c: &mut Criterion) {
    let event = event();
    let mut found = Vec::new();
    let mut one = index([4711]);
    c.bench_function("one subscriber, who matches", |b| {
        b.iter(|| one.find(&event, &mut found).map(<[usize]>::len));
    });
    let mut all = index(0..SUBSCRIBERS);
    assert_eq!(all.find(&event, &mut found), Some(&[4711][..]));
    c.bench_function("10,000 subscribers, of whom one matches", |b| {
        b.iter(|| all.find(&event, &mut found).map(<[usize]>::len));
    });
    // Ten subscribers for each of ten thousand customers; half of them have a second condition.
    let mut many = Index::default();
    for subscriber in 0..10 * SUBSCRIBERS {
        let customer = subscriber / 10;
        let text = match subscriber % 2 {
            0 => format!("customer=eq.{customer}"),
            _ => format!("customer=eq.{customer},total=gt.{}", subscriber % 10),
        };
        let filter = Filter::read([text.as_str()], "filter").expect("a filter");
        many.insert(&filter, subscriber);
    }
    assert_eq!(many.find(&event, &mut found).map(<[usize]>::len), Some(10));
    c.bench_function("100,000 subscribers, of whom ten match", |b| {
        b.iter(|| many.find(&event, &mut found).map(<[usize]>::len));
    });
    let mut alone: Vec<Index> = (0..SUBSCRIBERS).map(|customer| index([customer])).collect();
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
