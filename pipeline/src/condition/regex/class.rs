//! Classes `[…]`, properties, and characters written as escapes.

use super::translate::{Reader, Refused};

/// POSIX names that stand in `[:…:]`.
const NAMES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// The byte after the `]` that closes a class, without reading it.
pub(super) fn end(source: &str, start: usize) -> Option<usize> {
    let bytes = source.as_bytes();
    let mut at = start + 1;
    at += usize::from(bytes.get(at) == Some(&b'^'));
    let first = at;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 1,
            b'[' if bytes.get(at + 1) == Some(&b':') => {
                at = source[at..].find(":]").map_or(at, |end| at + end + 1);
            }
            b'[' if at > first && bytes[at - 1] == b'-' => at = end(source, at)? - 1,
            b']' if at > first => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
}

/// What one item of a class is.
enum Item {
    Character(char),
    /// Written already; no end of a range.
    Set(String),
}

/// Reads a class whose `[` is behind, and writes it.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<(), Refused> {
    let begin = reader.at - 1;
    reader.deeper()?;
    reader.out.push('[');
    if reader.accept("^") {
        reader.out.push('^');
    }
    // In brackets of its own, so that a subtraction takes from all of it.
    reader.out.push('[');
    let mut first = true;
    loop {
        if !first && reader.accept("]") {
            break;
        }
        if !first && reader.source[reader.at..].starts_with("-[") && !reader.source[reader.at..].starts_with("-[:") {
            reader.at += 2;
            reader.out.push_str("]--");
            read(reader)?;
            if !reader.accept("]") {
                return Err(reader.refused("what is taken from a class stands at its end"));
            }
            reader.out.push(']');
            reader.higher();
            return Ok(());
        }
        let Some(item) = item(reader)? else {
            reader.at = begin;
            return Err(reader.refused("the `[` is not closed"));
        };
        first = false;
        range(reader, item)?;
    }
    reader.out.push_str("]]");
    reader.higher();
    Ok(())
}

/// Writes an item, with the one after it if a `-` joins them.
fn range(reader: &mut Reader<'_>, item: Item) -> Result<(), Refused> {
    let low = match item {
        Item::Set(set) => {
            reader.out.push_str(&set);
            return Ok(());
        }
        Item::Character(low) => low,
    };
    reader.literal(low);
    let rest = &reader.source[reader.at..];
    let joined = rest.strip_prefix('-').is_some_and(|rest| !rest.starts_with([']', '[']) && !rest.is_empty());
    if !joined {
        return Ok(());
    }
    reader.at += 1;
    let at = reader.at;
    match self::item(reader)? {
        Some(Item::Character(high)) if low <= high => {
            reader.out.push('-');
            reader.literal(high);
            Ok(())
        }
        Some(Item::Character(_)) => {
            reader.at = at;
            Err(reader.refused("the range is upside down"))
        }
        _ => {
            reader.at = at;
            Err(reader.refused("a range ends with a character"))
        }
    }
}

fn item(reader: &mut Reader<'_>) -> Result<Option<Item>, Refused> {
    if reader.source[reader.at..].starts_with("[:")
        && let Some(name) = posix(reader)?
    {
        return Ok(Some(Item::Set(name)));
    }
    let Some(character) = reader.take() else { return Ok(None) };
    if character != '\\' {
        return Ok(Some(Item::Character(character)));
    }
    Ok(Some(match reader.peek() {
        Some(set @ ('w' | 'W' | 's' | 'S' | 'd' | 'D')) => {
            reader.at += 1;
            Item::Set(format!("\\{set}"))
        }
        Some('p' | 'P') => Item::Set(property(reader)?),
        Some('b') => {
            reader.at += 1;
            Item::Character('\u{8}')
        }
        _ => Item::Character(self::character(reader)?),
    }))
}

