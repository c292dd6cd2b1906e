//! The name under which an event goes to a broker: fixed, or made from the event behind a literal
//! beginning, as in `orders.{region}`.
//!
//! What comes from an event can never be more than one part of the name: whatever separates parts,
//! stands for others or breaks the protocol is encoded. A part that is missing, or empty, is
//! written as a mark that no value can be.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use super::DeliverError;
use super::envelope::{Envelope, Row, member, text};

/// Whose names they are: which characters they may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// NATS subjects: parts between dots.
    Subject,
    /// Redis keys: anything, by custom parts between colons.
    Key,
    /// Kafka topics: letters, digits, `.`, `_` and `-`, at most 249.
    Topic,
}

/// A name with places for what comes from the event.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    names: Names,
    parts: Vec<Part>,
    written: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(Field),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Stream,
    Schema,
    Table,
    Op,
    Key,
    Column(String),
}

/// What is no template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// A brace without its partner, or nothing between two.
    #[error("`{0}` has a brace that does not fit: write `orders.{{region}}`")]
    Brace(String),
    /// It begins with what comes from an event.
    #[error(
        "`{0}` begins with what comes from an event, so events could go anywhere; give it a \
         beginning of its own, as in `orders.{{region}}`"
    )]
    NoPrefix(String),
    /// The literal parts have something that such a name cannot have.
    #[error("`{0}` cannot be such a name: {1}")]
    Name(String, &'static str),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn parse(text: &str, names: Names) -> Result<Self, TemplateError> {
        let parts = parts(text)?;
        match parts.first() {
            None => return Err(TemplateError::Empty),
            Some(Part::Field(_)) => return Err(TemplateError::NoPrefix(text.to_owned())),
            Some(Part::Literal(_)) => {}
        }
        let template = Self { names, parts, written: text.to_owned() };
        // A field is never empty and has nothing but letters and marks.
        let sample = template.with(|_| Some(Cow::Borrowed("x")));
        match names.fault(&sample) {
            Some(why) => Err(TemplateError::Name(text.to_owned(), why)),
            None => Ok(template),
        }
    }

    /// The event's name.
    ///
    /// # Errors
    /// It is longer than such names may be; the event is refused then.
    pub fn name(&self, event: &Envelope<'_>) -> Result<Cow<'_, str>, DeliverError> {
        if let [Part::Literal(name)] = self.parts.as_slice() {
            return Ok(Cow::Borrowed(name));
        }
        let only_stream =
            |part: &Part| matches!(part, Part::Literal(_) | Part::Field(Field::Stream));
        let row = if self.parts.iter().all(only_stream) { Row::default() } else { event.row() };
        let name = self.with(|field| field.of(event, &row));
        if name.len() > self.names.longest() {
            return Err(DeliverError::Refused {
                event: event.id(),
                cause: anyhow::anyhow!(
                    "`{}` makes a name of {} characters of this event; {} are the most",
                    self.written,
                    name.len(),
                    self.names.longest()
                ),
                answer: String::new(),
            });
        }
        Ok(Cow::Owned(name))
    }

    /// What every name begins with, and whether that is the whole name.
    #[must_use]
    pub fn prefix(&self) -> (&str, bool) {
        match self.parts.as_slice() {
            [Part::Literal(text)] => (text, true),
            [Part::Literal(text), ..] => (text, false),
            _ => ("", false),
        }
    }

    fn with<'e>(&self, value: impl Fn(&Field) -> Option<Cow<'e, str>>) -> String {
        let mut name = String::with_capacity(self.written.len() + 32);
        for part in &self.parts {
            match part {
                Part::Literal(text) => name.push_str(text),
                Part::Field(field) => match value(field).as_deref() {
                    None | Some("") => name.push_str(self.names.missing()),
                    // A stream's dots part it, as they do where streams are named.
                    Some(stream) if *field == Field::Stream => {
                        for (at, part) in stream.split('.').enumerate() {
                            if at > 0 {
                                name.push('.');
                            }
                            match part {
                                "" => name.push_str(self.names.missing()),
                                part => self.names.encode(&mut name, part),
                            }
                        }
                    }
                    Some(value) => self.names.encode(&mut name, value),
                },
            }
        }
        name
    }
}

