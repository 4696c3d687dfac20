//! Tokens to a tree, by the precedence of reference 15.3.

use std::ops::Range;

use windlass_protocol::limits::{CONDITION_DEPTH_MAX, CONDITION_MAX_BYTES};

use super::error::{Error, ErrorKind};
use super::escape;
use super::lexer::{Lexer, Place, Token};
use super::regex::{Effort, Pattern};
use super::syntax::{Comparison, Expression, Kind, Literal};
use super::template::Templates;

/// Reads a whole expression; with an account, making its patterns takes from it.
pub(super) fn parse(text: &str, effort: Option<&Effort>) -> Result<Expression, Error> {
    if text.len() > CONDITION_MAX_BYTES {
        let message = format!("the expression has {} bytes; {CONDITION_MAX_BYTES} are the most", text.len());
        return Err(Error::new(ErrorKind::Parse, message, 0..text.len()));
    }
    let mut lexer = Lexer::new(text);
    let next = lexer.next()?;
    let mut parser = Parser { text, lexer, next, effort, templates: Templates::default(), depth: 0, chained: 0 };
    if parser.next.token == Token::End {
        return Err(parser.unexpected("an expression"));
    }
    let expression = parser.expression()?;
    match parser.next.token {
        Token::End => Ok(expression),
        _ => Err(parser.unexpected("an operator or the end")),
    }
}

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    next: Place<'a>,
    effort: Option<&'a Effort>,
    templates: Templates,
    /// Of what is being read.
    depth: usize,
    /// Comparisons of comparisons: each makes the tree deeper, though nothing is nested in the text.
    chained: usize,
}

type Parsed = Result<Expression, Error>;

