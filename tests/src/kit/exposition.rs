//! OpenMetrics text, read strictly: whatever the format forbids is an error, because a scraper throws the whole page away.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};

/// A page of metrics: families by name, without the suffixes of their samples.
#[derive(Debug, Default)]
pub struct Exposition {
    /// The families, each with something in it.
    pub families: BTreeMap<String, Family>,
}

/// One metric with all its series.
#[derive(Debug, Default)]
pub struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// For people.
    pub help: String,
    /// What its name ends with, if it has one.
    pub unit: Option<String>,
    /// In their order.
    pub samples: Vec<Sample>,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// What follows the family's name: `_total`, `_bucket`, `_sum`, `_count` or nothing.
    pub suffix: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Exposition {
    /// Reads a page.
    ///
    /// # Errors
    /// What the format forbids, with the line.
    pub fn parse(text: &str) -> Result<Self> {
        let body = text.strip_suffix("# EOF\n").context("the page does not end with `# EOF`")?;
        let (mut page, mut last) = (Self::default(), String::new());
        for line in body.lines() {
            page.line(line, &mut last).with_context(|| format!("in the line `{line}`"))?;
        }
        for (name, family) in &page.families {
            family.check(name).with_context(|| format!("in the family {name}"))?;
        }
        Ok(page)
    }

    fn line(&mut self, line: &str, last: &mut String) -> Result<()> {
        let Some(comment) = line.strip_prefix("# ") else {
            let family = self.families.get_mut(last.as_str()).context("a value before its family")?;
            family.samples.push(sample(line, last)?);
            return Ok(());
        };
        let mut words = comment.splitn(3, ' ');
        let (Some(what), Some(name), Some(rest)) = (words.next(), words.next(), words.next()) else {
            bail!("a comment that is none of HELP, TYPE and UNIT");
        };
        check_name(name, true)?;
        if name != last {
            ensure!(!self.families.contains_key(name), "a family that comes twice, or in two pieces");
            name.clone_into(last);
        }
        let family = self.families.entry(name.to_owned()).or_default();
        ensure!(family.samples.is_empty(), "a description after values");
        match what {
            "HELP" => rest.clone_into(&mut family.help),
            "TYPE" => rest.clone_into(&mut family.kind),
            "UNIT" => family.unit = Some(rest.to_owned()),
            other => bail!("a comment `{other}`"),
        }
        Ok(())
    }

    /// The values of a family's series that have all of these labels.
    #[must_use]
    pub fn values(&self, family: &str, suffix: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let samples = self.families.get(family).into_iter().flat_map(|family| &family.samples);
        let wanted = |sample: &&Sample| {
            let has = |(name, value): &(&str, &str)| sample.labels.get(*name).is_some_and(|held| held == value);
            sample.suffix == suffix && labels.iter().all(has)
        };
        samples.filter(wanted).map(|sample| sample.value).collect()
    }
}

impl Family {
    fn check(&self, name: &str) -> Result<()> {
        ensure!(!self.help.trim().is_empty(), "no HELP");
        if let Some(unit) = &self.unit {
            ensure!(name.ends_with(&format!("_{unit}")), "the unit {unit} is not in the name");
        }
        let mut seen = BTreeSet::new();
        for sample in &self.samples {
            ensure!(seen.insert((&sample.suffix, &sample.labels)), "a series that comes twice: {sample:?}");
        }
        let suffixes: &[&str] = match self.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            other => bail!("the type `{other}`"),
        };
        for sample in &self.samples {
            ensure!(suffixes.contains(&sample.suffix.as_str()), "a value of another type: {sample:?}");
            ensure!(self.kind == "gauge" || sample.value >= 0.0, "it falls below nothing: {sample:?}");
        }
        if self.kind == "histogram" { self.check_buckets() } else { Ok(()) }
    }

    /// Of each series the bounds rise, the counts do not fall, and the last of both is everything.
    fn check_buckets(&self) -> Result<()> {
        let mut series: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.suffix == "_bucket") {
            let mut labels = sample.labels.clone();
            let bound = labels.remove("le").context("a bucket without a bound")?;
            series.entry(labels).or_default().push((number(&bound)?, sample.value));
        }
        for (labels, buckets) in series {
            ensure!(buckets.is_sorted_by(|a, b| a.0 < b.0), "bounds that do not rise");
            ensure!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "counts that fall");
            let all = self.samples.iter().find(|it| it.suffix == "_count" && it.labels == labels);
            let all = all.context("no count")?.value;
            ensure!(buckets.last() == Some(&(f64::INFINITY, all)), "the last bucket is not everything");
        }
        Ok(())
    }
}

