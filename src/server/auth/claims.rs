//! What a token's claims say, as the config asks for it.

use serde_json::{Map, Value};

/// The claim at `a.b.c`. A claim may have dots in its own name (`https://app.example/tenant`), so
/// the longest name that is there is taken first.
pub(super) fn find<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let dots = path.rmatch_indices('.');
    let mut parts = dots.map(|(at, _)| (&path[..at], &path[at + 1..]));
    parts.find_map(|(name, rest)| find(claims.get(name)?.as_object()?, rest))
}

/// A claim's values as text: one, or each of a list; `None` where it has none that are one.
pub(super) fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(values) => values.iter().map(text).collect(),
        value => text(value).map(|text| vec![text]),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(boolean) => Some(boolean.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_found_by_its_path_whatever_dots_are_in_its_name() {
        let claims = json!({
            "tenant": 7, "app": { "roles": ["a", "b"], "x.y": { "z": true } },
            "https://app.example/org": "acme",
        });
        let claims = claims.as_object().unwrap();
        let found = |path| find(claims, path).and_then(texts);
        assert_eq!(found("tenant"), Some(vec!["7".to_owned()]));
        assert_eq!(found("app.roles"), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(found("app.x.y.z"), Some(vec!["true".to_owned()]));
        assert_eq!(found("https://app.example/org"), Some(vec!["acme".to_owned()]));
        assert_eq!(found("app"), None);
        assert_eq!(found("app.nope"), None);
    }
}
