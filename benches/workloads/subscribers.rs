//! An event, and subscribers who look for customers in it.

use bytes::Bytes;
use walmill::model::{EventRecord, Offset};
use walmill::server::fanout::Index;
use walmill::server::filter::Filter;

/// How many customers there are.
pub const CUSTOMERS: usize = 10_000;

/// Of customer 4711.
pub fn event() -> EventRecord {
    let json = r#"{"specversion":"1.0","source":"/walmill/7/1","id":"0/1/0","type":"walmill.row.insert","subject":"public.orders/7","time":"2026-11-24T03:07:13.123456Z","datacontenttype":"application/json","lsn":"0/1","xid":"735","partitionkey":"public.orders/7","stream":"orders","data":{"schema":"public","table":"orders","op":"insert","key":{"id":7},"record":{"id":7,"customer":4711,"country":"NZ","status":"paid","total":129.90,"note":"leave it at the door, please","created":"2026-11-24T03:07:13.123456Z"},"old_record":null,"unchanged":[]}}"#;
    let key = Bytes::from_static(b"public.orders/7");
    EventRecord { offset: Offset::START, key, json: Bytes::from_static(json.as_bytes()) }
}

/// Of a reader who wants what fits.
pub fn filter(text: &str) -> Filter {
    Filter::read([text], "filter").expect("a filter")
}

/// Ten for each customer; half of them have a second condition.
pub fn many() -> Index {
    let mut many = Index::default();
    for subscriber in 0..10 * CUSTOMERS {
        let customer = subscriber / 10;
        let text = match subscriber % 2 {
            0 => format!("customer=eq.{customer}"),
            _ => format!("customer=eq.{customer},total=gt.{}", subscriber % 10),
        };
        many.insert(&filter(&text), subscriber);
    }
    many
}
