//! What columns' types are called, and how their values are read.

use std::collections::HashMap;

use tokio_postgres::types::{Kind as TypeKind, Type};

use crate::model::{Kind, relation::Element};

/// The built-in types that have a [`Kind`] of their own and that a domain can stand on.
const KINDS: [u32; 16] =
    [16, 17, 20, 21, 23, 26, 114, 700, 701, 1082, 1083, 1114, 1184, 1700, 2950, 3802];

/// The types that the stream has named, because they are not built in.
#[derive(Debug, Default)]
pub(super) struct Types(HashMap<u32, Named>);

#[derive(Debug)]
struct Named {
    /// Empty for a domain over a built-in type, which is then what is named.
    schema: String,
    name: String,
}

impl Types {
    pub(super) fn name(&mut self, oid: u32, schema: &str, name: &str) {
        self.0.insert(oid, Named { schema: schema.into(), name: name.into() });
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// As SQL would write it: `int8`, `numeric(12,2)`, `public.mood`.
    pub(super) fn name_of(&self, oid: u32, modifier: i32) -> String {
        match (self.0.get(&oid), Type::from_oid(oid)) {
            (Some(Named { schema, name }), _) if schema.is_empty() => name.clone(),
            (Some(Named { schema, name }), _) => format!("{schema}.{name}"),
            (None, Some(builtin)) => match builtin.kind() {
                TypeKind::Array(element) => format!("{}[]", modified(element, modifier)),
                _ => modified(&builtin, modifier),
            },
            (None, None) => format!("type {oid}"),
        }
    }

    pub(super) fn kind_of(&self, oid: u32) -> Kind {
        match self.0.get(&oid) {
            Some(Named { schema, name }) if schema.is_empty() => KINDS
                .into_iter()
                .find(|builtin| Type::from_oid(*builtin).is_some_and(|found| found.name() == name))
                .map_or(Kind::Text, Kind::of_builtin),
            Some(_) => Kind::Text,
            None => match (Kind::of_builtin(oid), Type::from_oid(oid)) {
                (Kind::Text, Some(builtin)) if is_array(&builtin) => Kind::Array(Element::Text),
                (kind, _) => kind,
            },
        }
    }
}

fn is_array(builtin: &Type) -> bool {
    matches!(builtin.kind(), TypeKind::Array(_))
}

/// A type's name with its modifier, as `format_type` shows it.
fn modified(builtin: &Type, modifier: i32) -> String {
    let name = builtin.name();
    if modifier < 0 {
        return name.into();
    }
    // Types with a length keep it with four bytes of header added.
    let sized = modifier.saturating_sub(4);
    match *builtin {
        Type::NUMERIC if sized >= 0 => {
            // Eleven bits of scale, which may be negative.
            let scale = ((sized & 0x7FF) ^ 1024) - 1024;
            format!("{name}({},{scale})", (sized >> 16) & 0xFFFF)
        }
        Type::VARCHAR | Type::BPCHAR if sized > 0 => format!("{name}({sized})"),
        Type::BIT
        | Type::VARBIT
        | Type::TIMESTAMP
        | Type::TIMESTAMPTZ
        | Type::TIME
        | Type::TIMETZ => format!("{name}({modifier})"),
        _ => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_types_are_called_as_sql_calls_them() {
        let types = Types::default();
        let cases = [
            (20, -1, "int8"),
            (1700, -1, "numeric"),
            (1700, 786_438, "numeric(12,2)"),
            (1700, (3 << 16 | 2046) + 4, "numeric(3,-2)"),
            (1043, 24, "varchar(20)"),
            (1184, 3, "timestamptz(3)"),
            (1560, 8, "bit(8)"),
            (1015, 24, "varchar(20)[]"),
            (1007, -1, "int4[]"),
            (999_999, -1, "type 999999"),
        ];
        for (oid, modifier, name) in cases {
            assert_eq!(types.name_of(oid, modifier), name);
        }
    }

    #[test]
    fn other_types_are_called_as_the_stream_calls_them() {
        let mut types = Types::default();
        types.name(20_000, "public", "mood");
        types.name(20_001, "", "int8");
        types.name(20_002, "public", "json");
        assert_eq!(
            (types.name_of(20_000, -1).as_str(), types.kind_of(20_000)),
            ("public.mood", Kind::Text)
        );
        assert_eq!(
            (types.name_of(20_001, -1).as_str(), types.kind_of(20_001)),
            ("int8", Kind::Int)
        );
        // A user's own type of a built-in's name is not that type.
        assert_eq!(types.kind_of(20_002), Kind::Text);
    }

    #[test]
    fn every_kind_but_text_and_arrays_can_stand_below_a_domain() {
        for oid in 1..5_000 {
            match Kind::of_builtin(oid) {
                Kind::Text | Kind::Array(_) => assert!(!KINDS.contains(&oid), "{oid}"),
                _ => assert!(KINDS.contains(&oid), "{oid}"),
            }
        }
    }
}
