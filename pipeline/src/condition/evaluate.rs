//! Values of an expression (reference 15.5).

use super::context::{Context, Environment, Value};
use super::error::{Error, ErrorKind};
use super::regex::{Effort, Pattern};
use super::syntax::{Comparison, Expression, Kind};
use super::template::{self, Lookup};
use super::variable;

/// What a part comes to. Strings are bytes: an escape can make what is no character.
#[derive(Debug, Clone, PartialEq)]
enum Outcome<'a> {
    Null,
    Bool(bool),
    Number(i64),
    Text(Vec<u8>),
    Regex(&'a Pattern),
    List(Vec<Vec<u8>>),
}

impl Outcome<'_> {
    /// Null is false.
    const fn is_true(&self) -> bool {
        matches!(self, Self::Bool(true))
    }
}

/// Whether an expression, checked already, holds. `environment` is the context's.
pub(super) fn evaluate(
    expression: &Expression,
    context: &Context,
    environment: &Environment,
    effort: &Effort,
) -> Result<bool, Error> {
    Ok(Evaluation { context, environment, effort }.of(expression)?.is_true())
}

struct Evaluation<'a> {
    context: &'a Context,
    environment: &'a dyn Lookup,
    effort: &'a Effort,
}

impl Evaluation<'_> {
    fn of<'e>(&self, expression: &'e Expression) -> Result<Outcome<'e>, Error> {
        Ok(match &expression.kind {
            Kind::Null => Outcome::Null,
            Kind::Bool(value) => Outcome::Bool(*value),
            Kind::Integer(value) => Outcome::Number(*value),
            Kind::Text(literal) => Outcome::Text(match &literal.template {
                None => literal.value.clone(),
                Some(pieces) => template::text(pieces, self.environment, &expression.span)?,
            }),
            Kind::Regex(pattern) => Outcome::Regex(pattern),
            Kind::Shell { variable, .. } => variable.value(self.environment)?.map_or(Outcome::Null, Outcome::Text),
            Kind::Name(name) => self.variable(name),
            Kind::Call { name, arguments } => self.call(name, arguments, expression)?,
            Kind::List(elements) => Outcome::List(self.list(elements)?),
            Kind::Not(operand) => Outcome::Bool(!self.of(operand)?.is_true()),
            Kind::And(operands) => Outcome::Bool(self.all(operands, true)?),
            Kind::Or(operands) => Outcome::Bool(!self.all(operands, false)?),
            Kind::Compare { operator, left, right } => Outcome::Bool(self.compare(*operator, left, right)?),
            Kind::Choose { condition, yes, no } => self.of(if self.of(condition)?.is_true() { yes } else { no })?,
        })
    }

    /// Whether all are so; what comes after the first that is not is left alone.
    fn all(&self, operands: &[Expression], wanted: bool) -> Result<bool, Error> {
        for operand in operands {
            if self.of(operand)?.is_true() != wanted {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn variable(&self, name: &str) -> Outcome<'static> {
        match self.context.value(name) {
            Value::Null => Outcome::Null,
            Value::Text(text) => Outcome::Text(text.into_bytes()),
            Value::Number(number) => Outcome::Number(number),
            Value::Bool(value) => Outcome::Bool(value),
            Value::List(items) => Outcome::List(items.into_iter().map(String::into_bytes).collect()),
        }
    }

    fn call(&self, function: &str, arguments: &[Expression], whole: &Expression) -> Result<Outcome<'static>, Error> {
        let [argument] = arguments else { return Ok(Outcome::Null) };
        let name = match self.of(argument)? {
            Outcome::Text(name) if !name.is_empty() => name,
            _ => return Err(failed(argument, "the variable's name is empty")),
        };
        let Ok(name) = String::from_utf8(name) else { return Err(failed(argument, "the variable's name is no text")) };
        if !variable::is_visible(&name) {
            return Err(failed(whole, "the variable is not known to conditions"));
        }
        Ok(match self.environment.value(&name) {
            Some(value) => Outcome::Text(value.as_bytes().to_vec()),
            None if function == "env" => Outcome::Text(Vec::new()),
            None => Outcome::Null,
        })
    }

    fn list(&self, elements: &[Expression]) -> Result<Vec<Vec<u8>>, Error> {
        let mut list = Vec::with_capacity(elements.len());
        for element in elements {
            match self.of(element)? {
                Outcome::Text(text) => list.push(text),
                _ => return Err(failed(element, "an element of an array is null")),
            }
        }
        Ok(list)
    }

    fn compare(&self, operator: Comparison, left: &Expression, right: &Expression) -> Result<bool, Error> {
        let (left, right) = (self.of(left)?, (self.of(right)?, right));
        Ok(match operator {
            Comparison::Equal => left == right.0,
            Comparison::NotEqual => left != right.0,
            Comparison::Match => self.matches(&left, &right)?,
            Comparison::NoMatch => !self.matches(&left, &right)?,
            Comparison::Includes => match (&left, &right.0) {
                (Outcome::List(items), Outcome::Text(wanted)) => items.contains(wanted),
                (Outcome::List(items), Outcome::Regex(pattern)) => {
                    for item in items {
                        if pattern.is_match(item, &right.1.span, self.effort)? {
                            return Ok(true);
                        }
                    }
                    false
                }
                _ => false,
            },
        })
    }

    /// Null matches nothing.
    fn matches(&self, left: &Outcome<'_>, right: &(Outcome<'_>, &Expression)) -> Result<bool, Error> {
        match (left, &right.0) {
            (Outcome::Text(text), Outcome::Regex(pattern)) => pattern.is_match(text, &right.1.span, self.effort),
            _ => Ok(false),
        }
    }
}

fn failed(expression: &Expression, message: &str) -> Error {
    Error::new(ErrorKind::Evaluation, message, expression.span.clone())
}
