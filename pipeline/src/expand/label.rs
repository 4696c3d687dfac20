//! What jobs are called (reference 8.3).

/// Characters of a label that is made from a command.
const LABEL_MAX_CHARS: usize = 100;

/// A command's first line that says something.
pub(super) fn from_command(command: &str) -> String {
    let line = command.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("command");
    line.chars().take(LABEL_MAX_CHARS).collect()
}

/// A label as one of several jobs has it: `%n` from 0, `%N` from 1, `%t` and `%T` the number of jobs; any other `%` stays.
#[must_use]
pub fn numbered(label: &str, parallel: Option<(u32, u32)>) -> String {
    let Some((index, total)) = parallel else { return label.to_owned() };
    let mut out = String::with_capacity(label.len());
    let mut characters = label.chars().peekable();
    while let Some(character) = characters.next() {
        let number = match (character, characters.peek()) {
            ('%', Some('n')) => Some(index),
            ('%', Some('N')) => Some(index.saturating_add(1)),
            ('%', Some('t' | 'T')) => Some(total),
            _ => None,
        };
        match number {
            Some(number) => {
                characters.next();
                out.push_str(&number.to_string());
            }
            None => out.push(character),
        }
    }
    out
}
