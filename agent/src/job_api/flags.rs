//! Command lines, read as the reference's command reads them: `-flag` and `--flag` alike, `--flag value` and
//! `--flag=value`, before and after arguments; `--` ends them; variables stand for flags that are not given.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing, or `=true` and `=false`.
    Nothing,
    /// A text.
    Text,
    /// A text, each time that it is given.
    Texts,
    /// A whole number.
    Number,
    /// A length of time, such as `1m30s`.
    Time,
}

/// A flag.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) takes: Takes,
    /// The variable that stands for it; empty for none.
    pub(super) variable: &'static str,
    /// What it is where nobody says anything.
    pub(super) default: &'static str,
    pub(super) usage: &'static str,
}

/// A flag, in the order that tables are read in.
pub(super) const fn flag(
    name: &'static str,
    takes: Takes,
    variable: &'static str,
    default: &'static str,
    usage: &'static str,
) -> Flag {
    Flag { name, takes, variable, default, usage }
}

/// What a command line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    values: BTreeMap<&'static str, Vec<String>>,
    /// Whether help was asked for.
    pub(super) help: bool,
    /// What is no flag.
    pub(super) arguments: Vec<String>,
}

impl Line {
    /// Reads the words after a command.
    ///
    /// # Errors
    /// In the reference's words.
    pub(super) fn read(
        flags: &[&[Flag]],
        words: &[String],
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let all = || flags.iter().copied().flatten();
        let mut line = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                line.arguments.extend(words.cloned());
                break;
            }
            let Some(name) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
                line.arguments.push(word.clone());
                continue;
            };
            let name = name.strip_prefix('-').unwrap_or(name);
            let (name, value) = name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value)));
            if matches!(name, "h" | "help") {
                line.help = true;
                continue;
            }
            let Some(flag) = all().find(|flag| flag.name == name) else {
                return Err(format!("flag provided but not defined: -{name}"));
            };
            let value = match (value, flag.takes) {
                (Some(value), _) => value.to_owned(),
                (None, Takes::Nothing) => "true".to_owned(),
                (None, _) => words.next().ok_or_else(|| format!("flag needs an argument: -{name}"))?.clone(),
            };
            checked(flag, &value)?;
            let values = line.values.entry(flag.name).or_default();
            if flag.takes != Takes::Texts {
                values.clear();
            }
            values.push(value);
        }
        for flag in all().filter(|flag| !flag.variable.is_empty()) {
            if let Some(value) = environment.get(flag.variable).filter(|value| !value.is_empty())
                && !line.values.contains_key(flag.name)
            {
                checked(flag, value).map_err(|error| format!("{error} (from ${})", flag.variable))?;
                let values = match flag.takes {
                    Takes::Texts => value.split(',').map(|part| part.trim().to_owned()).collect(),
                    Takes::Nothing | Takes::Text | Takes::Number | Takes::Time => vec![value.clone()],
                };
                line.values.insert(flag.name, values);
            }
        }
        for flag in all().filter(|flag| !flag.default.is_empty()) {
            line.values.entry(flag.name).or_insert_with(|| vec![flag.default.to_owned()]);
        }
        Ok(line)
    }

    /// A text, empty where there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.values.get(name).and_then(|values| values.last()).map_or("", String::as_str)
    }

    /// All texts of a flag.
    pub(super) fn texts(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether a flag has any value at all, an empty one too.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Whether a flag that takes nothing is on.
    pub(super) fn is_on(&self, name: &str) -> bool {
        truth(self.text(name)).unwrap_or(false)
    }

    /// A number, 0 where there is none.
    pub(super) fn number(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or(0)
    }

    /// A length of time; `None` where there is none, or it is zero.
    pub(super) fn time(&self, name: &str) -> Option<Duration> {
        time(self.text(name)).filter(|time| !time.is_zero())
    }
}

