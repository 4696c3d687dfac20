//! The tree of an expression, and its text again.

use std::fmt;
use std::ops::Range;

use super::regex::Pattern;
use super::template::{Piece, Variable};

/// A part of an expression and where it stands. Two are equal if they say the same, wherever they stand.
#[derive(Debug, Clone)]
pub(super) struct Expression {
    pub(super) span: Range<usize>,
    pub(super) kind: Kind,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Integer(i64),
    Text(Literal),
    Regex(Pattern),
    Shell {
        source: String,
        variable: Box<Variable>,
    },
    Name(String),
    Call {
        name: String,
        arguments: Vec<Expression>,
    },
    List(Vec<Expression>),
    Not(Box<Expression>),
    /// Two or more.
    And(Vec<Expression>),
    /// Two or more.
    Or(Vec<Expression>),
    Compare {
        operator: Comparison,
        left: Box<Expression>,
        right: Box<Expression>,
    },
    Choose {
        condition: Box<Expression>,
        yes: Box<Expression>,
        no: Box<Expression>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Match,
    NoMatch,
    Includes,
}

/// A string as it is written.
#[derive(Debug, Clone)]
pub(super) struct Literal {
    /// With its quotes.
    pub(super) source: String,
    /// Its bytes where nothing is expanded.
    pub(super) value: Vec<u8>,
    /// What is expanded when it is evaluated.
    pub(super) template: Option<Vec<Piece>>,
    /// Whether what it gives depends on the environment; `$$` alone does not.
    pub(super) is_static: bool,
}

impl PartialEq for Literal {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Expression {
    /// Of a string that the environment cannot change.
    pub(super) fn static_text(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Text(literal) if literal.is_static => Some(&literal.value),
            _ => None,
        }
    }

    const fn is_compound(&self) -> bool {
        matches!(self.kind, Kind::And(_) | Kind::Or(_) | Kind::Compare { .. } | Kind::Choose { .. })
    }
}

/// An operand: in parentheses if it has parts of its own, so that no precedence is needed to read it.
struct Operand<'a>(&'a Expression);

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_compound() { write!(f, "({})", self.0) } else { self.0.fmt(f) }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Match => "=~",
            Self::NoMatch => "!~",
            Self::Includes => "includes",
        })
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Null => f.write_str("null"),
            Kind::Bool(value) => value.fmt(f),
            Kind::Integer(value) => value.fmt(f),
            Kind::Text(literal) => f.write_str(&literal.source),
            Kind::Regex(pattern) => pattern.fmt(f),
            Kind::Shell { source, .. } => f.write_str(source),
            Kind::Name(name) => f.write_str(name),
            Kind::Call { name, arguments } => {
                write!(f, "{name}(")?;
                joined(f, arguments)?;
                f.write_str(")")
            }
            Kind::List(elements) => {
                f.write_str("[")?;
                joined(f, elements)?;
                f.write_str("]")
            }
            Kind::Not(operand) => write!(f, "!{}", Operand(operand)),
            Kind::And(operands) => chain(f, operands, "&&"),
            Kind::Or(operands) => chain(f, operands, "||"),
            Kind::Compare { operator, left, right } => write!(f, "{} {operator} {}", Operand(left), Operand(right)),
            Kind::Choose { condition, yes, no } => {
                write!(f, "{} ? {} : {}", Operand(condition), Operand(yes), Operand(no))
            }
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, items: &[Expression]) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if index > 0 { ", " } else { "" })?;
    }
    Ok(())
}

fn chain(f: &mut fmt::Formatter<'_>, operands: &[Expression], sign: &str) -> fmt::Result {
    for (index, operand) in operands.iter().enumerate() {
        if index > 0 {
            write!(f, " {sign} ")?;
        }
        write!(f, "{}", Operand(operand))?;
    }
    Ok(())
}
