//! What a command ends with: exit codes as the interface fixes them, and errors with their cause and a hint.

use std::error::Error;
use std::process::ExitCode;

/// Exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// Done, or the build passed.
    Done,
    /// The build failed, or a check found errors.
    Failed,
    /// Usage, or a pipeline that cannot run.
    Usage,
    /// No server was reached.
    Unreachable,
    /// Permission, quota or conflict.
    Refused,
    /// Ended by the user.
    Interrupted,
    /// What a shell ended with that stood in for this program.
    Shell(u8),
}

impl Code {
    /// The number.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Refused => 4,
            Self::Interrupted => 130,
            Self::Shell(status) => status,
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.number())
    }
}

/// Why a command failed, as people read it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What it ends with.
    pub(crate) code: Code,
    /// One sentence.
    pub(crate) what: String,
    /// The causes below it, outermost first.
    pub(crate) causes: Vec<String>,
    /// What to do.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure of the user's making.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { code: Code::Usage, what: what.into(), causes: Vec::new(), hint: None }
    }

    /// A failure with this code.
    pub(crate) fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), causes: Vec::new(), hint: None }
    }

    /// What the machine refuses.
    pub(crate) fn system(what: impl Into<String>, cause: &dyn Error) -> Self {
        Self { code: Code::Failed, what: what.into(), causes: chain(cause), hint: None }
    }

    /// An error with all its causes.
    pub(crate) fn of(code: Code, error: &dyn Error) -> Self {
        let mut causes = chain(error);
        let what = if causes.is_empty() { error.to_string() } else { causes.remove(0) };
        Self { code, what, causes, hint: None }
    }

    /// The same with the innermost cause alone, where those around it only say which layer spoke.
    pub(crate) fn innermost(mut self) -> Self {
        self.causes = self.causes.pop().into_iter().collect();
        self
    }

    /// The same, with advice.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, with advice if there is any.
    pub(crate) fn hint_if(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

fn chain(error: &dyn Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut below = error.source();
    while let Some(cause) = below {
        let text = cause.to_string();
        // Wrappers often repeat what they wrap.
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        below = cause.source();
    }
    texts
}