impl Field {
    fn named(name: &str) -> Self {
        match name {
            "stream" => Self::Stream,
            "schema" => Self::Schema,
            "table" => Self::Table,
            "op" => Self::Op,
            "key" => Self::Key,
            // For columns that are called like one of the others.
            name => Self::Column(name.strip_prefix("record.").unwrap_or(name).to_owned()),
        }
    }

    fn of<'e>(&self, event: &'e Envelope<'_>, row: &'e Row<'_>) -> Option<Cow<'e, str>> {
        match self {
            Self::Stream => Some(Cow::Borrowed(event.attribute("stream"))),
            Self::Schema => row.schema.as_deref().map(Cow::Borrowed),
            Self::Table => row.table.as_deref().map(Cow::Borrowed),
            Self::Op => row.op.as_deref().map(Cow::Borrowed),
            Self::Key => key(event, row),
            Self::Column(name) => {
                let column = |record| member(record, name).and_then(text);
                row.record.or(row.old_record).and_then(column)
            }
        }
    }
}

/// The key without the table's name.
fn key<'e>(event: &'e Envelope<'_>, row: &Row<'_>) -> Option<Cow<'e, str>> {
    let table = row.schema.as_ref()?.len() + 1 + row.table.as_ref()?.len();
    let key = event.key().get(table..)?.strip_prefix(b"/")?;
    Some(String::from_utf8_lossy(key))
}

impl Names {
    fn longest(self) -> usize {
        match self {
            // Less than a server takes on one line, which is 4096 bytes.
            Self::Subject | Self::Key => 1024,
            Self::Topic => 249,
        }
    }

    /// Stands for what is missing; no value is written so.
    fn missing(self) -> &'static str {
        match self {
            Self::Subject | Self::Key => "~",
            Self::Topic => "_x_",
        }
    }

    /// Adds a value as one part of a name. Letters, digits, `-` and `_` stay as they are.
    fn encode(self, name: &mut String, value: &str) {
        for (at, byte) in value.bytes().enumerate() {
            let taken = match (self, byte) {
                // Where it could be taken for the beginning of an encoded character.
                (Self::Topic, b'_') => value.as_bytes().get(at + 1) != Some(&b'x'),
                (_, byte) => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
            };
            let escape = if self == Self::Topic { "_x" } else { "%" };
            if taken {
                name.push(char::from(byte));
            } else {
                // Writing to a String does not fail.
                let _ = write!(name, "{escape}{byte:02X}");
            }
        }
    }

    /// Why it is no such name.
    fn fault(self, name: &str) -> Option<&'static str> {
        let has = |bad: fn(char) -> bool| name.contains(bad);
        match self {
            _ if name.len() > self.longest() => Some("it is too long"),
            _ if has(|c| c.is_control()) => Some("it has control characters"),
            Self::Subject if has(|c| c.is_whitespace() || matches!(c, '*' | '>')) => {
                Some("spaces, `*` and `>` have no place in a subject")
            }
            Self::Subject if name.split('.').any(str::is_empty) => {
                Some("there is nothing between two dots, or before the first or behind the last")
            }
            Self::Topic if has(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-')) => {
                Some("topics have letters, digits, `.`, `_` and `-`")
            }
            Self::Topic if matches!(name, "." | "..") => Some("topics are not called that"),
            _ => None,
        }
    }
}

