//! What one `pipeline upload` reads: texts one after the other, of which each may hold several documents (reference 1.2).
//!
//! What the `env` block of a document sets is seen by everything that comes after it, in later documents and later files.

use windlass_protocol::limits::PIPELINE_EXPANDED_MAX_BYTES;

use super::{Normal, normalize, resolve_plugins};
use crate::diagnostic::{Diagnostic, Findings, Span};
use crate::interpolate::tree::{Environment, Walk};
use crate::render::Interpolation;
use crate::yaml;

/// The texts of one command.
#[derive(Debug)]
pub struct Session {
    environment: Environment,
    room: usize,
    /// Variables are put in.
    interpolates: bool,
}

/// Why a document cannot be uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// It cannot be read.
    Parsing(Vec<Diagnostic>),
    /// Its variables cannot be put in.
    Interpolation(Vec<Diagnostic>),
}

/// What a text holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Documents {
    /// In order, as far as they could be read.
    pub documents: Vec<Normal>,
    /// What ended the reading.
    pub failed: Option<Failed>,
}

impl Session {
    /// One that puts in variables, if it is told how.
    #[must_use]
    pub fn new(interpolation: Option<&Interpolation<'_>>) -> Self {
        let mut environment = Environment::new(interpolation.map_or(&[][..], |given| given.variables), false);
        environment.prefer_known(interpolation.is_some_and(|given| given.prefer_variables));
        Self { environment, room: PIPELINE_EXPANDED_MAX_BYTES, interpolates: interpolation.is_some() }
    }

    /// Reads one text.
    pub fn read(&mut self, text: &str) -> Documents {
        let parsed = yaml::parse(text);
        let mut read = Documents::default();
        if parsed.documents.is_empty() && parsed.error.is_none() {
            let empty = Diagnostic::error("no-document", Span::START, "the file is empty");
            read.failed = Some(Failed::Parsing(vec![empty]));
        }
        for document in &parsed.documents {
            match self.document(text, document) {
                Ok(normal) => read.documents.push(normal),
                Err(failed) => {
                    read.failed = Some(failed);
                    return read;
                }
            }
        }
        read.failed = read.failed.or(parsed.error.map(|error| Failed::Parsing(vec![error])));
        read
    }

    fn document(&mut self, text: &str, document: &yaml::Node) -> Result<Normal, Failed> {
        let mut normal = normalize(document).map_err(|error| Failed::Parsing(vec![*error]))?;
        if self.interpolates {
            let mut findings = Findings::default();
            let (environment, room) = (&mut self.environment, &mut self.room);
            Walk { source: text, environment, room, findings: &mut findings }.document(&mut normal.document);
            if findings.has_errors() {
                return Err(Failed::Interpolation(findings.settle()));
            }
        }
        resolve_plugins(&mut normal.document);
        Ok(normal)
    }
}
