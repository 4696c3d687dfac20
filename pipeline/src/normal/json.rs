//! Trees as JSON, the order of keys kept.

use serde_json::{Map as Object, Number, Value};

use crate::diagnostic::{Diagnostic, Span};
use crate::yaml::{Kind, Node};

/// A number that JSON cannot write: infinite, or none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("JSON has no number for `.inf` and `.nan`")]
pub struct NotJson {
    /// Where it stands.
    pub span: Span,
}

impl From<NotJson> for Diagnostic {
    fn from(refused: NotJson) -> Self {
        Self::error("not-json", refused.span, refused.to_string())
    }
}

/// A tree as JSON: dates as text, whole floats as integers.
///
/// # Errors
/// It holds a number that JSON cannot write.
pub fn to_json(node: &Node) -> Result<Value, NotJson> {
    Ok(match &node.kind {
        Kind::Null => Value::Null,
        Kind::Bool(value) => Value::Bool(*value),
        Kind::Int(value) => (*value).into(),
        Kind::Unsigned(value) => (*value).into(),
        Kind::Float(value) => Value::Number(number(*value).ok_or(NotJson { span: node.span })?),
        Kind::Time(text) | Kind::Text(text) => Value::String(text.clone()),
        Kind::List(items) => Value::Array(items.iter().map(to_json).collect::<Result<_, _>>()?),
        Kind::Map(map) => {
            let members: Result<Object<String, Value>, NotJson> =
                map.iter().map(|entry| Ok((entry.key.clone(), to_json(&entry.value)?))).collect();
            Value::Object(members?)
        }
    })
}

/// Whole numbers are written without a fraction, as far as a float tells them apart.
fn number(value: f64) -> Option<Number> {
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= WHOLE_MAX {
        let whole: i64 = format!("{value:.0}").parse().ok()?;
        return Some(whole.into());
    }
    Number::from_f64(value)
}
