//! `windlass login` and `logout`: which fleets this user is logged in to, checked against their servers.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use reqwest::Url;
use serde_json::{Value, json};
use windlass_protocol::identity::ApiToken;
use windlass_protocol::limits::{TOKEN_ENDS_SOON_MS, TOKEN_TEXT_MAX_BYTES};
use windlass_protocol::{Digest, Secret};

use crate::client::shape::{self, TokenShown};
use crate::client::{Client, ClientError, Shown, certificate_of, check_plain, parse, pem_of, shown_by};
use crate::error::{Code, Failure};
use crate::fleets::{self, Fleets, Login};
use crate::ui::Ui;
use crate::ui::text::{duration, shown, time};

/// Checks an API token against a fleet's server, and keeps both in a private file of yours.
///
/// From then on commands that name no server, and find none of yours on this machine, speak to the fleet that you logged in
/// to last; `--server URL` finds the token of any of them; and `windlass run` uses the fleet's results. The token comes from
/// --token-file, from the input, or is asked for; it is never printed.
#[derive(Debug, Args)]
pub(crate) struct LoginArguments {
    /// The fleet's server, such as https://ci.example.org:7070.
    #[arg(required_unless_present = "status")]
    url: Option<String>,
    /// A file with the API token; the input without it, asked for on a terminal.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The CA of the fleet's HTTPS, in PEM, where the system does not know it; it is kept with the login.
    #[arg(long, value_name = "FILE", alias = "ca-file", conflicts_with = "fingerprint")]
    ca: Option<PathBuf>,
    /// The fingerprint (b3:…) of the fleet's own CA: its certificate is taken from the server, and kept.
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: Option<Digest>,
    /// Send the token over plain HTTP beyond this machine.
    #[arg(long)]
    insecure_http: bool,
    /// `windlass run` does not use this fleet's results.
    #[arg(long)]
    no_reuse: bool,
    /// Show which fleets you are logged in to, and whether their servers still take the tokens.
    #[arg(long, alias = "list", conflicts_with_all = ["token_file", "ca", "fingerprint", "insecure_http", "no_reuse"])]
    status: bool,
    /// Log out, as `windlass logout` does.
    #[arg(long, conflicts_with_all = ["token_file", "ca", "fingerprint", "insecure_http", "no_reuse", "status"])]
    logout: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Which login to forget. The token itself goes on working until it ends or is revoked.
#[derive(Debug, Args)]
pub(crate) struct LogoutArguments {
    /// The fleet's server; may be left out where there is only one.
    url: Option<String>,
}

/// Logs in, or tells of logins.
pub(crate) async fn run(arguments: LoginArguments, ui: &Ui) -> Result<Code, Failure> {
    if arguments.logout {
        return log_out(&LogoutArguments { url: arguments.url }, ui);
    }
    if arguments.status {
        return status(&arguments, ui).await;
    }
    let url = fleet_url(arguments.url.as_deref().unwrap_or_default())?;
    check_plain(&url, arguments.insecure_http)?;
    let token = read_token(arguments.token_file.as_deref()).await?;
    let ca = match (&arguments.ca, arguments.fingerprint) {
        (Some(path), _) => Some(read_ca(path)?),
        (None, Some(wanted)) => Some(pinned(&url, wanted).await?),
        (None, None) => None,
    };
    let mut login = Login {
        url: plain(&url),
        token,
        expires_at: None,
        ca: ca.as_ref().map(|ca| ca.pem.clone()),
        insecure_http: arguments.insecure_http,
        reuse: !arguments.no_reuse,
    };
    let known = match ask(&login).await {
        Ok(known) => known,
        Err(error) if ca.is_none() && is_untrusted(&error) => return Err(untrusted(&url, error).await),
        Err(error) => return Err(error.into()),
    };
    login.expires_at.clone_from(&known.expires_at);
    let reuse = login.reuse;
    fleets::log_in(login)?;
    if arguments.json {
        ui.data(&json!({ "url": plain(&url), "token_id": known.id, "scopes": known.scopes }).to_string());
        return Ok(Code::Done);
    }
    ui.say(&format!("logged in to {} {}", plain(&url), whose(&known)));
    if let Some(ca) = &ca {
        ui.say(&format!("its CA has the fingerprint {}", ca.fingerprint));
    }
    for warning in warnings(&known, reuse) {
        ui.warn(&warning);
    }
    Ok(Code::Done)
}

/// Forgets a login.
pub(crate) fn log_out(arguments: &LogoutArguments, ui: &Ui) -> Result<Code, Failure> {
    let fleets = Fleets::load()?;
    let names = || fleets.all.iter().map(|login| login.url.as_str()).collect::<Vec<_>>().join(", ");
    let url = match (&arguments.url, fleets.all.as_slice()) {
        (Some(url), _) => plain(&fleet_url(url)?),
        (None, [only]) => only.url.clone(),
        (None, []) => return Err(Failure::usage("you are logged in to no fleet")),
        (None, _) => {
            return Err(Failure::usage(format!("you are logged in to several fleets: {}", names()))
                .hint("name one: `windlass logout URL`"));
        }
    };
    if !fleets::log_out(&url)? {
        let failure = Failure::usage(format!("you are not logged in to {url}"));
        return Err(if fleets.all.is_empty() { failure } else { failure.hint(format!("you are to {}", names())) });
    }
    ui.say(&format!("logged out of {url}; the token itself ends when it is revoked (`windlass token revoke`)"));
    Ok(Code::Done)
}

/// Every login, and whether its server takes it; ends as the worst of them.
async fn status(arguments: &LoginArguments, ui: &Ui) -> Result<Code, Failure> {
    let fleets = Fleets::load()?;
    let wanted = arguments.url.as_deref().map(fleet_url).transpose()?.map(|url| plain(&url));
    let usual = fleets.usual().map(|login| login.url.clone());
    let asked: Vec<&Login> =
        fleets.all.iter().rev().filter(|login| wanted.as_ref().is_none_or(|url| login.url == *url)).collect();
    if asked.is_empty() {
        let what =
            wanted.map_or("you are logged in to no fleet".to_owned(), |url| format!("you are not logged in to {url}"));
        return Err(Failure::new(Code::Refused, what).hint("log in with `windlass login URL`"));
    }
    let (mut worst, mut items) = (Code::Done, Vec::new());
    for login in asked {
        let is_usual = usual.as_ref() == Some(&login.url);
        let (item, code) = match ask(login).await {
            Ok(known) => {
                if !arguments.json {
                    let mark = if is_usual { "*" } else { " " };
                    ui.data(&format!("{mark} {} {}{}", login.url, whose(&known), unused(login)));
                    warnings(&known, login.reuse).iter().for_each(|warning| ui.warn(warning));
                }
                (told(login, is_usual, "good", Some(&known), None), Code::Done)
            }
            Err(error) => {
                let failure = Failure::from(error);
                let state = if failure.code == Code::Unreachable { "not_reached" } else { "refused" };
                if !arguments.json {
                    let mark = if is_usual { "*" } else { " " };
                    let what = shown(&failure.what);
                    ui.data(&format!("{mark} {} {}: {what}", login.url, state.replace('_', " ")));
                }
                (told(login, is_usual, state, None, Some(&failure.what)), failure.code)
            }
        };
        items.push(item);
        worst = if worst == Code::Done { code } else { worst };
    }
    if arguments.json {
        ui.data(&json!({ "items": items }).to_string());
    }
    Ok(worst)
}

fn told(login: &Login, usual: bool, state: &str, known: Option<&TokenShown>, why: Option<&str>) -> Value {
    let expires_at = known.map_or(&login.expires_at, |known| &known.expires_at);
    json!({
        "url": login.url, "usual": usual, "reuse": login.reuse, "state": state, "why": why, "expires_at": expires_at,
        "token_id": known.map(|known| &known.id), "scopes": known.map(|known| &known.scopes),
    })
}

const fn unused(login: &Login) -> &'static str {
    if login.reuse { "" } else { "; its results are not used" }
}

