//! Everything that people and programs read: data on stdout, talk on stderr. Nothing else prints.

mod bars;
pub(crate) mod table;
pub(crate) mod text;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use console::Style;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::Failure;
pub(crate) use bars::Bars;

/// Where output goes, and how it looks.
#[derive(Debug)]
pub(crate) struct Ui {
    colour: bool,
    out_colour: bool,
    out_terminal: bool,
    live: bool,
    progress: MultiProgress,
}

impl Ui {
    /// Colour where a terminal reads and nobody forbids it; progress where a person watches one.
    pub(crate) fn new() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let forced = set("CLICOLOR_FORCE");
        let allowed = !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let live = err && !set("CI") && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let target = if live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self {
            colour: forced || (err && allowed),
            out_colour: forced || (out && allowed),
            out_terminal: out,
            live,
            progress: MultiProgress::with_draw_target(target),
        }
    }

    /// One that a test reads: no terminal, no colour.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        let progress = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        Self { colour: false, out_colour: false, out_terminal: false, live: false, progress }
    }

    /// Whether a person watches: states that change may be redrawn.
    pub(crate) const fn is_live(&self) -> bool {
        self.live
    }

    /// Whether stderr has colours.
    pub(crate) const fn has_colour(&self) -> bool {
        self.colour
    }

    /// Whether stdout is a terminal.
    pub(crate) const fn out_is_terminal(&self) -> bool {
        self.out_terminal
    }

    /// Data: one line on stdout. A reader that has gone is no error: there is nobody to tell.
    pub(crate) fn data(&self, line: &str) {
        self.raw(format!("{line}\n").as_bytes());
    }

    /// Data as it is, without a newline.
    pub(crate) fn raw(&self, bytes: &[u8]) {
        self.progress.suspend(|| {
            let mut out = io::stdout().lock();
            let _nobody = out.write_all(bytes).and_then(|()| out.flush());
        });
    }

    /// Talk: one line on stderr.
    pub(crate) fn say(&self, line: &str) {
        self.progress.suspend(|| {
            let _nobody = writeln!(io::stderr().lock(), "{line}");
        });
    }

    /// Talk of several lines, which ends with a newline of its own.
    pub(crate) fn tell(&self, text: &str) {
        self.progress.suspend(|| {
            let _nobody = io::stderr().lock().write_all(text.as_bytes());
        });
    }

    /// Talk that deserves a look.
    pub(crate) fn warn(&self, line: &str) {
        self.say(&format!("{}: {line}", self.paint(Style::new().yellow().bold(), "warning")));
    }

    /// Talk that helps on.
    pub(crate) fn hint(&self, line: &str) {
        self.say(&format!("{}: {line}", self.paint(Style::new().cyan().bold(), "hint")));
    }

    /// The one error of a command, its causes and a hint; gives the exit code.
    pub(crate) fn fail(&self, failure: &Failure) -> ExitCode {
        self.tell(&self.render(failure));
        failure.code.into()
    }

    fn render(&self, failure: &Failure) -> String {
        let mut text = String::new();
        if !failure.what.is_empty() {
            text.push_str(&format!("{}: {}\n", self.paint(Style::new().red().bold(), "error"), failure.what));
        }
        for cause in &failure.causes {
            text.push_str(&format!("  because: {cause}\n"));
        }
        if let Some(hint) = &failure.hint {
            text.push_str(&format!("{}: {hint}\n", self.paint(Style::new().cyan().bold(), "hint")));
        }
        text
    }

    /// Text in a style, if stderr has colours.
    pub(crate) fn paint(&self, style: Style, text: &str) -> String {
        style.force_styling(self.colour).apply_to(text).to_string()
    }

    /// Text in a style, if stdout has colours.
    pub(crate) fn paint_out(&self, style: Style, text: &str) -> String {
        style.force_styling(self.out_colour).apply_to(text).to_string()
    }

    /// A line of progress for something that takes long; it draws only where a person watches.
    pub(crate) fn spinner(&self, message: &str) -> ProgressBar {
        let bar = self.progress.add(ProgressBar::new_spinner());
        bar.set_style(style("{spinner:.cyan} {msg}"));
        bar.set_message(message.to_owned());
        bar.enable_steady_tick(std::time::Duration::from_millis(100));
        bar
    }

    /// A bar of bytes.
    pub(crate) fn byte_bar(&self, message: &str, bytes: u64) -> ProgressBar {
        let bar = self.progress.add(ProgressBar::new(bytes));
        bar.set_style(style("{spinner:.cyan} {msg} {bar:24} {bytes}/{total_bytes} {binary_bytes_per_sec}"));
        bar.set_message(message.to_owned());
        bar.enable_steady_tick(std::time::Duration::from_millis(100));
        bar
    }

    /// A bar that counts.
    pub(crate) fn count_bar(&self, message: &str, count: u64) -> ProgressBar {
        let bar = self.progress.add(ProgressBar::new(count));
        bar.set_style(style("{spinner:.cyan} {msg} {bar:24} {human_pos}/{human_len}"));
        bar.set_message(message.to_owned());
        bar.enable_steady_tick(std::time::Duration::from_millis(100));
        bar
    }

    /// The states of a build's running steps.
    pub(crate) fn bars(&self) -> Bars {
        Bars::new(self.progress.clone(), self.colour)
    }
}

/// A template of ours; they are fixed, and read.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn an_error_is_one_sentence_its_causes_and_a_hint() {
        let mut failure = Failure::new(Code::Refused, "the token may not do this").hint("make another");
        failure.causes.push("it has the scope builds:read".to_owned());
        insta::assert_snapshot!(Ui::plain().render(&failure), @r"
        error: the token may not do this
          because: it has the scope builds:read
        hint: make another
        ");
    }
}
