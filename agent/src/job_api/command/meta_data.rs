//! `meta-data set|set-batch|get|exists|keys`: words between the jobs of a build (reference 19.2).

use windlass_protocol::limits::{
    META_DATA_KEY_MAX_BYTES, META_DATA_KEYS_MAX, META_DATA_MAX_BYTES, META_DATA_VALUE_MAX_BYTES,
};
use windlass_protocol::message::{Asked, Told};

use super::{Call, Fail, fatal, untold};

/// The status of `exists` where there is no such key.
const ABSENT: u8 = 100;

/// That a value can be kept.
fn check(key: &str, value: &str) -> Result<(), Fail> {
    if key.trim().is_empty() {
        return Err(fatal("key cannot be empty, or composed of only whitespace characters"));
    }
    if key.len() > META_DATA_KEY_MAX_BYTES {
        return Err(fatal(format!(
            "a key has at most {META_DATA_KEY_MAX_BYTES} bytes, and this one has {}",
            key.len()
        )));
    }
    if value.trim().is_empty() {
        return Err(fatal("value cannot be empty, or composed of only whitespace characters"));
    }
    if value.len() > META_DATA_VALUE_MAX_BYTES {
        return Err(fatal(format!("the value of {key:?} is larger than {META_DATA_VALUE_MAX_BYTES} bytes")));
    }
    Ok(())
}

/// Sets what was checked, without the job's secrets.
async fn keep(call: &mut Call<'_>, keys: Vec<String>, values: Vec<String>) -> Result<(), Fail> {
    let bytes: usize = keys.iter().chain(&values).map(String::len).sum();
    if bytes > META_DATA_MAX_BYTES {
        return Err(fatal(format!(
            "the keys and values have {bytes} bytes together, and {META_DATA_MAX_BYTES} are the most"
        )));
    }
    let mut kept = Vec::with_capacity(values.len());
    for (key, (value, redacted)) in keys.into_iter().zip(call.redacted_each(values).await?) {
        if redacted {
            let words = format!("Meta-data value for key {key:?} contained one or more secrets and has been redacted");
            call.note("warning", &words).await?;
        }
        kept.push((key, value));
    }
    call.have("failed to set meta-data", Asked::SetMetaData { values: kept }, &[]).await
}

pub(super) async fn set(call: &mut Call<'_>) -> Result<(), Fail> {
    call.own_job()?;
    let Some(key) = call.argument(0).map(str::to_owned) else { return Err(call.misused().await) };
    let value = call.text_at(1, META_DATA_VALUE_MAX_BYTES).await?;
    check(&key, &value)?;
    keep(call, vec![key], vec![value]).await
}

pub(super) async fn set_batch(call: &mut Call<'_>) -> Result<(), Fail> {
    call.own_job()?;
    if call.line.arguments.is_empty() {
        return Err(call.misused().await);
    }
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for argument in &call.line.arguments {
        let (key, value) =
            argument.split_once('=').ok_or_else(|| fatal(format!("{argument:?} is not in key=value format")))?;
        check(key, value)?;
        keys.push(key.to_owned());
        values.push(value.to_owned());
    }
    if keys.len() > META_DATA_KEYS_MAX {
        return Err(fatal(format!("{} keys are given, and {META_DATA_KEYS_MAX} are the most", keys.len())));
    }
    keep(call, keys, values).await
}

/// The value of the key that the command names.
async fn value(call: &mut Call<'_>, doing: &str) -> Result<(String, Option<String>), Fail> {
    let Some(key) = call.argument(0).map(str::to_owned) else { return Err(call.misused().await) };
    let what = Asked::GetMetaData { build: call.build()?, key: key.clone() };
    match call.ask(what, &[]).await? {
        Told::Value(value) => Ok((key, value)),
        other => Err(untold(doing, other)),
    }
}

pub(super) async fn get(call: &mut Call<'_>) -> Result<(), Fail> {
    let (key, value) = value(call, "failed to get meta-data").await?;
    match value {
        Some(value) => call.print(&format!("{value}\n")).await,
        None if call.line.has("default") => {
            let default = call.line.text("default").to_owned();
            let words =
                format!("No meta-data value exists with key {key:?}, returning the supplied default {default:?}");
            call.note("warning", &words).await?;
            call.print(&format!("{default}\n")).await
        }
        None => Err(fatal(format!("failed to get meta-data: no meta-data value exists with key {key:?}"))),
    }
}

pub(super) async fn exists(call: &mut Call<'_>) -> Result<(), Fail> {
    match value(call, "failed to see if meta-data exists").await? {
        (_, Some(_)) => Ok(()),
        (_, None) => Err(Fail::Silent(ABSENT)),
    }
}

pub(super) async fn keys(call: &mut Call<'_>) -> Result<(), Fail> {
    let what = Asked::MetaDataKeys { build: call.build()? };
    match call.ask(what, &[]).await? {
        Told::Keys(keys) => {
            let text: String = keys.iter().map(|key| format!("{key}\n")).collect();
            call.print(&text).await
        }
        other => Err(untold("failed to list meta-data keys", other)),
    }
}
