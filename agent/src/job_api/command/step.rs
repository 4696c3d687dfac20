//! `step get|update|cancel` and `build cancel` (reference 19.5, 19.6).

use windlass_protocol::limits::STEP_VALUE_MAX_BYTES;
use windlass_protocol::message::{Asked, Told};

use super::{Call, Fail, fatal, untold};

/// The step that the command is about: the one that a flag names, else the job's own.
fn step(call: &Call<'_>) -> String {
    call.line.text("step").to_owned()
}

pub(super) async fn get(call: &mut Call<'_>) -> Result<(), Fail> {
    let json = match call.line.text("format") {
        "" => false,
        "json" => true,
        other => return Err(fatal(format!("invalid format {other:?}: it is json"))),
    };
    let attribute = call.argument(0).unwrap_or_default().to_owned();
    let what = Asked::GetStep { build: call.build()?, step: step(call), attribute, json };
    match call.ask(what, &[]).await? {
        Told::Text(text) => call.print(&format!("{text}\n")).await,
        other => Err(untold("failed to get step", other)),
    }
}

pub(super) async fn update(call: &mut Call<'_>) -> Result<(), Fail> {
    let Some(attribute) = call.argument(0).map(str::to_owned) else { return Err(call.misused().await) };
    let value = call.text_at(1, STEP_VALUE_MAX_BYTES).await?;
    if value.len() > STEP_VALUE_MAX_BYTES {
        return Err(fatal(format!("the value is larger than {STEP_VALUE_MAX_BYTES} bytes")));
    }
    let what = Asked::UpdateStep { step: step(call), attribute, append: call.line.is_on("append") };
    call.have("failed to change step", what, value.as_bytes()).await
}

pub(super) async fn cancel(call: &mut Call<'_>) -> Result<(), Fail> {
    let grace_ms = if call.line.is_on("force") {
        let seconds = u64::try_from(call.line.number("force-grace-period-seconds"));
        let seconds = seconds.map_err(|_| fatal("the value of --force-grace-period-seconds must not be negative"))?;
        Some(seconds.saturating_mul(1_000))
    } else {
        None
    };
    call.have("failed to cancel step", Asked::CancelStep { step: step(call), grace_ms }, &[]).await
}

pub(super) async fn cancel_build(call: &mut Call<'_>) -> Result<(), Fail> {
    if call.build()?.is_some_and(|build| build != call.party.spec.build) {
        return Err(fatal("a job may cancel its own build only"));
    }
    call.have("failed to cancel build", Asked::CancelBuild, &[]).await
}
