//! Tokens of a matrix in text: `{{matrix}}`, `{{ matrix.os }}` (reference 8.2).

/// The text with its tokens replaced, in one pass; `None` if it has none.
///
/// # Errors
/// The first token that names no dimension, as written.
pub(super) fn replace(text: &str, choice: &[(String, String)]) -> Result<Option<String>, String> {
    let mut out = String::new();
    let mut rest = text;
    let mut found = false;
    while let Some(at) = rest.find("{{") {
        let Some((length, dimension)) = token(&rest[at..]) else {
            // One brace at a time: `{{{matrix}}` has a token from the second on.
            out.push_str(&rest[..=at]);
            rest = &rest[at + 1..];
            continue;
        };
        let whole = &rest[at..at + length];
        let value = choice.iter().find(|(name, _)| *name == dimension).map(|(_, value)| value);
        out.push_str(&rest[..at]);
        out.push_str(value.ok_or_else(|| whole.to_owned())?);
        rest = &rest[at + length..];
        found = true;
    }
    out.push_str(rest);
    Ok(found.then_some(out))
}

/// The length of the token that the text begins with, and its dimension: empty for the anonymous one.
fn token(text: &str) -> Option<(usize, &str)> {
    let inner = text.strip_prefix("{{")?.trim_start_matches(is_space).strip_prefix("matrix")?;
    let (dimension, after) = match inner.strip_prefix('.') {
        Some(named) => {
            let end = named.find(|c: char| !(c.is_ascii_alphanumeric() || "_-.".contains(c))).unwrap_or(named.len());
            if end == 0 {
                return None;
            }
            (&named[..end], &named[end..])
        }
        None => ("", inner),
    };
    let after = after.trim_start_matches(is_space).strip_prefix("}}")?;
    Some((text.len() - after.len(), dimension))
}

/// The dimension that a token names.
pub(super) fn dimension(whole: &str) -> Option<&str> {
    token(whole).map(|(_, dimension)| dimension)
}

/// White space of Go's regular expressions.
const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c')
}

#[cfg(test)]
mod tests {
    use super::replace;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn tokens_are_replaced_in_one_pass_and_anything_else_stays() {
        let named = pairs(&[("os", "linux"), ("a.b-c", "{{matrix.os}}")]);
        for (text, expected) in [
            ("{{matrix.os}}", "linux"),
            ("x{{ matrix.os }}y{{\tmatrix.os\n}}", "xlinuxylinux"),
            ("{{matrix.a.b-c}}", "{{matrix.os}}"),
            ("{{{matrix.os}}}", "{linux}"),
            ("{{matrixos}} {{ os }} {{matrix.}} {{matrix.os} {{", "{{matrixos}} {{ os }} {{matrix.}} {{matrix.os} {{"),
            ("é{{matrix.os}}é", "élinuxé"),
        ] {
            let replaced = replace(text, &named).map(|it| it.unwrap_or_else(|| text.to_owned()));
            assert_eq!(replaced, Ok(expected.to_owned()), "{text}");
        }
        assert_eq!(replace("{{ matrix }}", &pairs(&[("", "x")])), Ok(Some("x".to_owned())));
        assert_eq!(replace("none", &named), Ok(None));
    }

    #[test]
    fn a_token_of_no_dimension_is_an_error() {
        let named = pairs(&[("os", "linux")]);
        assert_eq!(replace("a {{matrix.arch}}", &named), Err("{{matrix.arch}}".to_owned()));
        assert_eq!(replace("{{ matrix }}", &named), Err("{{ matrix }}".to_owned()));
        assert_eq!(replace("{{matrix.os}}", &pairs(&[("", "x")])), Err("{{matrix.os}}".to_owned()));
    }
}
