//! What columns' types are called, and how their values are read.
//!
//! The stream names a type that is not built in, and for a domain the type below it. Whether such
//! a type is an array it does not say, so that is looked up in the catalog.

use std::collections::HashMap;

use tokio_postgres::types::{Kind as TypeKind, Type};

use crate::model::{Kind, relation::Element};

/// Built-in types have OIDs below this (`FirstGenbkiObjectId`).
const BUILTIN: u32 = 10_000;

/// The types that the stream has named, because they are not built in.
#[derive(Debug, Default)]
pub(super) struct Types(HashMap<u32, Named>);

#[derive(Debug)]
struct Named {
    /// As the stream says; of a domain, the schema and the name of what is below it.
    schema: String,
    name: String,
    is: Is,
}

#[derive(Debug)]
enum Is {
    /// A domain over a built-in type.
    Builtin(Type),
    Array(ArrayType),
    /// Everything else: PostgreSQL's text form is all that we know of it.
    Other,
}

/// An array, as the catalog describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ArrayType {
    /// Schema of the elements' type.
    pub(super) schema: String,
    /// Name of the elements' type.
    pub(super) name: String,
    /// What parts the elements.
    pub(super) delimiter: u8,
    /// OID of the elements' type, or of what it stands on as a domain.
    pub(super) element: u32,
}

impl ArrayType {
    fn kind(&self) -> Kind {
        Kind::Array(match self.delimiter {
            b',' => Element::of_builtin(self.element),
            other => Element::Delimited(other),
        })
    }
}

impl Types {
    /// The stream names a type. True where it has to be looked up whether it is an array.
    pub(super) fn name(&mut self, oid: u32, schema: &str, name: &str) -> bool {
        let known = |named: &Named| (named.schema.as_str(), named.name.as_str()) == (schema, name);
        if self.0.get(&oid).is_some_and(known) {
            return false;
        }
        let builtin = schema.is_empty().then(|| builtin_of_name(name)).flatten();
        let is = builtin.map_or(Is::Other, Is::Builtin);
        self.0.insert(oid, Named { schema: schema.into(), name: name.into(), is });
        !schema.is_empty()
    }

    /// What the look-up found.
    pub(super) fn set_array(&mut self, of: u32, array: Option<ArrayType>) {
        if let (Some(named), Some(array)) = (self.0.get_mut(&of), array) {
            named.is = Is::Array(array);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// As SQL would write it: `int8`, `numeric(12,2)`, `public.mood`, `public.mood[]`.
    pub(super) fn name_of(&self, oid: u32, modifier: i32) -> String {
        match self.0.get(&oid) {
            Some(Named { is: Is::Builtin(builtin), .. }) => builtin_name(builtin, modifier),
            Some(Named { is: Is::Array(array), .. }) => {
                format!("{}.{}[]", array.schema, array.name)
            }
            Some(Named { schema, name, .. }) if schema.is_empty() => name.clone(),
            Some(Named { schema, name, .. }) => format!("{schema}.{name}"),
            None => match Type::from_oid(oid) {
                Some(builtin) => builtin_name(&builtin, modifier),
                None => format!("type {oid}"),
            },
        }
    }

    pub(super) fn kind_of(&self, oid: u32) -> Kind {
        match self.0.get(&oid).map(|named| &named.is) {
            Some(Is::Builtin(builtin)) => builtin_kind(builtin.oid()),
            Some(Is::Array(array)) => array.kind(),
            Some(Is::Other) => Kind::Text,
            None => builtin_kind(oid),
        }
    }
}

/// Asked once for each domain.
fn builtin_of_name(name: &str) -> Option<Type> {
    (1..BUILTIN).filter_map(Type::from_oid).find(|builtin| builtin.name() == name)
}

fn builtin_kind(oid: u32) -> Kind {
    match (Kind::of_builtin(oid), Type::from_oid(oid)) {
        (Kind::Text, Some(builtin)) if is_array(&builtin) => Kind::Array(Element::Text),
        (kind, _) => kind,
    }
}

/// Whether its text is an array's: the two vectors are arrays inside, and write `1 2 3`.
fn is_array(builtin: &Type) -> bool {
    let vector = matches!(*builtin, Type::INT2_VECTOR | Type::OID_VECTOR);
    matches!(builtin.kind(), TypeKind::Array(_)) && !vector
}

fn builtin_name(builtin: &Type, modifier: i32) -> String {
    match builtin.kind() {
        TypeKind::Array(element) if is_array(builtin) => {
            format!("{}[]", modified(element, modifier))
        }
        _ => modified(builtin, modifier),
    }
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
    fn every_array_is_of_the_kind_of_its_elements() {
        let types = Types::default();
        for array in (1..BUILTIN).filter_map(Type::from_oid).filter(is_array) {
            let TypeKind::Array(element) = array.kind() else { continue };
            let expected = match *element {
                Type::BOX => Element::Delimited(b';'),
                _ => Element::of_builtin(element.oid()),
            };
            assert_eq!(types.kind_of(array.oid()), Kind::Array(expected), "{array}");
        }
        assert_eq!(types.kind_of(22), Kind::Text);
        assert_eq!(types.name_of(22, -1), "int2vector");
    }

    #[test]
    fn arrays_of_a_users_types_are_looked_up() {
        let mut types = Types::default();
        let array = |delimiter, element| ArrayType {
            schema: "public".into(),
            name: "mood".into(),
            delimiter,
            element,
        };
        assert!(types.name(20_000, "public", "_mood"));
        assert_eq!(types.kind_of(20_000), Kind::Text);
        types.set_array(20_000, Some(array(b',', 30_000)));
        assert!(!types.name(20_000, "public", "_mood"), "it is known");
        assert_eq!(types.kind_of(20_000), Kind::Array(Element::Text));
        assert_eq!(types.name_of(20_000, -1), "public.mood[]");
        assert!(types.name(20_001, "public", "_cents"));
        types.set_array(20_001, Some(array(b',', 20)));
        assert_eq!(types.kind_of(20_001), Kind::Array(Element::Int));
        assert!(types.name(20_002, "public", "_geometry"));
        types.set_array(20_002, Some(array(b':', 30_001)));
        assert_eq!(types.kind_of(20_002), Kind::Array(Element::Delimited(b':')));
        // A domain over an array that is built in.
        assert!(!types.name(20_003, "", "_int4"));
        assert_eq!(types.kind_of(20_003), Kind::Array(Element::Int));
        assert_eq!(types.name_of(20_003, -1), "int4[]");
    }
}