/// What the server says of a login's token.
async fn ask(login: &Login) -> Result<TokenShown, ClientError> {
    let address = || ClientError::Address { text: login.url.clone() };
    let url = parse(&login.url).map_err(|_| address())?;
    let ca =
        login.ca.as_ref().map(|pem| certificate_of(pem.as_bytes(), "the login")).transpose().map_err(|_| address())?;
    let raw = Client::new(url, Some(&login.token), ca)?.get("/tokens/current").await?;
    shape::read(&raw)
}

/// A server's URL without what follows its port.
fn fleet_url(text: &str) -> Result<Url, Failure> {
    let url = parse(text)?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.path() != "/" {
        return Err(Failure::usage(format!("`{}` is more than a server's address", shown(text)))
            .hint("write it as https://ci.example.org:7070"));
    }
    Ok(url)
}

fn plain(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

/// The token: out of a file, the input, or what is typed and not shown.
async fn read_token(file: Option<&Path>) -> Result<Secret<String>, Failure> {
    let unreadable = |error: &dyn std::error::Error| Failure {
        code: Code::Usage,
        ..Failure::system("no API token can be read", error)
    };
    let limited = |reader: &mut dyn std::io::Read| {
        let mut text = String::new();
        reader.take(TOKEN_TEXT_MAX_BYTES + 1).read_to_string(&mut text).map(|_| text)
    };
    let file = file.map(Path::to_owned).filter(|path| path != Path::new("-"));
    let read = tokio::task::spawn_blocking(move || match file {
        Some(path) => limited(&mut std::fs::File::open(path)?),
        None if std::io::stdin().is_terminal() => {
            let term = console::Term::stderr();
            // Not shown while it is typed.
            term.write_str("API token: ").and_then(|()| term.read_secure_line())
        }
        None => limited(&mut std::io::stdin().lock()),
    });
    let text = read.await.map_err(|error| unreadable(&error))?.map_err(|error| unreadable(&error))?;
    let token = text.trim().to_owned();
    // The error would show the text. Of one that is too long not all was read.
    if text.len() as u64 > TOKEN_TEXT_MAX_BYTES || token.parse::<ApiToken>().is_err() {
        return Err(Failure::usage("this is no API token")
            .hint("one begins with `wla_`; `windlass token create --scope builds:read,cache:read` makes one"));
    }
    Ok(Secret::new(token))
}

fn read_ca(path: &Path) -> Result<Shown, Failure> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure { code: Code::Usage, ..Failure::system(format!("no CA can be read from {name}"), &e) })?;
    let ca = pem_of(&text).ok_or_else(|| Failure::usage(format!("{name} has no certificate in PEM")))?;
    certificate_of(ca.pem.as_bytes(), &name)?;
    Ok(ca)
}

