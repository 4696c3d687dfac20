//! Names that a misspelt one may have meant.

/// Longest name that is compared; longer ones are not worth the time.
const COMPARED_MAX_CHARS: usize = 64;

/// Edits that a long word may be away.
const MISSING_MAX: usize = 3;

/// Names compared for one suggestion: enough for every attribute and a large pipeline's keys.
const CANDIDATES_MAX: usize = 2_000;

/// The nearest of `names`, if it is near enough to be meant.
pub(crate) fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(written);
    names
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter_map(|name| is_near(&folded, name).map(|distance| (distance, name)))
        .min()
        .map(|(_, name)| name)
}

/// `did you mean …?` for the nearest of `names`.
pub(crate) fn did_you_mean<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(written, names).map(|name| format!("did you mean `{name}`?"))
}

/// How many edits lie between the two, if so few that one may stand for the other.
fn is_near(written: &[char], name: &str) -> Option<usize> {
    if name.len() + MISSING_MAX < written.len() {
        return None;
    }
    let name: Vec<char> = fold(name);
    let longest = written.len().max(name.len());
    if written.is_empty() || longest > COMPARED_MAX_CHARS {
        return None;
    }
    let allowed = if longest <= 4 { 1 } else { (longest / 3).min(MISSING_MAX) };
    if written.len().abs_diff(name.len()) > allowed {
        return None;
    }
    let distance = distance(written, &name);
    (distance <= allowed && distance < name.len()).then_some(distance)
}

fn fold(text: &str) -> Vec<char> {
    text.chars().take(COMPARED_MAX_CHARS + 1).map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Edits between two words, a swap of neighbours counting as one (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = above[j] + usize::from(x != y);
            row[j + 1] = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = above;
        above = row;
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let names = ["command", "depends_on", "key", "env", "resources", "tty"];
        for (written, expected) in [
            ("comand", Some("command")),
            ("ocmmand", Some("command")),
            ("depends-on", Some("depends_on")),
            ("dependson", Some("depends_on")),
            ("Resource", Some("resources")),
            ("envs", Some("env")),
            ("pty", Some("tty")),
            ("frobnicate", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(written, names), expected, "{written}");
        }
    }
}
