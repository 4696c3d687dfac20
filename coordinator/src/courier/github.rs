//! Commit statuses at GitHub: `POST /repos/{owner}/{repo}/statuses/{sha}` (its REST API, version 2022-11-28).

use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::json;
use windlass_coordinator_core::row::{Delivery, Message, NotificationRow};
use windlass_git::repository::place;
use windlass_protocol::Secret;
use windlass_protocol::host::read_private;

use super::http::Post;
use super::never;
use crate::config::GithubConfig;

const ACCEPTED: HeaderValue = HeaderValue::from_static("application/vnd.github+json");
const VERSION: HeaderValue = HeaderValue::from_static("2022-11-28");

/// A repository with where its statuses are set.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    config: &'a GithubConfig,
    owner: String,
    name: String,
}

/// Host, owner and name out of a clone URL, in small letters.
fn parts(repository: &str) -> Option<(String, String, String)> {
    let (host, path) = place(repository)?;
    let path = path.trim_end_matches('/').to_ascii_lowercase();
    let (owner, name) = path.strip_suffix(".git").unwrap_or(&path).split_once('/')?;
    let is_plain =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !is_plain(owner) || !is_plain(name) || [owner, name].iter().any(|part| matches!(*part, "." | "..")) {
        return None;
    }
    // GitHub's way around closed ports.
    let host = if host == "ssh.github.com" { "github.com".to_owned() } else { host };
    Some((host, owner.to_owned(), name.to_owned()))
}

/// What the operator says of a repository: by its own name before its owner's.
pub(super) fn find<'a>(all: &'a [GithubConfig], repository: &str) -> Option<Place<'a>> {
    let (host, owner, name) = parts(repository)?;
    let of_owner = |config: &&GithubConfig| config.host == host && config.owner == owner;
    let own = all.iter().filter(of_owner).find(|config| config.name.as_ref() == Some(&name));
    let config = own.or_else(|| all.iter().filter(of_owner).find(|config| config.name.is_none()))?;
    Some(Place { config, owner, name })
}

/// The token as its file has it now.
async fn token(config: &GithubConfig) -> Result<Secret<String>, Delivery> {
    let path = config.token_file.clone();
    let read = tokio::task::spawn_blocking(move || read_private(&path)).await;
    // What an operator mends in a minute is no reason to give up.
    let later = |detail: &str| Delivery::Later { status: None, detail: detail.to_owned(), after_ms: None };
    match read {
        Ok(Ok(Some(bytes))) => Ok(Secret::new(String::from_utf8_lossy(&bytes).trim().to_owned())),
        Ok(Ok(None)) => Err(later("the token's file is not there")),
        Ok(Err(error)) => {
            tracing::error!(path = %config.token_file.display(), %error, "notify_token_unreadable");
            Err(later("the token's file cannot be read"))
        }
        Err(_) => Err(later("the token's file was not read")),
    }
}

/// The request.
pub(super) async fn post(place: Place<'_>, row: &NotificationRow, url: &str) -> Result<Post, Delivery> {
    let Message::GithubCommitStatus { commit, context, state, description, .. } = &row.message else {
        return Err(never("it is no commit status"));
    };
    let token = token(place.config).await?;
    let mut authorization = HeaderValue::try_from(format!("Bearer {}", token.expose()))
        .map_err(|_| never("the token's file holds no token"))?;
    authorization.set_sensitive(true);
    let target_url = format!("{url}/builds/{}", row.build);
    let body = json!({
        "state": state.name(), "target_url": target_url, "description": description, "context": context,
    });
    let headers = vec![
        (ACCEPT, ACCEPTED),
        (AUTHORIZATION, authorization),
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (HeaderName::from_static("x-github-api-version"), VERSION),
    ];
    let Place { config, owner, name } = place;
    let url = format!("{}/repos/{owner}/{name}/statuses/{commit}", config.api);
    Ok(Post { url, headers, body: body.to_string().into_bytes() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_url_names_a_repository_however_it_is_written() {
        let web = Some(("github.com".to_owned(), "acme".to_owned(), "web.site".to_owned()));
        for url in [
            "https://github.com/Acme/web.site.git",
            "https://user@GitHub.com/acme/web.site/",
            "git@github.com:acme/web.site.git",
            "ssh://git@github.com/acme/web.site",
            "ssh://git@ssh.github.com:443/acme/web.site.git",
        ] {
            assert_eq!(parts(url), web, "{url}");
        }
        for url in
            ["/srv/git/a/b", "https://github.com/acme", "https://h/a/b/c", "https://h/a/..", "h:a b/c", "file:///a/b"]
        {
            assert_eq!(parts(url), None, "{url}");
        }
    }

    #[test]
    fn a_repositorys_own_token_goes_before_its_owners_and_no_other_is_used() {
        let config = |host: &str, owner: &str, name: Option<&str>| GithubConfig {
            host: host.to_owned(),
            owner: owner.to_owned(),
            name: name.map(str::to_owned),
            api: format!("https://{}", name.unwrap_or("all")),
            token_file: "t".into(),
        };
        let all =
            [config("github.com", "acme", None), config("github.com", "acme", Some("web")), config("h", "x", None)];
        let api = |url: &str| find(&all, url).map(|place| place.config.api.clone());
        assert_eq!(api("git@github.com:acme/web.git").as_deref(), Some("https://web"));
        assert_eq!(api("git@github.com:acme/api.git").as_deref(), Some("https://all"));
        assert_eq!(api("git@github.com:other/web.git"), None);
        assert_eq!(api("git@elsewhere.com:acme/web.git"), None);
    }
}