/// The certificate with a fingerprint, of those that the server shows.
async fn pinned(url: &Url, wanted: Digest) -> Result<Shown, Failure> {
    if url.scheme() != "https" {
        return Err(Failure::usage("a fingerprint is of an https:// server's CA"));
    }
    with_fingerprint(&look(url).await?, url, wanted)
}

fn with_fingerprint(chain: &[Shown], url: &Url, wanted: Digest) -> Result<Shown, Failure> {
    // The first is the server's own, which vouches for nobody.
    let found = chain.iter().skip(1).find(|one| one.fingerprint == wanted).cloned();
    found.ok_or_else(|| {
        let failure = Failure::new(Code::Refused, format!("{} shows no CA with the fingerprint {wanted}", plain(url)));
        match chain.last().filter(|_| chain.len() > 1) {
            Some(ca) => {
                failure.hint(format!("it shows {}: somebody may stand between you and the fleet", ca.fingerprint))
            }
            None => failure.hint("it shows its own certificate alone: give its CA with --ca FILE"),
        }
    })
}

async fn look(url: &Url) -> Result<Vec<Shown>, Failure> {
    shown_by(url).await.map_err(|error| Failure {
        code: Code::Unreachable,
        ..Failure::system(format!("the certificates of {} cannot be looked at", plain(url)), &error)
    })
}

