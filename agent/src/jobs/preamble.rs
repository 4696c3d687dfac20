//! What a job's log begins with: what people should know of the run, beside what its command says.

use windlass_agent_runner::mask::secrets_of;
use windlass_protocol::limits::SECRET_MIN_BYTES;

/// The lines, with a warning of the checkout's if there is one; empty where there is nothing to know.
pub(super) fn of(warning: Option<&str>, env: &[(String, String)]) -> String {
    let mut lines: Vec<String> = warning.map(|warning| format!("warning: {warning}\n")).into_iter().collect();
    let (_, short) = secrets_of(env.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    if !short.is_empty() {
        let names = short.join(", ");
        lines.push(format!("warning: shorter than {SECRET_MIN_BYTES} bytes, and so not masked: {names}\n"));
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_begins_with_warnings_and_names_what_is_too_short_to_be_masked() {
        let env = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let plain = env(&[("A", "x"), ("A_TOKEN", "long enough"), ("B_TOKEN", "")]);
        assert_eq!(of(None, &plain), "");
        assert_eq!(of(Some("the commit is on no branch"), &plain), "warning: the commit is on no branch\n");
        let short = env(&[("A_TOKEN", "12345"), ("B_SECRET", "x"), ("C_TOKEN", "123456")]);
        let told = "warning: shorter than 6 bytes, and so not masked: A_TOKEN, B_SECRET\n";
        assert_eq!(of(None, &short), told);
        assert!(!of(None, &short).contains("12345\n"), "names, and no values");
    }
}
