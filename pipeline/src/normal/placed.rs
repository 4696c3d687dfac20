//! A document as JSON whose values stand where they stood: who finds a mistake in it names the lines of the file.
//!
//! JSON lets white space stand anywhere. Before each key and value as many lines and columns are left as are missing to the
//! place that it had. What an alias repeats stands further up than what came before it, and follows where there is room.

use super::json::{NotJson, to_json};
use crate::diagnostic::Span;
use crate::yaml::{Kind, Node};

/// Writes a tree so.
///
/// # Errors
/// It holds a number that JSON cannot write.
pub fn to_placed_json(node: &Node) -> Result<String, NotJson> {
    let mut out = Out { text: String::new(), line: 1, column: 1 };
    out.node(node)?;
    Ok(out.text)
}

struct Out {
    text: String,
    /// Where the next character stands.
    line: u32,
    column: u32,
}

impl Out {
    fn put(&mut self, text: &str) {
        // JSON has no line breaks within its texts.
        self.column = self.column.saturating_add(u32::try_from(text.chars().count()).unwrap_or(u32::MAX));
        self.text.push_str(text);
    }

    fn go_to(&mut self, place: Span) {
        while self.line < place.line {
            self.text.push('\n');
            (self.line, self.column) = (self.line + 1, 1);
        }
        while self.line == place.line && self.column < place.column {
            self.put(" ");
        }
    }

    /// Recursion ends at `PIPELINE_DEPTH_MAX`.
    fn node(&mut self, node: &Node) -> Result<(), NotJson> {
        match &node.kind {
            Kind::List(items) => {
                self.go_to(node.span);
                self.put("[");
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.put(",");
                    }
                    self.node(item)?;
                }
                self.put("]");
            }
            Kind::Map(map) => {
                self.go_to(node.span);
                self.put("{");
                for (index, entry) in map.iter().enumerate() {
                    if index > 0 {
                        self.put(",");
                    }
                    self.go_to(entry.key_span);
                    self.put(&serde_json::Value::from(entry.key.as_str()).to_string());
                    self.put(":");
                    self.node(&entry.value)?;
                }
                self.put("}");
            }
            Kind::Null
            | Kind::Bool(_)
            | Kind::Int(_)
            | Kind::Unsigned(_)
            | Kind::Float(_)
            | Kind::Time(_)
            | Kind::Text(_) => {
                self.go_to(node.span);
                self.put(&to_json(node)?.to_string());
            }
        }
        Ok(())
    }
}