/// That a flag can take a value.
fn checked(flag: &Flag, value: &str) -> Result<(), String> {
    let name = flag.name;
    match flag.takes {
        Takes::Text | Takes::Texts => Ok(()),
        Takes::Nothing if truth(value).is_some() => Ok(()),
        Takes::Nothing => Err(format!("invalid boolean value {value:?} for -{name}: parse error")),
        Takes::Number if value.parse::<i64>().is_ok() => Ok(()),
        Takes::Time if time(value).is_some() => Ok(()),
        Takes::Number | Takes::Time => Err(format!("invalid value {value:?} for flag -{name}: parse error")),
    }
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A length of time as Go writes it: `90s`, `1h30m`, `1.5s`, `0`.
fn time(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at_checked(digits)?;
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit)?;
        let each = match unit {
            "ns" => 1e-9,
            "us" | "\u{b5}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * each;
        rest = after;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

/// The flags of a command, as its help shows them.
pub(super) fn describe(flags: &[&[Flag]]) -> String {
    let mut lines = Vec::new();
    for flag in flags.iter().copied().flatten() {
        let left = match flag.takes {
            Takes::Nothing => format!("  --{}", flag.name),
            Takes::Text | Takes::Texts | Takes::Number | Takes::Time => format!("  --{} value", flag.name),
        };
        let mut right = flag.usage.to_owned();
        // Writing to a text cannot fail.
        let _ = match flag.takes {
            _ if flag.default.is_empty() => Ok(()),
            Takes::Text | Takes::Texts => write!(right, " (default: {:?})", flag.default),
            Takes::Nothing | Takes::Number | Takes::Time => write!(right, " (default: {})", flag.default),
        };
        if !flag.variable.is_empty() {
            let _ = write!(right, " [${}]", flag.variable);
        }
        lines.push((left, right));
    }
    let width = lines.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    lines.into_iter().map(|(left, right)| format!("{left:width$}  {right}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        flag("format", Takes::Text, "THE_FORMAT", "plain", "How"),
        flag("append", Takes::Nothing, "", "", "More"),
        flag("apply", Takes::Nothing, "", "true", "Apply it"),
        flag("name", Takes::Texts, "THE_NAMES", "", "Which"),
        flag("priority", Takes::Number, "", "3", "Where"),
        flag("wait", Takes::Time, "THE_WAIT", "", "How long"),
    ];

    fn read(words: &[&str], environment: &[(&str, &str)]) -> Result<Line, String> {
        let words: Vec<String> = words.iter().copied().map(str::to_owned).collect();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Line::read(&[FLAGS], &words, &environment)
    }

    #[test]
    fn flags_stand_anywhere_with_one_dash_or_two() {
        let line = read(&["a", "-format", "json", "--append", "b", "--name=x", "-name", "y", "-", "--", "--c"], &[]);
        let line = line.unwrap();
        assert_eq!(line.arguments, ["a", "b", "-", "--c"]);
        assert_eq!((line.text("format"), line.is_on("append"), line.is_on("apply")), ("json", true, true));
        assert_eq!(line.texts("name"), ["x", "y"]);
        assert_eq!((line.number("priority"), line.time("wait")), (3, None));
        assert!(read(&["--help"], &[]).unwrap().help && read(&["x", "-h"], &[]).unwrap().help);
    }

    #[test]
    fn a_variable_stands_for_a_flag_that_is_not_given() {
        let environment = [("THE_FORMAT", "json"), ("THE_NAMES", "a, b"), ("THE_WAIT", "1m30s")];
        let line = read(&[], &environment).unwrap();
        assert_eq!((line.text("format"), line.texts("name").len()), ("json", 2));
        assert_eq!(line.time("wait"), Some(Duration::from_secs(90)));
        assert_eq!(read(&["--format="], &environment).unwrap().text("format"), "", "given and empty");
        assert_eq!(read(&[], &[("THE_FORMAT", "")]).unwrap().text("format"), "plain");
    }

    #[test]
    fn what_is_wrong_is_said_in_the_reference_s_words() {
        let error = |words: &[&str]| read(words, &[]).unwrap_err();
        assert_eq!(error(&["--nope"]), "flag provided but not defined: -nope");
        assert_eq!(error(&["--format"]), "flag needs an argument: -format");
        assert_eq!(error(&["--append=yes"]), "invalid boolean value \"yes\" for -append: parse error");
        assert_eq!(error(&["--priority=high"]), "invalid value \"high\" for flag -priority: parse error");
        assert_eq!(error(&["--wait", "5"]), "invalid value \"5\" for flag -wait: parse error");
        assert!(read(&[], &[("THE_WAIT", "soon")]).unwrap_err().ends_with("(from $THE_WAIT)"));
    }

    #[test]
    fn lengths_of_time_are_go_s() {
        let of = |text| time(text).map(|time| time.as_millis());
        assert_eq!(
            [of("0"), of("250ms"), of("1.5s"), of("1h2m"), of("+2s")],
            [Some(0), Some(250), Some(1_500), Some(3_720_000), Some(2_000)]
        );
        assert_eq!([of(""), of("5"), of("s"), of("-1s"), of("1d")], [None; 5]);
    }
}
