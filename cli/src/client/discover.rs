//! Which server is meant, and with which token: flags, environment, then the servers of this user, then the fleets that he is
//! logged in to.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use reqwest::{Certificate, Url};
use windlass_protocol::Secret;

use super::{Client, ClientError};
use crate::error::{Code, Failure};
use crate::fleets::Fleets;
use crate::place::{self, Server};

/// Which server a command speaks to.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArguments {
    /// The server's URL; by default the one that runs for this user on this machine.
    #[arg(long, value_name = "URL", env = "WINDLASS_URL")]
    pub(crate) server: Option<String>,
    /// A file with the API token (or WINDLASS_TOKEN; for a server of this user its own is found).
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The CA of an HTTPS server, in PEM, where the system does not know it.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Send the token over plain HTTP beyond this machine.
    #[arg(long)]
    pub(crate) insecure_http: bool,
}

/// A server to speak to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The client for it.
    pub(crate) client: Client,
    /// Its data directory, where it runs on this machine for this user.
    pub(crate) data: Option<PathBuf>,
}

impl ServerArguments {
    /// Whether somebody said which server.
    pub(crate) const fn is_named(&self) -> bool {
        self.server.is_some()
    }

    /// The server that is named, else the one of this user.
    pub(crate) fn target(&self) -> Result<Target, Failure> {
        let local = place::servers();
        if let Some(url) = &self.server {
            let url = parse(url)?;
            let same = local.iter().find(|server| parse(&server.url).is_ok_and(|other| other == url));
            return self.reach(url, same);
        }
        match choose(&local, wanted_data().as_deref())? {
            Some(server) => self.reach(parse(&server.url)?, Some(server)),
            None => match Fleets::load()?.usual() {
                Some(login) => self.reach(parse(&login.url)?, None),
                None => {
                    let what = "no server was named, and none of yours runs on this machine";
                    Err(Failure::new(Code::Unreachable, what)
                        .hint("start one with `windlass up`, or name one with --server URL or WINDLASS_URL"))
                }
            },
        }
    }

    /// A client for one of this user's own servers.
    pub(crate) fn local(&self, server: &Server) -> Result<Target, Failure> {
        self.reach(parse(&server.url)?, Some(server))
    }

    fn reach(&self, url: Url, local: Option<&Server>) -> Result<Target, Failure> {
        let data = local.map(|server| server.data.clone());
        let login = match &data {
            Some(_) => None,
            None => Fleets::load()?.find(url.as_str()).cloned(),
        };
        let token = self.token(data.as_deref())?.or_else(|| login.as_ref().map(|login| login.token.clone()));
        check_plain(&url, self.insecure_http || login.as_ref().is_some_and(|login| login.insecure_http))?;
        let ca = match (&self.ca_file, &data, login.and_then(|login| login.ca)) {
            (Some(path), ..) => Some(certificate(path)?),
            (None, Some(data), _) if url.scheme() == "https" => {
                let path = data.join("identity/ca.pem");
                if path.exists() { Some(certificate(&path)?) } else { None }
            }
            (None, None, Some(pem)) => Some(certificate_of(pem.as_bytes(), "the login")?),
            (None, ..) => None,
        };
        let client = Client::new(url, token.as_ref(), ca)?;
        Ok(Target { client, data })
    }

    fn token(&self, data: Option<&Path>) -> Result<Option<Secret<String>>, Failure> {
        if let Some(path) = &self.token_file {
            return read_token(path).map(Some);
        }
        if let Ok(token) = std::env::var("WINDLASS_TOKEN")
            && !token.trim().is_empty()
        {
            return Ok(Some(Secret::new(token.trim().to_owned())));
        }
        match data {
            Some(data) => read_token(&data.join("api-token")).map(Some),
            None => Ok(None),
        }
    }
}

/// Refuses plain HTTP beyond this machine, unless somebody said that the token may travel so.
pub(crate) fn check_plain(url: &Url, allowed: bool) -> Result<(), Failure> {
    if url.scheme() != "http" || is_loopback(url) || allowed {
        return Ok(());
    }
    Err(Failure::usage(format!("{url} is plain HTTP beyond this machine: the token would travel readable"))
        .hint("use its https:// address, or allow it with --insecure-http"))
}

/// The data directory that the user insists on.
pub(crate) fn wanted_data() -> Option<PathBuf> {
    let data = std::env::var_os("WINDLASS_DATA").filter(|value| !value.is_empty())?;
    std::path::absolute(data).ok()
}

