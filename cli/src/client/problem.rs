//! What a server refuses, and what that means for the command: one sentence, causes, a hint, an exit code.

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Code, Failure};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody answers.
    #[error("no server was reached at {url}")]
    Unreachable {
        /// Where.
        url: String,
        /// What happened on the way.
        source: reqwest::Error,
    },
    /// It answers, and ends every stream at once.
    #[error("the server at {url} ends its streams before their end")]
    Ended {
        /// Where.
        url: String,
    },
    /// The server said no.
    #[error("{}", .0.title)]
    Problem(Box<Problem>),
    /// The server's answer makes no sense.
    #[error("the answer of {url} cannot be read: is it a Windlass server of this version?")]
    Garbled {
        /// Where.
        url: String,
        /// Why.
        source: serde_json::Error,
    },
    /// An event past every limit.
    #[error("the server sends an event of more than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// TLS cannot be set up.
    #[error("HTTP cannot be set up")]
    Setup {
        /// Why.
        source: reqwest::Error,
    },
    /// A token with bytes that no header can carry.
    #[error("the API token has characters that no token has")]
    BadToken,
    /// An address that is none.
    #[error("`{text}` is no URL of a server")]
    Address {
        /// As given.
        text: String,
    },
}

/// An answer as RFC 9457 has it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) title: String,
    pub(crate) detail: String,
    pub(crate) errors: Vec<Value>,
    pub(crate) hint: Option<String>,
    #[serde(skip)]
    pub(crate) status: u16,
}

impl Problem {
    /// Reads a body; one that is no problem+json is told by its status.
    pub(super) fn read(status: u16, body: &[u8]) -> Self {
        let mut problem: Self = serde_json::from_slice(body).unwrap_or_default();
        if problem.title.is_empty() {
            let reason = reqwest::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
            problem.title = format!("the server answered {status} {}", reason.unwrap_or_default()).trim().to_owned();
        }
        problem.status = status;
        problem
    }

    /// A 503 that passes by itself; a full disk does not.
    pub(super) fn is_passing(&self) -> bool {
        !self.kind.contains("disk") && !self.kind.contains("full") && !self.kind.contains("storage")
    }

    const fn code(&self) -> Code {
        match self.status {
            400 | 404 | 405 | 406 | 413 | 415 | 422 => Code::Usage,
            401 | 403 | 409 | 410 | 412 | 423 | 429 | 507 => Code::Refused,
            502..=504 => Code::Unreachable,
            _ => Code::Failed,
        }
    }

    fn usual_hint(&self) -> Option<String> {
        if self.kind == "/problems/pool-conflict" {
            let hint =
                "a token for a pool that exists needs --pool alone; leave out what differs, or name another pool";
            return Some(hint.to_owned());
        }
        match self.status {
            401 => Some("give an API token with --token-file FILE or WINDLASS_TOKEN".to_owned()),
            403 => {
                Some("the token's scopes do not allow this; `windlass token create --scope …` makes another".to_owned())
            }
            _ => None,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Problem(problem) => {
                let code = problem.code();
                let hint = problem.hint.clone().or_else(|| problem.usual_hint());
                // The title names the kind, the detail this case; for a pipeline the cases are its errors.
                let general = problem.detail.is_empty() || !problem.errors.is_empty();
                let mut failure = Self::new(code, if general { problem.title } else { problem.detail });
                failure.causes.extend(problem.errors.iter().map(one_error));
                failure.hint_if(hint)
            }
            ClientError::Ended { .. } => Self::of(Code::Unreachable, &error),
            ClientError::Unreachable { .. } => Self::of(Code::Unreachable, &error)
                .innermost()
                .hint("start one with `windlass up`, or name another with --server URL or WINDLASS_URL"),
            ClientError::Setup { .. } | ClientError::BadToken | ClientError::Address { .. } => {
                Self::of(Code::Usage, &error)
            }
            ClientError::Garbled { .. } | ClientError::TooLong { .. } => Self::of(Code::Failed, &error),
        }
    }
}

/// One of a problem's errors, for people: a diagnostic with its place, or what it says.
fn one_error(error: &Value) -> String {
    let text = |name: &str| error.get(name).and_then(Value::as_str);
    let Some(message) = text("message").or_else(|| text("detail")).or_else(|| error.as_str()) else {
        return error.to_string();
    };
    let number = |name: &str| error.get(name).and_then(Value::as_u64);
    let place = match (number("line"), number("column")) {
        (Some(line), Some(column)) => format!("{line}:{column}: "),
        _ => String::new(),
    };
    let hint = text("hint").map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{place}{message}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, body: &str) -> Failure {
        ClientError::Problem(Box::new(Problem::read(status, body.as_bytes()))).into()
    }

    #[test]
    fn a_refused_pipeline_is_told_with_every_place_in_it() {
        let body = r#"{"type":"/problems/pipeline-invalid","title":"The pipeline cannot run","status":422,
            "detail":"1 error","errors":[{"message":"unknown step","line":3,"column":5,"hint":"did you mean `wait`?"}]}"#;
        let failure = failure(422, body);
        assert_eq!(failure.code, Code::Usage);
        assert_eq!(failure.what, "The pipeline cannot run");
        assert_eq!(failure.causes, ["3:5: unknown step (did you mean `wait`?)"]);
    }

    #[test]
    fn answers_map_to_the_exit_codes_of_the_interface() {
        for (status, code) in [
            (401, Code::Refused),
            (403, Code::Refused),
            (404, Code::Usage),
            (409, Code::Refused),
            (422, Code::Usage),
            (429, Code::Refused),
            (500, Code::Failed),
            (503, Code::Unreachable),
            (507, Code::Refused),
        ] {
            assert_eq!(failure(status, "").code, code, "{status}");
        }
    }

    #[test]
    fn a_token_that_contradicts_its_pool_is_told_with_what_mends_it() {
        let body =
            r#"{"type":"/problems/pool-conflict","title":"The pool exists","detail":"pool `p` has another zone"}"#;
        let failure = failure(409, body);
        assert_eq!((failure.code, failure.what.as_str()), (Code::Refused, "pool `p` has another zone"));
        assert!(failure.hint.is_some_and(|hint| hint.contains("--pool")));
    }

    #[test]
    fn an_answer_that_is_no_problem_document_is_told_by_its_status() {
        let failure = failure(502, "<html>bad gateway</html>");
        assert_eq!(failure.what, "the server answered 502 Bad Gateway");
    }
}