fn parts(text: &str) -> Result<Vec<Part>, TemplateError> {
    let brace = || TemplateError::Brace(text.to_owned());
    let (mut parts, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (literal, behind) = match rest.split_once('{') {
            Some((literal, behind)) => (literal, Some(behind)),
            None => (rest, None),
        };
        if literal.contains('}') {
            return Err(brace());
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.to_owned()));
        }
        let Some(behind) = behind else { break };
        let (field, behind) = behind.split_once('}').ok_or_else(brace)?;
        if field.is_empty() || field.contains('{') {
            return Err(brace());
        }
        parts.push(Part::Field(Field::named(field)));
        rest = behind;
    }
    Ok(parts)
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.written, f)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::envelope::tests::record;
    use super::*;

    fn name(template: &str, names: Names, region: &str) -> String {
        let region = serde_json::to_string(region).unwrap();
        let json = format!(
            r#"{{"stream":"orders.eu","data":{{"schema":"public","table":"order_items",
                "op":"insert","key":{{"id":7}},"record":{{"id":7,"region":{region},"no":null}},
                "old_record":null}}}}"#
        );
        let record = record("public.order_items/7", &json);
        let template = Template::parse(template, names).unwrap();
        template.name(&Envelope::read(&record).unwrap()).unwrap().into_owned()
    }

    #[test]
    fn a_name_is_made_of_what_the_event_has() {
        let subject = |template| name(template, Names::Subject, "nz");
        assert_eq!(subject("orders"), "orders");
        assert_eq!(subject("o.{region}.{op}"), "o.nz.insert");
        assert_eq!(subject("w.{stream}"), "w.orders.eu");
        assert_eq!(subject("w.{schema}.{table}.{key}"), "w.public.order_items.7");
        assert_eq!(subject("w.{record.id}-{no}.{never}"), "w.7-~.~");
        assert_eq!(name("w.{table}", Names::Topic, ""), "w.order_items");
        assert_eq!(name("w:{region}:{id}", Names::Key, "a:b"), "w:a%3Ab:7");
    }

    #[test]
    fn values_of_rows_cannot_leave_their_place() {
        let subject = |region| name("o.{region}", Names::Subject, region);
        assert_eq!(subject("a.b c*>\r\n\0%~é"), "o.a%2Eb%20c%2A%3E%0D%0A%00%25%7E%C3%A9");
        assert_eq!(subject(""), "o.~");
        let topic = |region| name("o.{region}", Names::Topic, region);
        assert_eq!(topic("a.b/_x_a_b"), "o.a_x2Eb_x2F_x5Fx_a_b");
        assert_eq!(topic(""), "o._x_");
        assert_ne!(topic("_x_"), topic(""));
    }

    #[test]
    fn a_template_that_leads_anywhere_or_nowhere_is_refused() {
        let parse = |text: &str, names| Template::parse(text, names).map(|_| ()).unwrap_err();
        assert_eq!(parse("", Names::Key), TemplateError::Empty);
        for text in ["a{", "a}", "a{}", "a{b{c}}", "a{b"] {
            assert_eq!(parse(text, Names::Key), TemplateError::Brace(text.into()));
        }
        let anywhere = TemplateError::NoPrefix("{region}.x".into());
        assert_eq!(parse("{region}.x", Names::Key), anywhere);
        for subject in ["a b", "a.>", "a..{b}", ".a", "{b}.a.", "a.*.{b}"] {
            assert!(Template::parse(subject, Names::Subject).is_err(), "{subject}");
        }
        for topic in ["a:b", "é", ".", "a/{b}"] {
            assert!(Template::parse(topic, Names::Topic).is_err(), "{topic}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_refuses_the_event() {
        let region = "x".repeat(250);
        let json = format!(r#"{{"data":{{"record":{{"region":"{region}"}}}}}}"#);
        let record = record("t", &json);
        let envelope = Envelope::read(&record).unwrap();
        let template = Template::parse("o.{region}", Names::Topic).unwrap();
        let Err(DeliverError::Refused { cause, .. }) = template.name(&envelope) else { panic!() };
        assert!(cause.to_string().contains("252 characters"), "{cause}");
    }

    proptest! {
        #[test]
        fn whatever_a_row_holds_two_values_never_have_one_name(a: String, b: String) {
            for names in [Names::Subject, Names::Key, Names::Topic] {
                let name = |value: &str| {
                    let template = Template::parse("o.{v}.end", names).unwrap();
                    template.with(|_| Some(Cow::Borrowed(value)))
                };
                prop_assert_eq!(name(&a) == name(&b), a == b);
                prop_assert_eq!(name(&a).split('.').count(), 3);
                prop_assert!(!name(&a).contains(|c: char| c.is_whitespace() || "*>:/".contains(c)));
            }
        }
    }
}
