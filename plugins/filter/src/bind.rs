//! Binds a condition to a table: names become indexes, literals take the form of the column's
//! values, and what cannot be compared is told at once.

use walmill_plugin::{Column, Needs, Relation, tag, text};

use crate::condition::{Condition, Value};
use crate::parser::{Accept, Expr, Literal, Operand};
use crate::pattern::Pattern;
use crate::time;

/// `text`, `varchar`, `char(n)`, `name`: their text form sorts as they do, in the C collation.
const TEXT_TYPES: [u32; 5] = [COMPUTED, 25, 1043, BPCHAR, 19];
/// What another plugin made, which has no type in PostgreSQL.
const COMPUTED: u32 = 0;
/// `char(n)`, whose values are padded with blanks that mean nothing.
const BPCHAR: u32 = 1042;

/// The condition, and the columns that its indexes stand for.
pub fn bind(expr: &Expr, relation: &Relation) -> Result<(Condition, Needs), String> {
    let mut binder = Binder { relation, needs: Needs::default() };
    let condition = binder.condition(expr)?;
    Ok((condition, binder.needs))
}

struct Binder<'a> {
    relation: &'a Relation,
    needs: Needs,
}

impl<'a> Binder<'a> {
    fn condition(&mut self, expr: &Expr) -> Result<Condition, String> {
        Ok(match expr {
            Expr::And(parts) => Condition::And(self.conditions(parts)?),
            Expr::Or(parts) => Condition::Or(self.conditions(parts)?),
            Expr::Not(part) => Condition::Not(Box::new(self.condition(part)?)),
            Expr::Compare(left, accept, right) => self.comparison(left, *accept, right)?,
            Expr::True(name) => {
                let (index, column) = self.column(name)?;
                let value = self.value(column, &Literal::Bool(true), Accept::EQUAL)?;
                Condition::Compare { column: index, accept: Accept::EQUAL, value }
            }
            Expr::In(operand, literals) => {
                let (index, column) = self.operand(operand)?;
                let value = |literal| self.value(column, literal, Accept::EQUAL);
                let values = literals.iter().map(value).collect::<Result<_, _>>()?;
                Condition::In { column: index, values }
            }
            Expr::Like { value, pattern, fold_case } => {
                let (index, column) = self.operand(value)?;
                Condition::Like {
                    column: index,
                    pattern: self.pattern(column, pattern, *fold_case)?,
                }
            }
            Expr::IsNull(operand) => Condition::IsNull { column: self.operand(operand)?.0 },
        })
    }

    fn conditions(&mut self, parts: &[Expr]) -> Result<Box<[Condition]>, String> {
        parts.iter().map(|part| self.condition(part)).collect()
    }

    fn comparison(
        &mut self,
        left: &Operand,
        accept: Accept,
        right: &Operand,
    ) -> Result<Condition, String> {
        match (left, right) {
            (Operand::Column(left), Operand::Column(right)) => {
                let ((column, left), (other, right)) = (self.column(left)?, self.column(right)?);
                self.comparable(left, right, accept)?;
                Ok(Condition::Compare { column, accept, value: Value::Column(other) })
            }
            (Operand::Column(name), Operand::Literal(literal)) => {
                let (index, column) = self.column(name)?;
                let value = self.value(column, literal, accept)?;
                Ok(Condition::Compare { column: index, accept, value })
            }
            (Operand::Literal(_), Operand::Column(_)) => {
                self.comparison(right, accept.flipped(), left)
            }
            (Operand::Literal(_), Operand::Literal(_)) => {
                Err("a comparison needs a column on one of its sides".into())
            }
        }
    }

    fn operand(&mut self, operand: &Operand) -> Result<(usize, &'a Column), String> {
        match operand {
            Operand::Column(name) => self.column(name),
            Operand::Literal(_) => {
                Err("`is null`, `in` and `like` need a column on their left side".into())
            }
        }
    }

    fn column(&mut self, name: &str) -> Result<(usize, &'a Column), String> {
        let index = self.relation.require(name)?;
        Ok((self.needs.add(index), self.relation.column(index)))
    }

