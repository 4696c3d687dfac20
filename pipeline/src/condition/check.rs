//! The types of an expression, checked over the whole tree before anything is evaluated (reference 15.4).

use std::collections::BTreeSet;

use super::EntryPoint;
use super::error::{Error, ErrorKind};
use super::syntax::{Comparison, Expression, Kind};
use super::variable::{self, Enumeration, Holds};
use crate::suggest::did_you_mean;

/// The kind of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    Enumeration(Enumeration),
    Number,
    Bool,
    Null,
    Regex,
    List,
}

impl Type {
    const fn name(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Enumeration(Enumeration { name, .. }) => name,
            Self::Number => "a number",
            Self::Bool => "true or false",
            Self::Null => "null",
            Self::Regex => "a regular expression",
            Self::List => "an array of strings",
        }
    }
}

type Checked<T> = Result<T, Error>;

/// Checks a whole expression; gives the variables that it names.
pub(super) fn check(expression: &Expression, entry: EntryPoint) -> Checked<BTreeSet<String>> {
    let mut checker = Checker { entry, names: BTreeSet::new() };
    match checker.of(expression)? {
        Type::Bool => Ok(checker.names),
        other => {
            let message = format!("the expression gives {}, not true or false", other.name());
            Err(Error::new(ErrorKind::Result, message, expression.span.clone()))
        }
    }
}

struct Checker {
    entry: EntryPoint,
    names: BTreeSet<String>,
}

impl Checker {
    fn of(&mut self, expression: &Expression) -> Checked<Type> {
        Ok(match &expression.kind {
            Kind::Null => Type::Null,
            Kind::Bool(_) => Type::Bool,
            Kind::Integer(_) => Type::Number,
            Kind::Text(_) | Kind::Shell { .. } => Type::Text,
            Kind::Regex(_) => Type::Regex,
            Kind::Name(name) => self.variable(name, expression)?,
            Kind::Call { name, arguments } => self.call(name, arguments, expression)?,
            Kind::List(elements) => {
                for element in elements {
                    self.expect(element, &[Type::Text], "an array holds strings")?;
                }
                Type::List
            }
            Kind::Not(operand) => {
                self.expect(operand, &[Type::Bool], "`!` takes true or false")?;
                Type::Bool
            }
            Kind::And(operands) | Kind::Or(operands) => {
                for operand in operands {
                    self.expect(operand, &[Type::Bool], "`&&` and `||` take true or false")?;
                }
                Type::Bool
            }
            Kind::Compare { operator, left, right } => self.comparison(*operator, left, right)?,
            Kind::Choose { condition, yes, no } => {
                self.expect(condition, &[Type::Bool], "before `?` stands true or false")?;
                self.compatible(yes, no)?
            }
        })
    }

    fn expect(&mut self, expression: &Expression, fits: &[Type], why: &str) -> Checked<Type> {
        let found = self.of(expression)?;
        if fits.contains(&found) {
            return Ok(found);
        }
        Err(wrong(expression, format!("{why}, not {}", found.name())))
    }

    fn comparison(&mut self, operator: Comparison, left: &Expression, right: &Expression) -> Checked<Type> {
        match operator {
            Comparison::Equal | Comparison::NotEqual => {
                self.compatible(left, right)?;
            }
            Comparison::Match | Comparison::NoMatch => {
                self.expect(left, &[Type::Text, Type::Null], "a match takes a string on the left")?;
                self.expect(right, &[Type::Regex], "a match takes a regular expression on the right")?;
            }
            Comparison::Includes => {
                self.expect(left, &[Type::List, Type::Null], "`includes` takes an array on the left")?;
                let fits = [Type::Text, Type::Regex, Type::Null];
                self.expect(right, &fits, "`includes` takes a string or a regular expression on the right")?;
            }
        }
        Ok(Type::Bool)
    }

