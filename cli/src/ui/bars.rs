//! The part of a terminal that is drawn anew: a line for each running step, and one for the build.

use std::collections::BTreeMap;
use std::time::Duration;

use console::Style;
use indicatif::{MultiProgress, ProgressBar};

use super::style;

/// Steps that have a line of their own; the others are only counted.
const LINES_MAX: usize = 8;

/// Lines of running steps, and below them the build's.
#[derive(Debug)]
pub(crate) struct Bars {
    progress: MultiProgress,
    steps: BTreeMap<String, ProgressBar>,
    build: ProgressBar,
    colour: bool,
}

impl Bars {
    pub(super) fn new(progress: MultiProgress, colour: bool) -> Self {
        let build = progress.add(ProgressBar::new_spinner());
        build.set_style(style(if colour { "  {msg:.dim} {elapsed:.dim}" } else { "  {msg} {elapsed}" }));
        build.enable_steady_tick(Duration::from_millis(100));
        Self { progress, steps: BTreeMap::new(), build, colour }
    }

    /// A step runs.
    pub(crate) fn begin(&mut self, job: &str, name: &str) {
        if self.steps.contains_key(job) || self.steps.len() >= LINES_MAX {
            return;
        }
        let bar = self.progress.insert_before(&self.build, ProgressBar::new_spinner());
        bar.set_style(style("{spinner:.cyan} {prefix} {elapsed:.dim} {wide_msg}"));
        bar.set_prefix(Style::new().bold().force_styling(self.colour).apply_to(name).to_string());
        bar.enable_steady_tick(Duration::from_millis(100));
        self.steps.insert(job.to_owned(), bar);
    }

    /// What a running step wrote last, where its line has no end yet.
    pub(crate) fn show(&self, job: &str, text: String) {
        if let Some(bar) = self.steps.get(job) {
            bar.set_message(text);
        }
    }

    /// A step runs no more.
    pub(crate) fn end(&mut self, job: &str) {
        if let Some(bar) = self.steps.remove(job) {
            bar.finish_and_clear();
            self.progress.remove(&bar);
        }
    }

    /// How the build is.
    pub(crate) fn build(&self, text: String) {
        self.build.set_message(text);
    }

    /// Takes everything off the terminal.
    pub(crate) fn clear(&mut self) {
        for (_, bar) in std::mem::take(&mut self.steps) {
            bar.finish_and_clear();
            self.progress.remove(&bar);
        }
        self.build.finish_and_clear();
        self.progress.remove(&self.build);
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.clear();
    }
}
