//! Orders for the people who ship them: only the statuses they care for, masked emails, a mark on
//! large orders, one stream per region.

use serde_json::{Map, Value};
use walmill_plugin::{
    Batch, Cell, Config, Event, Finding, Op, Plan, Relation, Shape, Transform, Verdicts, column,
    tag,
};

/// The first quantity that a 64-bit float can't tell from its neighbour.
const LARGE: i64 = 9_007_199_254_740_993;

struct Orders {
    /// The statuses that are kept.
    keep: Vec<String>,
}

walmill_plugin::export!(Orders);

impl Transform for Orders {
    fn new(config: Config) -> Result<Self, Vec<Finding>> {
        let config: Map<String, Value> = config.parse()?;
        let (mut keep, mut findings) = (vec!["paid".into(), "shipped".into()], Vec::new());
        for (key, value) in config {
            match key.as_str() {
                "keep" => keep = texts(&key, &value, &mut findings),
                _ => findings.push(finding(key, "unknown key")),
            }
        }
        if findings.is_empty() { Ok(Self { keep }) } else { Err(findings) }
    }

    fn on_relation(&mut self, relation: &Relation) -> Result<Plan, String> {
        let need = |name| relation.index_of(name).ok_or_else(|| format!("no column `{name}`"));
        let email = need("email");
        let needs = [need("status")?, email.clone()?, need("quantity")?, need("region")?];
        let mut shape = Shape::of(relation);
        shape.columns[email? as usize] = column::computed("email", tag::TEXT);
        shape.columns.push(column::computed("large", tag::BOOL));
        Ok(Plan::call(needs).with_shape(shape))
    }

    fn process(&mut self, batch: &Batch, verdicts: &mut Verdicts) -> Result<(), String> {
        for event in batch.events() {
            if matches!(event.op(), Op::Insert | Op::Update | Op::Snapshot) {
                self.judge(&event, verdicts);
            }
        }
        Ok(())
    }
}

impl Orders {
    fn judge(&self, event: &Event, verdicts: &mut Verdicts) {
        let row = event.row();
        let [status, email, quantity, region] = std::array::from_fn(|index| row.cell(index));
        if !matches!(status, Cell::Text(status) if self.keep.iter().any(|kept| kept == status)) {
            return verdicts.drop(event);
        }
        let large = match quantity {
            Cell::Int(quantity) if quantity < 0 => {
                return verdicts.reject(event, format!("negative quantity: {quantity}"));
            }
            Cell::Int(quantity) => Cell::Bool(quantity >= LARGE),
            other => other,
        };
        let masked = match email {
            Cell::Text(email) => mask(email),
            _ => String::new(),
        };
        let email = if let Cell::Text(_) = email { Cell::Text(&masked) } else { email };
        verdicts.emit(event, 0).cell(email).cell(large);
        if let Cell::Text(region) = region
            && !region.is_empty()
        {
            let route = verdicts.route_to(&format!("orders.{}", region.to_ascii_lowercase()));
            verdicts.send(event, route);
        }
    }
}

/// `ada@example.com` as `a***@example.com`; what is no address as `***`.
fn mask(email: &str) -> String {
    let first = email.chars().next();
    match (first, email.rfind('@')) {
        (Some(first), Some(at)) => format!("{first}***{}", &email[at..]),
        _ => "***".into(),
    }
}

fn texts(path: &str, value: &Value, findings: &mut Vec<Finding>) -> Vec<String> {
    let Value::Array(values) = value else {
        findings.push(finding(path, "must be a list of texts"));
        return Vec::new();
    };
    let mut texts = Vec::new();
    for (index, value) in values.iter().enumerate() {
        match value {
            Value::String(text) => texts.push(text.clone()),
            _ => findings.push(finding(format!("{path}[{index}]"), "must be a text")),
        }
    }
    texts
}

fn finding(path: impl Into<String>, message: &str) -> Finding {
    Finding { path: path.into(), message: message.into() }
}