/// `[:name:]`; `None` where the brackets are only characters.
fn posix(reader: &mut Reader<'_>) -> Result<Option<String>, Refused> {
    let Some((inner, _)) = reader.source[reader.at + 2..].split_once(":]") else { return Ok(None) };
    let name = inner.strip_prefix('^').unwrap_or(inner);
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Ok(None);
    }
    if !NAMES.contains(&name) {
        return Err(reader.refused(format!("there is no class `[:{name}:]`")));
    }
    let written = format!("[:{inner}:]");
    reader.at += written.len();
    Ok(Some(written))
}

/// `p{Name}` or `P{Name}`, the backslash being behind.
pub(super) fn property(reader: &mut Reader<'_>) -> Result<String, Refused> {
    let rest = &reader.source[reader.at..];
    let name = rest.get(1..).and_then(|rest| rest.strip_prefix('{')?.split_once('}')).map(|(name, _)| name);
    let fits = |name: &&str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    let Some(name) = name.filter(fits) else { return Err(reader.refused("a property is written `\\p{Name}`")) };
    let written = format!("\\{}{{{name}}}", &rest[..1]);
    if fancy_regex::Regex::new(&written).is_err() {
        return Err(reader.refused(format!("there is no property `{name}`")));
    }
    reader.at += name.len() + 3;
    Ok(written)
}

/// The character that an escape stands for, the backslash being behind. What is no letter, digit or `_` is itself.
pub(super) fn character(reader: &mut Reader<'_>) -> Result<char, Refused> {
    let begin = reader.at;
    let Some(character) = reader.take() else { return Err(reader.refused("nothing follows the backslash")) };
    let code = match character {
        'a' => 0x07,
        'b' => 0x08,
        'e' => 0x1b,
        'f' => 0x0c,
        'n' => 0x0a,
        'r' => 0x0d,
        't' => 0x09,
        'v' => 0x0b,
        'x' if reader.accept("{") => braced(reader)?,
        'x' => digits(reader, 2, 16)?,
        'u' => digits(reader, 4, 16)?,
        'c' => control(reader)?,
        '0'..='7' => {
            reader.at = begin;
            let rest = &reader.source[begin..];
            let width = rest.bytes().take(3).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
            // Three digits of octal may be more than a byte; a byte is what is kept.
            digits(reader, width, 8)? & 0xff
        }
        other if other.is_alphanumeric() || other == '_' => {
            reader.at = begin;
            return Err(reader.refused(format!("there is no escape `\\{other}`")));
        }
        other => return Ok(other),
    };
    char::from_u32(code).ok_or_else(|| reader.refused("there is no character of this number"))
}

fn digits(reader: &mut Reader<'_>, width: usize, base: u32) -> Result<u32, Refused> {
    let written = reader.source.get(reader.at..reader.at + width).filter(|text| text.chars().all(|c| c.is_digit(base)));
    let Some(code) = written.and_then(|text| u32::from_str_radix(text, base).ok()) else {
        return Err(reader.refused(format!("{width} digits are wanted here")));
    };
    reader.at += width;
    Ok(code)
}

fn braced(reader: &mut Reader<'_>) -> Result<u32, Refused> {
    let inner = reader.source[reader.at..].split_once('}').map(|(inner, _)| inner);
    let digits = inner.filter(|text| !text.is_empty() && text.chars().all(|c| c.is_ascii_hexdigit()));
    let Some((width, code)) = digits.and_then(|text| Some((text.len(), u32::from_str_radix(text, 16).ok()?))) else {
        return Err(reader.refused("a number in hexadecimal is wanted between the braces"));
    };
    reader.at += width + 1;
    Ok(code)
}

/// `\cA` is 1, and so on.
fn control(reader: &mut Reader<'_>) -> Result<u32, Refused> {
    match reader.take().map(|letter| letter.to_ascii_uppercase()) {
        Some(letter @ '@'..='_') => Ok(u32::from(letter) - u32::from('@')),
        _ => Err(reader.refused("a letter is wanted after `\\c`")),
    }
}
