//! Random values as SQL literals.

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

/// Columns' types that a table can get later.
pub(super) const LATER: [&str; 6] = ["int4", "text", "numeric", "timestamptz", "text[]", "jsonb"];

/// A literal of a type, NULL at times.
pub(super) fn literal(random: &mut StdRng, kind: &str) -> String {
    if random.random_bool(0.12) {
        return "NULL".into();
    }
    if let Some(element) = kind.strip_suffix("[]") {
        let count = random.random_range(0..4);
        let items: Vec<String> = (0..count).map(|_| literal(random, element)).collect();
        return format!("ARRAY[{}]::{kind}", items.join(","));
    }
    let text = match known(kind) {
        Some(examples) if random.random_bool(0.5) => {
            (*examples.choose(random).expect("not empty")).to_owned()
        }
        _ => made_up(random, kind),
    };
    format!("'{}'::{kind}", text.replace('\'', "''"))
}

/// Values of a type that are easily got wrong.
fn known(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "int2" => &["-32768", "32767", "0"],
        "int4" => &["-2147483648", "2147483647"],
        "int8" => &["-9223372036854775808", "9223372036854775807"],
        "float4" => &["NaN", "Infinity", "-Infinity", "1e-30", "-0"],
        "float8" => &["NaN", "Infinity", "0.1", "5e-324", "1.7976931348623157e308", "-0"],
        "numeric" => &["NaN", "0.00000000000000000000", "1e40", "-12345678901234567890.123456789"],
        "text" | "varchar" => {
            &["", " ", "null", "NULL", "\"", "'", "\\", "{}", "a\tb\nc\r", "é€😀"]
        }
        "bpchar(5)" => &["", "a b", "12345"],
        "bytea" => &["\\x", "\\x00", "\\xdeadbeef"],
        "date" => &["infinity", "-infinity", "0044-03-15 BC", "5874897-12-31", "2000-02-29"],
        "timestamp" | "timestamptz" => {
            &["infinity", "-infinity", "0044-03-15 12:00:00 BC", "1999-12-31 23:59:59.999999"]
        }
        "time" => &["00:00:00", "24:00:00", "23:59:59.999999"],
        "timetz" => &["00:00:00+00", "12:34:56.789-08:30"],
        "interval" => &["0", "1 year -2 mons 3 days", "-00:00:00.000001", "100 years"],
        "json" | "jsonb" => &["{}", "[]", "\"x\"", "{\"a\": [1.10, null, \"\\u00e9\"]}", "1e2"],
        "inet" => &["::1", "10.0.0.1/8", "fe80::1/64"],
        "bit(4)" => &["0000", "1010"],
        "varbit" => &["", "1", "101010101"],
        "money" => &["$0.00", "-$92,233,720,368,547,758.08"],
        "mood" => &["sad", "it's", "so so"],
        "pair" => &["(,)", "(1,\"a,\"\"b\"\"\")"],
        "int4range" => &["empty", "(,)", "[1,5)", "[3,)"],
        "point" => &["(0,0)", "(1.5,-2e10)"],
        "tsvector" => &["", "'fat':2A 'rat':3"],
        _ => return None,
    })
}

fn made_up(random: &mut StdRng, kind: &str) -> String {
    let number: i32 = random.random();
    match kind {
        "bool" => (number % 2 == 0).to_string(),
        "int2" => (number as i16).to_string(),
        "int4" | "int8" => number.to_string(),
        "float4" | "float8" => f64::from(number).exp2().clamp(-1e30, 1e30).to_string(),
        "numeric" | "money" => format!("{number}.{:02}", number.unsigned_abs() % 100),
        "bytea" => format!("\\x{:08x}", number),
        "bit(4)" => format!("{:04b}", number & 15),
        "varbit" => format!("{number:b}"),
        "date" => format!("{}-07-{:02}", 1900 + number.rem_euclid(200), 1 + number.rem_euclid(31)),
        "timestamp" | "timestamptz" => {
            format!("2026-11-{:02} 03:07:13.{}", 1 + number.rem_euclid(30), number.unsigned_abs())
        }
        "time" | "timetz" => format!("03:07:{:02}", number.rem_euclid(60)),
        "interval" => format!("{number} seconds"),
        "uuid" => format!("{:032x}", random.random::<u128>()),
        "json" | "jsonb" => format!("{{\"n\": {number}, \"a\": [true, null]}}"),
        "inet" => format!("10.1.{}.{}", number & 255, number >> 8 & 255),
        "mood" => "so so".into(),
        "pair" => format!("({number},x)"),
        "int4range" => format!("[{},{})", number >> 2, (number >> 2) + 7),
        "point" => format!("({number},1)"),
        "tsvector" => format!("w{}", number & 63),
        "bpchar(5)" => format!("{:05}", number.rem_euclid(100_000)),
        _ => format!("text {number}"),
    }
}

/// Text that is stored out of line: random, since PostgreSQL compresses first.
pub(super) fn large(random: &mut StdRng) -> String {
    let words = random.random_range(150..400);
    let text: String = (0..words).map(|_| format!("{:016x}", random.random::<u64>())).collect();
    format!("'{text}'")
}