    fn comparable(&self, left: &Column, right: &Column, accept: Accept) -> Result<(), String> {
        let numbers = [tag::INT, tag::NUMERIC];
        let same =
            left.tag == right.tag || numbers.contains(&left.tag) && numbers.contains(&right.tag);
        if !same || matches!(left.tag, tag::JSON | tag::BYTEA | tag::ARRAY) {
            return Err(format!(
                "{}: `{}` is {} and `{}` is {}; they do not compare",
                self.relation.name(),
                left.name,
                left.type_name,
                right.name,
                right.type_name
            ));
        }
        self.ordered(left, accept)
    }

    /// The literal in the form of the column's values.
    fn value(&self, column: &Column, literal: &Literal, accept: Accept) -> Result<Value, String> {
        let value = match (column.tag, literal) {
            (tag::BOOL, Literal::Bool(truth)) => Some(Value::Bool(*truth)),
            (tag::INT, Literal::Number(number)) => Some(match number.parse() {
                Ok(int) => Value::Int(int),
                Err(_) => Value::Decimal(number.as_str().into()),
            }),
            (tag::NUMERIC, Literal::Number(number)) => Some(Value::Decimal(number.as_str().into())),
            (tag::FLOAT, Literal::Number(number)) => number.parse().ok().map(Value::Float),
            (tag::TIMESTAMP, Literal::Text(text)) => {
                time::timestamp(text, text::is_zoned(column)).map(Value::Int)
            }
            (tag::DATE, Literal::Text(text)) => time::date(text).map(Value::Int),
            (tag::TIME, Literal::Text(text)) => time::time(text).map(Value::Int),
            (tag::UUID, Literal::Text(text)) => uuid(text).map(Value::Uuid),
            (tag::TEXT, Literal::Text(text)) => Some(Value::Text(padded(column, text).into())),
            _ => None,
        };
        self.ordered(column, accept)?;
        value.ok_or_else(|| {
            let (table, Column { name, type_name, .. }) = (self.relation.name(), column);
            let hint = hint(column);
            format!("{table}: `{name}` is {type_name}, which {} is not; {hint}", describe(literal))
        })
    }

    /// Types with no tag of their own come as text, whose order is not theirs.
    fn ordered(&self, column: &Column, accept: Accept) -> Result<(), String> {
        let plain = column.tag != tag::TEXT || TEXT_TYPES.contains(&column.type_oid);
        if plain || accept.is_equality() {
            return Ok(());
        }
        let (table, Column { name, type_name, .. }) = (self.relation.name(), column);
        Err(format!("{table}: `{name}` is {type_name}, which has only ==, != and in here"))
    }

    fn pattern(&self, column: &Column, text: &str, fold_case: bool) -> Result<Pattern, String> {
        let (table, Column { name, type_name, .. }) = (self.relation.name(), column);
        if column.tag != tag::TEXT {
            return Err(format!("{table}: `{name}` is {type_name}, and `like` is for text"));
        }
        Pattern::new(text, fold_case)
            .ok_or_else(|| format!("the pattern '{text}' ends in a lone \\; double it"))
    }
}

fn describe(literal: &Literal) -> String {
    match literal {
        Literal::Text(text) => format!("'{text}'"),
        Literal::Number(number) => number.clone(),
        Literal::Bool(truth) => truth.to_string(),
    }
}

/// How a value of the column's type is written.
fn hint(column: &Column) -> &'static str {
    match column.tag {
        tag::BOOL => "write true or false",
        tag::INT | tag::NUMERIC | tag::FLOAT => "write a number without quotes, as in 12.50",
        tag::TIMESTAMP if text::is_zoned(column) => "write a time as in '2026-11-24T03:07:13Z'",
        tag::TIMESTAMP => "write a time without a zone, as in '2026-11-24T03:07:13'",
        tag::DATE => "write a date as in '2026-11-24'",
        tag::TIME => "write a time as in '03:07:13'",
        tag::UUID => "write a UUID in single quotes",
        tag::TEXT => "write text in single quotes",
        _ => "only `is null` and `is not null` are for this type",
    }
}

/// The literal as wide as the column's values are: PostgreSQL pads `char(n)` with blanks.
fn padded(column: &Column, text: &str) -> String {
    let width = match column.type_oid {
        BPCHAR => column.type_name.split(['(', ')']).nth(1).and_then(|n| n.parse().ok()),
        _ => None,
    };
    format!("{text:width$}", width = width.unwrap_or(0))
}

/// 32 hexadecimal digits, hyphens wherever they are.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|&c| c != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}