/// Which of a user's servers is meant: the one with the wanted data, else the usual one, else the only one.
pub(crate) fn choose<'a>(servers: &'a [Server], wanted: Option<&Path>) -> Result<Option<&'a Server>, Failure> {
    if let Some(wanted) = wanted {
        return Ok(servers.iter().find(|server| same_dir(&server.data, wanted)));
    }
    let usual = place::data_dir("up");
    match servers {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        many => match many.iter().find(|server| same_dir(&server.data, &usual)) {
            Some(server) => Ok(Some(server)),
            None => {
                let urls: Vec<&str> = many.iter().map(|server| server.url.as_str()).collect();
                Err(Failure::usage(format!("{} servers of yours run on this machine", many.len()))
                    .hint(format!("name one with --server: {}", urls.join(", "))))
            }
        },
    }
}

fn same_dir(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    one == other || real(one) == real(other)
}

/// A server's URL.
pub(crate) fn parse(text: &str) -> Result<Url, Failure> {
    let bad = || {
        Failure::from(ClientError::Address { text: text.to_owned() })
            .hint("write it as http://127.0.0.1:7070 or https://ci.example.org")
    };
    let url = Url::parse(text.trim_end_matches('/')).map_err(|_| bad())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(bad());
    }
    Ok(url)
}

/// Whether a URL leads to this machine itself.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn read_token(path: &Path) -> Result<Secret<String>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure {
        code: Code::Usage,
        ..Failure::system(format!("no API token can be read from {}", path.display()), &e)
    })?;
    Ok(Secret::new(text.trim().to_owned()))
}

fn certificate(path: &Path) -> Result<Certificate, Failure> {
    let shown = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| no_ca(&shown, &e))?;
    certificate_of(&bytes, &shown)
}

/// A CA in PEM, and where it stands.
pub(crate) fn certificate_of(pem: &[u8], place: &str) -> Result<Certificate, Failure> {
    Certificate::from_pem(pem).map_err(|e| no_ca(place, &e))
}

fn no_ca(place: &str, error: &dyn std::error::Error) -> Failure {
    Failure { code: Code::Usage, ..Failure::system(format!("no CA can be read from {place}"), error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str, data: &str) -> Server {
        Server { url: url.to_owned(), pid: 1, data: PathBuf::from(data) }
    }

    #[test]
    fn of_several_servers_the_wanted_data_directory_decides() {
        let servers = [server("http://127.0.0.1:1", "/nowhere/a"), server("http://127.0.0.1:2", "/nowhere/b")];
        let chosen = choose(&servers, Some(Path::new("/nowhere/b"))).unwrap();
        assert_eq!(chosen.map(|server| server.url.as_str()), Some("http://127.0.0.1:2"));
        assert!(choose(&servers, Some(Path::new("/nowhere/c"))).unwrap().is_none());
        let failure = choose(&servers, None).unwrap_err();
        assert_eq!(failure.code, Code::Usage);
        assert!(failure.hint.unwrap().contains("http://127.0.0.1:1, http://127.0.0.1:2"));
        assert!(choose(&servers[..1], None).unwrap().is_some());
    }

    #[test]
    fn a_token_travels_readable_to_this_machine_alone_unless_that_is_allowed() {
        for (url, refused) in [
            ("http://ci.example.org", true),
            ("http://10.0.0.1:7070", true),
            ("http://127.0.0.1.example.org", true),
            ("http://127.0.0.1:7070", false),
            ("http://[::1]:7070", false),
            ("https://ci.example.org", false),
        ] {
            let url = parse(url).unwrap();
            let failure = check_plain(&url, false).err();
            assert_eq!(failure.as_ref().map(|failure| failure.code), refused.then_some(Code::Usage), "{url}");
            assert!(check_plain(&url, true).is_ok(), "{url}");
        }
    }

    #[test]
    fn only_this_machine_counts_as_loopback() {
        for (url, expected) in [
            ("http://127.0.0.1:7070", true),
            ("http://[::1]:7070", true),
            ("http://localhost", true),
            ("http://10.0.0.1:7070", false),
            ("http://127.0.0.1.example.org", false),
        ] {
            assert_eq!(is_loopback(&parse(url).unwrap()), expected, "{url}");
        }
        for text in ["127.0.0.1:7070", "ftp://host", "", "http://"] {
            assert_eq!(parse(text).unwrap_err().code, Code::Usage, "{text}");
        }
    }
}
