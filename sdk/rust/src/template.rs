//! Text with columns in it: `{first} {last|upper}`.
//!
//! Behind a column's name stand what is done to its value, one after the other: `upper`, `lower`,
//! `trim`, and `default:TEXT` for null. A doubled brace stands for itself.

use crate::{Cell, Needs, Relation, Row, did_you_mean, text};

/// A template, columns by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part<String>>);

/// A template whose columns are places in a table's rows.
#[derive(Debug)]
pub struct Bound(Vec<Part<Place>>);

/// What came of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rendered {
    /// Text, appended to the output.
    Text,
    /// A column is null, and has no default.
    Null,
    /// A column is a large value that PostgreSQL did not send.
    Unchanged,
    /// A column is not in the row.
    Absent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part<C> {
    Text(String),
    Column(C, Vec<Step>),
}

#[derive(Debug)]
struct Place {
    index: usize,
    zoned: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Upper,
    Lower,
    Trim,
    Default(String),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(template: &str) -> Result<Self, String> {
        let (mut parts, mut text) = (Vec::new(), String::new());
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            text.push_str(&rest[..at]);
            let (brace, behind) = rest[at..].split_at(1);
            if let Some(behind) = behind.strip_prefix(brace) {
                text.push_str(brace);
                rest = behind;
            } else if let Some((inside, behind)) = behind.split_once('}').filter(|_| brace == "{") {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(column(inside)?);
                rest = behind;
            } else {
                return Err(format!("`{brace}` has no partner; double it to mean itself"));
            }
        }
        text.push_str(rest);
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(Self(parts))
    }

    /// Its text, when there is no column in it.
    #[must_use]
    pub fn constant(&self) -> Option<&str> {
        match &*self.0 {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text outside the columns.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(text) => Some(&**text),
            Part::Column(..) => None,
        })
    }

    /// Binds it to a table, and asks for its columns.
    ///
    /// # Errors
    /// The table doesn't have a column.
    pub fn bind(&self, relation: &Relation, needs: &mut Needs) -> Result<Bound, String> {
        let bind = |part: &Part<String>| match part {
            Part::Text(text) => Ok(Part::Text(text.clone())),
            Part::Column(name, steps) => {
                let index = relation.require(name)?;
                let zoned = text::is_zoned(relation.column(index));
                Ok(Part::Column(Place { index: needs.add(index), zoned }, steps.clone()))
            }
        };
        self.0.iter().map(bind).collect::<Result<_, String>>().map(Bound)
    }
}

impl Bound {
    /// Appends the template with a row's values; `escape` sees each value, from where it starts.
    /// Without a value for every column there is none of the whole.
    pub fn render(
        &self,
        row: &Row,
        out: &mut String,
        escape: impl Fn(&mut String, usize),
    ) -> Rendered {
        let before = out.len();
        for part in &self.0 {
            let rendered = match part {
                Part::Text(text) => {
                    out.push_str(text);
                    Rendered::Text
                }
                Part::Column(place, steps) => {
                    let start = out.len();
                    let rendered = value(row.cell(place.index), place.zoned, steps, out);
                    escape(out, start);
                    rendered
                }
            };
            if rendered != Rendered::Text {
                out.truncate(before);
                return rendered;
            }
        }
        Rendered::Text
    }
}

fn value(cell: Cell, zoned: bool, steps: &[Step], out: &mut String) -> Rendered {
    let start = out.len();
    let mut rendered = match cell {
        Cell::Null => Rendered::Null,
        Cell::Unchanged => Rendered::Unchanged,
        cell if text::append(out, cell, zoned) => Rendered::Text,
        _ => Rendered::Absent,
    };
    for step in steps {
        match step {
            Step::Default(text) if rendered == Rendered::Null => {
                out.push_str(text);
                rendered = Rendered::Text;
            }
            Step::Default(_) => {}
            Step::Upper => replace(out, start, str::to_uppercase),
            Step::Lower => replace(out, start, str::to_lowercase),
            Step::Trim => replace(out, start, |text| text.trim().to_owned()),
        }
    }
    rendered
}

fn replace(out: &mut String, start: usize, with: impl Fn(&str) -> String) {
    let new = with(&out[start..]);
    out.truncate(start);
    out.push_str(&new);
}

fn column(inside: &str) -> Result<Part<String>, String> {
    let mut words = inside.split('|');
    let name = words.next().unwrap_or_default().trim();
    if name.is_empty() {
        return Err("`{}` names no column".into());
    }
    Ok(Part::Column(name.to_owned(), words.map(step).collect::<Result<_, _>>()?))
}

fn step(word: &str) -> Result<Step, String> {
    match word.trim_start().split_once(':') {
        Some(("default", text)) => return Ok(Step::Default(text.to_owned())),
        Some(_) => {}
        None => match word.trim() {
            "upper" => return Ok(Step::Upper),
            "lower" => return Ok(Step::Lower),
            "trim" => return Ok(Step::Trim),
            _ => {}
        },
    }
    let known = ["upper", "lower", "trim", "default:"];
    let hint = did_you_mean(word.trim(), known);
    Err(format!("`{}` is none of upper, lower, trim, default:TEXT{hint}", word.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_columns_take_turns() {
        let template = Template::parse("{first} {last|trim|upper}, {nick|default:no one} {{x}}");
        let column = |name: &str, steps: &[Step]| Part::Column(name.into(), steps.to_vec());
        assert_eq!(
            template.unwrap().0,
            [
                column("first", &[]),
                Part::Text(" ".into()),
                column("last", &[Step::Trim, Step::Upper]),
                Part::Text(", ".into()),
                column("nick", &[Step::Default("no one".into())]),
                Part::Text(" {x}".into()),
            ]
        );
    }

    #[test]
    fn a_template_without_columns_is_a_constant() {
        assert_eq!(Template::parse("shop").unwrap().constant(), Some("shop"));
        assert_eq!(Template::parse("").unwrap().constant(), Some(""));
        assert_eq!(Template::parse("{{}}").unwrap().constant(), Some("{}"));
        assert_eq!(Template::parse("{a}").unwrap().constant(), None);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let error = |template| Template::parse(template).unwrap_err();
        assert_eq!(error("{first"), "`{` has no partner; double it to mean itself");
        assert_eq!(error("a}"), "`}` has no partner; double it to mean itself");
        assert_eq!(error("{ }"), "`{}` names no column");
        assert_eq!(
            error("{a|uper}"),
            "`uper` is none of upper, lower, trim, default:TEXT; did you mean `upper`?"
        );
    }
}
