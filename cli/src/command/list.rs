//! What all commands that list have alike: how many, in which form, from which server, and what is said of the rest.

use clap::Args;
use serde_json::{Value, json};

use crate::client::{Client, ServerArguments, segment};
use crate::error::Failure;
use crate::ui::Ui;
use crate::ui::table::Table;

/// Items that one command may ask for.
const ITEMS_MAX: i64 = 100_000;

/// How much of a list, and in which form.
#[derive(Debug, Args)]
pub(crate) struct Listing {
    /// How many.
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u32).range(1..=ITEMS_MAX))]
    limit: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The same of one server's list.
#[derive(Debug, Args)]
pub(crate) struct ServerList {
    #[command(flatten)]
    pub(crate) listing: Listing,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

impl Listing {
    /// How many items are wanted.
    pub(crate) fn limit(&self) -> usize {
        usize::try_from(self.limit).unwrap_or(usize::MAX)
    }

    /// Prints items, as JSON or as a table of these columns; `none` is what they are called where there are none.
    pub(crate) fn show(
        &self,
        (items, cut): (Vec<Value>, bool),
        none: &str,
        columns: &[&'static str],
        row: impl Fn(&Value) -> Result<Vec<String>, Failure>,
        ui: &Ui,
    ) -> Result<(), Failure> {
        let shown = items.len();
        if self.json {
            ui.data(&json!({ "items": items }).to_string());
        } else if items.is_empty() {
            ui.say(&format!("no {none}"));
        } else {
            let mut table = Table::new(columns);
            for item in &items {
                table.row(row(item)?);
            }
            ui.raw(table.render().as_bytes());
        }
        if cut {
            ui.say(&format!("these are the newest {shown}; --limit N shows more"));
        }
        Ok(())
    }
}

/// All pages of a list, up to a number of items; whether there are more.
pub(crate) async fn list(client: &Client, path: &str, limit: usize) -> Result<(Vec<Value>, bool), Failure> {
    let (mut items, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let page = (limit - items.len()).clamp(1, windlass_protocol::limits::PAGE_MAX_ITEMS);
        let joint = if path.contains('?') { '&' } else { '?' };
        let after = cursor.map(|cursor| format!("&cursor={}", segment(&cursor))).unwrap_or_default();
        let mut answer = client.get(&format!("{path}{joint}limit={page}{after}")).await?;
        if let Some(Value::Array(more)) = answer.get_mut("items").map(Value::take) {
            items.extend(more);
        }
        cursor = answer.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() || items.len() >= limit {
            return Ok((items, cursor.is_some()));
        }
    }
}