fn check_name(name: &str, colon: bool) -> Result<()> {
    let begins = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || (colon && byte == b':');
    let bytes = name.as_bytes();
    let good = bytes.first().is_some_and(|byte| begins(*byte))
        && bytes.iter().all(|byte| begins(*byte) || byte.is_ascii_digit());
    ensure!(good, "the name `{name}`");
    Ok(())
}

fn number(text: &str) -> Result<f64> {
    match text {
        "+Inf" => Ok(f64::INFINITY),
        text => {
            let value: f64 = text.parse().with_context(|| format!("the number `{text}`"))?;
            ensure!(value.is_finite(), "the number `{text}`");
            Ok(value)
        }
    }
}

/// `NAME{LABEL="VALUE",…} NUMBER`, without times and exemplars, which we do not serve.
fn sample(line: &str, family: &str) -> Result<Sample> {
    let rest = line.strip_prefix(family).context("a value of another family")?;
    let end = rest.find(['{', ' ']).context("no value")?;
    let (suffix, rest) = rest.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = number(rest.strip_prefix(' ').context("no space before the value")?)?;
    Ok(Sample { suffix: suffix.to_owned(), labels, value })
}

fn labels(text: &str) -> Result<(BTreeMap<String, String>, &str)> {
    let (mut labels, mut rest) = (BTreeMap::new(), text);
    loop {
        let (name, after) = rest.split_once("=\"").context("a label without a value")?;
        check_name(name, false)?;
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next().context("a value without an end")? {
                (at, '"') => break at,
                (_, '\\') => match chars.next().context("a value without an end")?.1 {
                    'n' => value.push('\n'),
                    escaped @ ('\\' | '"') => value.push(escaped),
                    other => bail!("the escape `\\{other}`"),
                },
                (_, '\n') => bail!("a line's end in a value"),
                (_, plain) => value.push(plain),
            }
        };
        ensure!(labels.insert(name.to_owned(), value).is_none(), "the label {name} comes twice");
        rest = after.get(end + 1..).unwrap_or_default();
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        rest = rest.strip_prefix(',').context("no comma between labels")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_seconds A.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\na_seconds_sum 1.5\n\
                        a_seconds_count 2\na_seconds_bucket{le=\"0.1\"} 1\na_seconds_bucket{le=\"+Inf\"} 2\n\
                        # HELP b B.\n# TYPE b counter\nb_total{x=\"1\"} 3\nb_total{x=\"q\\\"\\\\\\n\"} 4\n# EOF\n";

    #[test]
    fn what_the_format_allows_is_read() {
        let page = Exposition::parse(GOOD).unwrap();
        assert_eq!(page.values("a_seconds", "_bucket", &[("le", "0.1")]), [1.0]);
        assert_eq!(page.values("b", "_total", &[("x", "q\"\\\n")]), [4.0]);
        assert_eq!(page.values("b", "_total", &[]).len(), 2);
        assert_eq!(page.families["a_seconds"].unit.as_deref(), Some("seconds"));
    }

    #[test]
    fn what_the_format_forbids_is_refused() {
        let broken = [
            ("# EOF\n", ""),
            ("# HELP b B.\n", ""),
            ("# TYPE b counter\n", "# TYPE b gauge\n"),
            ("# TYPE b counter\n", "# TYPE b thing\n"),
            ("UNIT a_seconds seconds", "UNIT a_seconds bytes"),
            ("count 2", "count 3"),
            ("{le=\"0.1\"} 1", "{le=\"0.1\"} 5"),
            ("le=\"0.1\"", "le=\"+Inf\""),
            ("# HELP b B.\n", "# HELP b B.\n\n"),
            ("{x=\"1\"} 3", "{x=\"1\"}  3"),
            ("{x=\"1\"} 3", "{x=\"1\"} NaN"),
            ("{x=\"1\"} 3", "{x=\"1\"} -3"),
            ("{x=\"1\"} 3", "{x=\"1\",x=\"2\"} 3"),
            ("{x=\"1\"} 3", "{x-y=\"1\"} 3"),
            ("{x=\"1\"} 3", "{x=\"\\t\"} 3"),
            ("{x=\"1\"} 3\n", "{x=\"1\"} 3\nb_total{x=\"1\"} 3\n"),
            ("b_total{x=\"1\"} 3\n", "b_total{x=\"1\"} 3\na_seconds_count 2\n"),
        ];
        for (from, to) in broken {
            let page = GOOD.replacen(from, to, 1);
            assert!(page != GOOD && Exposition::parse(&page).is_err(), "{from} -> {to}");
        }
    }
}
