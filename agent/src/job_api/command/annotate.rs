//! `annotate` and `annotation remove`: words about a build, for people (reference 19.3).

use windlass_protocol::limits::{ANNOTATION_CONTEXT_MAX_CHARS, ANNOTATION_MAX_BYTES};
use windlass_protocol::message::{Asked, Scope, Style};

use super::{Call, Fail, fatal};

fn context(call: &Call<'_>) -> Result<String, Fail> {
    let context = call.line.text("context");
    let chars = context.chars().count();
    if chars == 0 || chars > ANNOTATION_CONTEXT_MAX_CHARS {
        return Err(fatal(format!("context must be 1 to {ANNOTATION_CONTEXT_MAX_CHARS} characters long")));
    }
    Ok(context.to_owned())
}

fn scope(call: &Call<'_>) -> Result<Scope, Fail> {
    match call.line.text("scope") {
        "build" => Ok(Scope::Build),
        "job" => Ok(Scope::Job),
        other => Err(fatal(format!("invalid scope {other:?}: it is build or job"))),
    }
}

pub(super) async fn annotate(call: &mut Call<'_>) -> Result<(), Fail> {
    call.own_job()?;
    let (context, scope) = (context(call)?, scope(call)?);
    let style = match call.line.text("style") {
        "" => None,
        "success" => Some(Style::Success),
        "info" => Some(Style::Info),
        "warning" => Some(Style::Warning),
        "error" => Some(Style::Error),
        other => return Err(fatal(format!("invalid style {other:?}: it is success, info, warning or error"))),
    };
    let priority = match call.line.has("priority") {
        true => {
            let number = u8::try_from(call.line.number("priority")).ok().filter(|number| (1..=10).contains(number));
            Some(number.ok_or_else(|| fatal("priority must be 1 to 10"))?)
        }
        false => None,
    };
    let append = call.line.is_on("append");
    let body = if call.argument(0).is_some() || call.hands.is_given {
        call.text_at(0, ANNOTATION_MAX_BYTES + 1).await?
    } else {
        String::new()
    };
    if body.is_empty() && style.is_none() {
        return Err(fatal("the annotation's body is empty, and no style is given"));
    }
    if body.len() > ANNOTATION_MAX_BYTES {
        return Err(fatal(format!("annotation body size exceeds maximum ({ANNOTATION_MAX_BYTES} bytes)")));
    }
    let (body, redacted) = call.redacted(&body).await?;
    if redacted {
        call.note("warning", "Annotation body contained one or more secrets and has been redacted").await?;
    }
    let what = Asked::Annotate { context, style, append, priority, scope };
    call.have("failed to annotate build", what, body.as_bytes()).await
}

pub(super) async fn remove(call: &mut Call<'_>) -> Result<(), Fail> {
    call.own_job()?;
    let what = Asked::RemoveAnnotation { context: context(call)?, scope: scope(call)? };
    call.have("failed to remove annotation", what, &[]).await
}