impl<'a> Parser<'a> {
    fn advance(&mut self) -> Result<Place<'a>, Error> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.next, next))
    }

    fn accept(&mut self, token: &Token<'_>) -> Result<bool, Error> {
        let found = self.next.token == *token;
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, token: &Token<'_>, what: &str) -> Result<Range<usize>, Error> {
        if self.next.token == *token { Ok(self.advance()?.span) } else { Err(self.unexpected(what)) }
    }

    fn unexpected(&self, wanted: &str) -> Error {
        let message = match &self.next.token {
            Token::End => format!("the expression ends where {wanted} should stand"),
            _ => format!("`{}` stands where {wanted} should", &self.text[self.next.span.clone()]),
        };
        Error::new(ErrorKind::Parse, message, self.next.span.clone())
    }

    fn deeper(&mut self) -> Result<(), Error> {
        self.depth += 1;
        self.within_limits()
    }

    fn within_limits(&self) -> Result<(), Error> {
        if self.depth.max(self.chained) > CONDITION_DEPTH_MAX {
            let message = format!("the expression is nested deeper than {CONDITION_DEPTH_MAX}");
            return Err(Error::new(ErrorKind::Parse, message, self.next.span.clone()));
        }
        Ok(())
    }

    fn expression(&mut self) -> Parsed {
        self.deeper()?;
        let condition = self.disjunction()?;
        let expression = if self.accept(&Token::Question)? {
            let yes = self.expression()?;
            self.expect(&Token::Colon, "`:`")?;
            let no = self.expression()?;
            let span = condition.span.start..no.span.end;
            let kind = Kind::Choose { condition: Box::new(condition), yes: Box::new(yes), no: Box::new(no) };
            Expression { span, kind }
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn disjunction(&mut self) -> Parsed {
        let mut operands = vec![self.conjunction()?];
        while self.accept(&Token::Or)? {
            operands.push(self.conjunction()?);
        }
        Ok(chain(operands, Kind::Or))
    }

    fn conjunction(&mut self) -> Parsed {
        let mut operands = vec![self.comparison()?];
        while self.accept(&Token::And)? {
            operands.push(self.comparison()?);
        }
        Ok(chain(operands, Kind::And))
    }

    fn comparison(&mut self) -> Parsed {
        self.deeper()?;
        let mut left = self.unary()?;
        while let Some(operator) = comparison(&self.next.token) {
            self.advance()?;
            let right = self.unary()?;
            self.chained += usize::from(matches!(left.kind, Kind::Compare { .. }));
            self.within_limits()?;
            let span = left.span.start..right.span.end;
            left = Expression { span, kind: Kind::Compare { operator, left: Box::new(left), right: Box::new(right) } };
        }
        self.depth -= 1;
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        if self.next.token != Token::Not {
            return self.primary();
        }
        self.deeper()?;
        let start = self.advance()?.span.start;
        let operand = self.unary()?;
        self.depth -= 1;
        Ok(Expression { span: start..operand.span.end, kind: Kind::Not(Box::new(operand)) })
    }

    fn primary(&mut self) -> Parsed {
        let Place { token, span } = self.next.clone();
        let kind = match token {
            Token::Integer(digits) => Kind::Integer(integer(digits, &span)?),
            Token::Double(raw) => Kind::Text(self.double(raw, &span)?),
            Token::Single(raw) => Kind::Text(Literal {
                source: format!("'{raw}'"),
                value: escape::single(raw.as_bytes()),
                template: None,
                is_static: true,
            }),
            Token::Regex { source, flags } => Kind::Regex(Pattern::parse(source, flags, &span, self.effort)?),
            Token::Shell(source) => {
                let variable = self.templates.variable(source.as_bytes(), span.start, 0)?;
                Kind::Shell { source: source.to_owned(), variable: Box::new(variable) }
            }
            Token::Identifier(name) => return self.name(name),
            Token::OpenParenthesis => {
                self.advance()?;
                let mut inner = self.expression()?;
                inner.span = span.start..self.expect(&Token::CloseParenthesis, "`)`")?.end;
                return Ok(inner);
            }
            Token::OpenBracket => {
                self.advance()?;
                let (elements, end) = self.arguments(&Token::CloseBracket, "`,` or `]`")?;
                return Ok(Expression { span: span.start..end, kind: Kind::List(elements) });
            }
            _ => return Err(self.unexpected("a value")),
        };
        self.advance()?;
        Ok(Expression { span, kind })
    }

    fn name(&mut self, name: &str) -> Parsed {
        if name == "includes" {
            return Err(self.unexpected("a value"));
        }
        let span = self.advance()?.span;
        let kind = match name {
            "true" => Kind::Bool(true),
            "false" => Kind::Bool(false),
            "null" => Kind::Null,
            _ if self.accept(&Token::OpenParenthesis)? => {
                let (arguments, end) = self.arguments(&Token::CloseParenthesis, "`,` or `)`")?;
                let kind = Kind::Call { name: name.to_owned(), arguments };
                return Ok(Expression { span: span.start..end, kind });
            }
            _ => Kind::Name(name.to_owned()),
        };
        Ok(Expression { span, kind })
    }

    /// Expressions with commas between them, up to the sign that ends them; where that ends.
    fn arguments(&mut self, end: &Token<'_>, what: &str) -> Result<(Vec<Expression>, usize), Error> {
        let mut arguments = Vec::new();
        if self.next.token != *end {
            arguments.push(self.expression()?);
            while self.accept(&Token::Comma)? {
                arguments.push(self.expression()?);
            }
        }
        Ok((arguments, self.expect(end, what)?.end))
    }

    fn double(&mut self, raw: &str, span: &Range<usize>) -> Result<Literal, Error> {
        let base = span.start + 1;
        let template = if self.templates.has_template(raw, base)? {
            Some(self.templates.text(raw.as_bytes(), base, 0)?)
        } else {
            None
        };
        let is_static = template.is_none() || !self.templates.has_expansion(raw, base)?;
        Ok(Literal { source: format!("\"{raw}\""), value: decoded(raw.as_bytes()), template, is_static })
    }
}

/// The bytes of a `"…"` whose escapes are known to be right.
fn decoded(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    while at < raw.len() {
        let (byte, width) = match raw[at] {
            b'\\' => escape::double(&raw[at..]).unwrap_or((b'\\', 1)),
            byte => (byte, 1),
        };
        out.push(byte);
        at += width;
    }
    out
}

/// Octal with a leading zero.
fn integer(digits: &str, span: &Range<usize>) -> Result<i64, Error> {
    let base = if digits.len() > 1 && digits.starts_with('0') { 8 } else { 10 };
    i64::from_str_radix(digits, base).map_err(|_| {
        let message = if base == 8 && digits.contains(['8', '9']) {
            format!("`{digits}` is no number: a leading zero means octal")
        } else {
            format!("`{digits}` does not fit 64 bits")
        };
        Error::new(ErrorKind::Parse, message, span.clone())
    })
}

fn comparison(token: &Token<'_>) -> Option<Comparison> {
    Some(match token {
        Token::Equal => Comparison::Equal,
        Token::NotEqual => Comparison::NotEqual,
        Token::Match => Comparison::Match,
        Token::NoMatch => Comparison::NoMatch,
        Token::Identifier("includes") => Comparison::Includes,
        _ => return None,
    })
}

fn chain(mut operands: Vec<Expression>, kind: fn(Vec<Expression>) -> Kind) -> Expression {
    if operands.len() == 1
        && let Some(only) = operands.pop()
    {
        return only;
    }
    let start = operands.first().map_or(0, |first| first.span.start);
    let end = operands.last().map_or(start, |last| last.span.end);
    Expression { span: start..end, kind: kind(operands) }
}