    /// Two sides of an equality, or two branches of a choice: what both are.
    fn compatible(&mut self, left: &Expression, right: &Expression) -> Checked<Type> {
        let (first, second) = (self.of(left)?, self.of(right)?);
        match (first, second) {
            (Type::Null, other) | (other, Type::Null) => Ok(other),
            (Type::Enumeration(set), Type::Text) => match right.static_text() {
                Some(value) if !set.values.iter().any(|known| known.as_bytes() == value) => {
                    let value = String::from_utf8_lossy(value).into_owned();
                    let hint = did_you_mean(&value, set.values.iter().copied());
                    Err(Error { hint, ..wrong(right, format!("`{value}` is no {}", set.name)) })
                }
                _ => Ok(first),
            },
            (Type::Enumeration(_), _) | (_, Type::Enumeration(_)) => {
                let message =
                    format!("{} is compared with a string, and stands on the left", first.enumeration_or(second));
                Err(wrong(right, message))
            }
            _ if first == second => Ok(first),
            _ => Err(wrong(right, format!("{} and {} do not go together", first.name(), second.name()))),
        }
    }

    fn variable(&mut self, name: &str, expression: &Expression) -> Checked<Type> {
        let knows_step = matches!(self.entry, EntryPoint::BuildConditionWithStep | EntryPoint::StepNotification);
        let Some(holds) = variable::holds(name) else {
            let known = variable::VARIABLES.iter().map(|(name, _)| *name);
            let known = known.filter(|known| knows_step || !known.starts_with("step."));
            let hint = did_you_mean(name, known);
            return Err(Error { hint, ..wrong(expression, format!("there is no variable `{name}`")) });
        };
        if !knows_step && name.starts_with("step.") {
            return Err(wrong(expression, format!("`{name}` is known only in the `notify` of a step")));
        }
        self.names.insert(name.to_owned());
        Ok(match holds {
            Holds::Text { .. } => Type::Text,
            Holds::Number => Type::Number,
            Holds::Bool => Type::Bool,
            Holds::List => Type::List,
            Holds::Enumeration(set) => Type::Enumeration(set),
        })
    }

    fn call(&mut self, name: &str, arguments: &[Expression], whole: &Expression) -> Checked<Type> {
        if !matches!(name, "env" | "build.env") {
            let hint = did_you_mean(name, ["env", "build.env"]);
            return Err(Error { hint, ..wrong(whole, format!("there is no function `{name}`")) });
        }
        let [argument] = arguments else {
            return Err(wrong(whole, format!("`{name}` takes one name, not {}", arguments.len())));
        };
        match self.of(argument)? {
            Type::Text | Type::Enumeration(_) => {}
            other => return Err(wrong(argument, format!("`{name}` takes a string, not {}", other.name()))),
        }
        if let Some(literal) = argument.static_text() {
            environment_name(literal, argument)?;
        }
        Ok(Type::Text)
    }
}

impl Type {
    const fn enumeration_or(self, other: Self) -> &'static str {
        match (self, other) {
            (Self::Enumeration(set), _) | (_, Self::Enumeration(set)) => set.name,
            _ => self.name(),
        }
    }
}

/// A name that is written out must be one that the environment can have.
fn environment_name(literal: &[u8], argument: &Expression) -> Checked<()> {
    let name = String::from_utf8_lossy(literal);
    if let Some(rest) = name.strip_prefix('$') {
        let rest = rest.trim_start_matches('$');
        let hint = (!rest.is_empty()).then(|| format!("did you mean `{rest}`?"));
        return Err(Error { hint, ..wrong(argument, "a variable's name is written without `$` here") });
    }
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(wrong(argument, "a variable's name has letters, digits and `_`"));
    }
    if name.starts_with("BUILDKITE_") && !variable::ENVIRONMENT.contains(&name.as_ref()) {
        let hint = did_you_mean(&name, variable::ENVIRONMENT);
        let message = format!("`{name}` is not known to conditions");
        return Err(Error { hint, ..wrong(argument, message) });
    }
    Ok(())
}

fn wrong(expression: &Expression, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Validation, message, expression.span.clone())
}