/// Whether the connection failed because nobody who is trusted vouches for the server.
fn is_untrusted(error: &ClientError) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("invalid peer certificate") {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Says whom to ask, and what with.
async fn untrusted(url: &Url, error: ClientError) -> Failure {
    let mut failure = Failure::from(error);
    failure.code = Code::Refused;
    failure.what = format!("the certificate of {} is not trusted here", plain(url));
    let chain = look(url).await.unwrap_or_default();
    failure.hint(match chain.last().filter(|_| chain.len() > 1) {
        Some(ca) => format!(
            "its CA has the fingerprint {}; if the fleet's operator confirms it, log in with --fingerprint and that, or \
             with --ca FILE (the coordinator's DATA/identity/ca.pem)",
            ca.fingerprint
        ),
        None => "give the fleet's CA with --ca FILE".to_owned(),
    })
}

fn whose(token: &TokenShown) -> String {
    let note = if token.note.is_empty() { token.id.as_str() } else { token.note.as_str() };
    let mut text = format!("with token `{}` ({})", shown(note), shown(&token.scopes.join(" ")));
    for (what, name) in [("pipeline", &token.pipeline), ("branch", &token.branch)] {
        if let Some(name) = name {
            text.push_str(&format!(", for {what} `{}` only", shown(name)));
        }
    }
    match token.expires_at.as_deref().and_then(ends_in) {
        Some(left) => text.push_str(&format!(", which ends in {}", span(left))),
        None => text.push_str(", which does not end"),
    }
    text
}

/// Days where there are some.
fn span(left: Duration) -> String {
    match left.as_secs() / 86_400 {
        days @ 2.. => format!("{days} days"),
        _ => duration(left),
    }
}

/// How long it is until a time, if that is to come.
fn ends_in(at: &str) -> Option<Duration> {
    time(at)?.duration_since(SystemTime::now()).ok()
}

/// That a token's time is over soon, for whoever uses its login.
pub(super) fn ends_soon(expires_at: Option<&str>) -> Option<String> {
    let at = expires_at?;
    let mend = "log in again with a new token";
    match ends_in(at) {
        None => Some(format!("the token's time is over: {mend}")),
        Some(left) if left < Duration::from_millis(TOKEN_ENDS_SOON_MS) => {
            Some(format!("the token ends in {}: {mend} before that", span(left)))
        }
        Some(_) => None,
    }
}

fn warnings(token: &TokenShown, reuse: bool) -> Vec<String> {
    let has = |scope: &str| token.scopes.iter().any(|held| held == scope || held == "admin");
    let mut warnings = Vec::new();
    if reuse && !has("cache:read") {
        warnings
            .push("the token lacks the scope `cache:read`: `windlass run` cannot use the fleet's results".to_owned());
    } else if reuse && !["builds:read", "builds:write", "builds:trusted"].into_iter().any(has) {
        warnings.push("the token lacks the scope `builds:read`: results come without their logs".to_owned());
    }
    if has("builds:trusted") {
        warnings
            .push("what this token builds is trusted: a laptop needs `builds:read,builds:write,cache:read`".to_owned());
    }
    warnings.extend(ends_soon(token.expires_at.as_deref()));
    warnings
}

#[cfg(test)]
mod tests {
    use windlass_protocol::TokenId;

    use super::*;

    fn token(scopes: &[&str], expires_at: Option<&str>) -> TokenShown {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        TokenShown { id: "t".to_owned(), scopes, expires_at: expires_at.map(str::to_owned), ..TokenShown::default() }
    }

    #[test]
    fn a_server_s_address_has_no_path_and_no_user() {
        for (text, expected) in [
            ("https://ci.example.org:7070/", Some("https://ci.example.org:7070")),
            ("http://127.0.0.1:1", Some("http://127.0.0.1:1")),
            ("https://me:secret@ci", None),
            ("https://me@ci", None),
            ("https://:secret@ci", None),
            ("https://ci/api/v1", None),
            ("https://ci?x", None),
            ("ci:7070", None),
        ] {
            let found = fleet_url(text);
            assert_eq!(found.as_ref().ok().map(plain).as_deref(), expected, "{text}");
            assert!(found.is_ok() || found.unwrap_err().code == Code::Usage);
        }
    }

    fn certificate(text: &str) -> Shown {
        Shown { fingerprint: Digest::of(text.as_bytes()), pem: text.to_owned() }
    }

    #[test]
    fn a_fingerprint_takes_a_ca_out_of_the_chain_and_never_the_server_s_own_certificate_or_another() {
        let url = fleet_url("https://ci.example.org").unwrap();
        let of = |chain: &[&str], wanted: &str| {
            let chain: Vec<Shown> = chain.iter().map(|text| certificate(text)).collect();
            with_fingerprint(&chain, &url, Digest::of(wanted.as_bytes()))
        };
        for (chain, wanted) in [
            (&["own", "ca"][..], "ca"),
            (&["own", "between", "ca"], "between"),
            (&["own", "between", "ca"], "ca"),
            // A server that has its CA's own certificate.
            (&["ca", "ca"], "ca"),
        ] {
            assert_eq!(of(chain, wanted).unwrap().pem, wanted, "{chain:?}");
        }
        for (chain, wanted, shows) in [
            (&["own", "ca"][..], "own", Some("ca")),
            (&["own", "ca"], "other", Some("ca")),
            (&["own", "between", "ca"], "other", Some("ca")),
            (&["own"], "own", None),
            (&["own"], "ca", None),
            (&[], "ca", None),
        ] {
            let failure = of(chain, wanted).unwrap_err();
            let wanted = Digest::of(wanted.as_bytes()).to_string();
            assert!(failure.code == Code::Refused && failure.what.contains(&wanted), "{}", failure.what);
            let hint = failure.hint.unwrap();
            let told =
                shows.map_or("its own certificate alone".to_owned(), |ca| certificate(ca).fingerprint.to_string());
            assert!(hint.contains(&told), "{chain:?}: {hint}");
        }
    }

    /// A file with this text, for as long as the directory is there.
    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn api_token() -> String {
        ApiToken::generate(TokenId::from_bytes([7; 16])).unwrap().expose()
    }

    #[tokio::test]
    async fn a_token_is_read_without_what_is_blank_around_it_and_a_text_that_is_longer_than_any_is_none() {
        let good = api_token();
        let longest = usize::try_from(TOKEN_TEXT_MAX_BYTES).unwrap();
        let padded = |bytes: usize| format!("{good}{}", "\n".repeat(bytes - good.len()));
        for text in [good.clone(), format!("  {good}\r\n"), padded(longest)] {
            let (_dir, path) = file(&text);
            assert_eq!(*read_token(Some(&path)).await.unwrap().expose(), good);
        }
        let junk = format!("{}junk", padded(longest));
        let join = good.replacen("wla_", "wlj_", 1);
        for text in [&padded(longest + 1), &junk, &join, &good[..good.len() - 1], &format!("{good}0"), "", "nonsense"] {
            let (_dir, path) = file(text);
            let failure = read_token(Some(&path)).await.unwrap_err();
            assert_eq!((failure.code, failure.what.as_str()), (Code::Usage, "this is no API token"), "{text}");
        }
        let (dir, _) = file("");
        assert_eq!(read_token(Some(&dir.path().join("none"))).await.unwrap_err().code, Code::Usage);
        // One that never ends is given up, too.
        let endless = read_token(Some(Path::new("/dev/zero"))).await.unwrap_err();
        assert_eq!(endless.what, "this is no API token");
    }

    #[tokio::test]
    async fn a_token_is_not_even_read_for_plain_http_beyond_this_machine_and_a_fingerprint_is_of_https() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            arguments: LoginArguments,
        }
        let login = async |words: &[&str]| {
            let words = [&["login"], words].concat();
            let line = <Line as clap::Parser>::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
            run(line.arguments, &Ui::plain()).await.unwrap_err()
        };
        let (dir, path) = file(&api_token());
        let (none, path) = (dir.path().join("none").display().to_string(), path.display().to_string());
        let fingerprint = Digest::of(b"ca").to_string();
        for (words, what) in [
            (&["http://ci.example.org", "--token-file", &none][..], "plain HTTP beyond this machine"),
            (&["http://ci.example.org", "--token-file", &none, "--insecure-http"], "no API token can be read"),
            (&["http://127.0.0.1:1", "--token-file", &none], "no API token can be read"),
            (&["https://ci.example.org", "--token-file", &none], "no API token can be read"),
            (
                &["http://127.0.0.1:1", "--token-file", &path, "--fingerprint", &fingerprint],
                "of an https:// server's CA",
            ),
        ] {
            let failure = login(words).await;
            assert!(failure.code == Code::Usage && failure.what.contains(what), "{words:?}: {}", failure.what);
        }
    }

    #[test]
    fn what_a_token_cannot_do_and_when_it_ends_is_told() {
        let soon = humantime::format_rfc3339_millis(SystemTime::now() + Duration::from_secs(3_600)).to_string();
        let late =
            humantime::format_rfc3339_millis(SystemTime::now() + Duration::from_secs(3_600 * 24 * 30)).to_string();
        for (scopes, expires_at, reuse, told) in [
            (&["admin"][..], None, true, "what this token builds is trusted"),
            (&["builds:read", "cache:read"], Some(late.as_str()), true, ""),
            (&["builds:read"], None, true, "lacks the scope `cache:read`"),
            (&["builds:read"], None, false, ""),
            (&["cache:read"], None, true, "without their logs"),
            (&["builds:read", "cache:read"], Some(soon.as_str()), true, "ends in 59m"),
            (&["builds:read", "cache:read"], Some("2020-01-01T00:00:00.000Z"), true, "time is over"),
        ] {
            let warnings = warnings(&token(scopes, expires_at), reuse).join("\n");
            assert!(warnings.contains(told) && warnings.is_empty() == told.is_empty(), "{scopes:?}: {warnings}");
        }
    }
}
