//! JSON read as the values that TOML has, and written back, with keys in their order.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::{Table, Value};

use super::NULL;

/// Reads JSON; `null` is `<null>`.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let Json(value) = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(value)
}

struct Json(Value);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Values).map(Json)
    }
}

struct Values;

/// Under this name serde_json hands over a number with all its digits.
const NUMBER: &str = "$serde_json::private::Number";

impl<'de> Visitor<'de> for Values {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(NULL.into())
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(truth.into())
    }

    fn visit_i64<E>(self, int: i64) -> Result<Value, E> {
        Ok(int.into())
    }

    fn visit_u64<E: serde::de::Error>(self, int: u64) -> Result<Value, E> {
        i64::try_from(int).map(Value::from).map_err(|_| E::custom("more than 64 signed bits"))
    }

    fn visit_f64<E>(self, float: f64) -> Result<Value, E> {
        Ok(float.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Json(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Value, A::Error> {
        let mut table = Table::new();
        while let Some(key) = pairs.next_key::<String>()? {
            if key == NUMBER {
                return number(&pairs.next_value::<String>()?).map_err(serde::de::Error::custom);
            }
            let Json(value) = pairs.next_value()?;
            table.insert(key, value);
        }
        Ok(table.into())
    }
}

fn number(digits: &str) -> Result<Value, String> {
    let int = digits.parse::<i64>().map(Value::from);
    int.or_else(|_| match digits.parse::<f64>() {
        Ok(float) if digits.contains(['.', 'e', 'E']) => Ok(float.into()),
        _ => Err(format!("{digits} has more than 64 signed bits; write it as text")),
    })
}

/// Writes JSON for people: what is a row, or shorter, in a line of its own.
pub(super) fn write(value: &Value) -> String {
    let mut text = String::new();
    append(&mut text, value, 0);
    text.push('\n');
    text
}

/// What fits in a line stands in one.
const LINE: usize = 96;

fn append(text: &mut String, value: &Value, depth: usize) {
    let line = compact(value);
    if line.len() + depth * 2 <= LINE {
        return text.push_str(&line);
    }
    let indent = |text: &mut String, depth| text.push_str(&format!("\n{:1$}", "", depth * 2));
    match value {
        Value::Array(values) => {
            text.push('[');
            for (at, value) in values.iter().enumerate() {
                text.push_str(if at > 0 { "," } else { "" });
                indent(text, depth + 1);
                append(text, value, depth + 1);
            }
            indent(text, depth);
            text.push(']');
        }
        Value::Table(table) => {
            text.push('{');
            for (at, (key, value)) in table.iter().enumerate() {
                text.push_str(if at > 0 { "," } else { "" });
                indent(text, depth + 1);
                text.push_str(&format!("{}: ", quoted(key)));
                append(text, value, depth + 1);
            }
            indent(text, depth);
            text.push('}');
        }
        _ => text.push_str(&line),
    }
}

/// In one line.
pub(super) fn compact(value: &Value) -> String {
    match value {
        Value::String(text) if text == NULL => "null".into(),
        Value::String(text) => quoted(text),
        Value::Float(float) if float.is_nan() => quoted("NaN"),
        Value::Float(float) if *float == f64::INFINITY => quoted("Infinity"),
        Value::Float(float) if *float == f64::NEG_INFINITY => quoted("-Infinity"),
        Value::Datetime(moment) => quoted(&moment.to_string()),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(compact).collect::<Vec<_>>().join(", "))
        }
        Value::Table(table) if table.is_empty() => "{}".into(),
        Value::Table(table) => {
            let pair =
                |(key, value): (&String, &Value)| format!("{}: {}", quoted(key), compact(value));
            format!("{{ {} }}", table.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        plain => plain.to_string(),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
