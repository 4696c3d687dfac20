//! Which bucket, and who asks.

use std::io;

use windlass_protocol::Secret;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The access key's id.
    pub id: String,
    /// The key.
    pub secret: Secret<String>,
    /// Of keys that were given for a while.
    pub token: Option<Secret<String>>,
}

impl Keys {
    /// Out of a file as AWS's tools write it: the profile `default`, or the only one.
    ///
    /// # Errors
    /// What is missing; never what is there.
    pub fn from_file(text: &str) -> Result<Self, &'static str> {
        let mut profiles: Vec<(&str, Vec<(&str, &str)>)> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                profiles.push((name.trim(), Vec::new()));
            } else if let Some((key, value)) = line.split_once('=') {
                let Some((_, keys)) = profiles.last_mut() else { return Err("it begins with no [default]") };
                keys.push((key.trim(), value.trim()));
            } else {
                return Err("it has a line that is neither [profile] nor key = value");
            }
        }
        let default = profiles.iter().find(|(name, _)| *name == "default");
        let (_, keys) =
            default.or(if let [only] = &*profiles { Some(only) } else { None }).ok_or("it has no [default]")?;
        let find = |wanted: &str| keys.iter().find(|(key, _)| *key == wanted).map(|(_, value)| (*value).to_owned());
        Ok(Self {
            id: find("aws_access_key_id").ok_or("it has no aws_access_key_id")?,
            secret: Secret::new(find("aws_secret_access_key").ok_or("it has no aws_secret_access_key")?),
            token: find("aws_session_token").map(Secret::new),
        })
    }
}

/// A bucket as it is described.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The bucket's name.
    pub name: String,
    /// The folder in it that all objects lie in; empty for none.
    pub prefix: String,
    /// `us-east-1` and the like; else `AWS_REGION`, else that one.
    pub region: Option<String>,
    /// The server's URL where it is not AWS.
    pub endpoint: Option<String>,
    /// Whether the bucket's name is in the path and not in the host.
    pub path_style: bool,
    /// Whether an endpoint without TLS is asked.
    pub insecure_http: bool,
    /// Who asks; else what the environment or the machine gives.
    pub keys: Option<Keys>,
    /// Certificates that are trusted beside those of the system, in PEM.
    pub ca_pem: Option<Vec<u8>>,
}

/// A bucket that cannot be asked as it is described.
#[derive(Debug, thiserror::Error)]
pub enum BadBucket {
    /// The folder.
    #[error("the bucket's prefix is no path of an object: {0}")]
    Prefix(String),
    /// The certificates.
    #[error("the bucket's ca_file has no certificate: {0}")]
    Ca(String),
    /// Anything else.
    #[error("the bucket's settings are not valid: {0}")]
    Settings(String),
    /// No thread to ask from.
    #[error("the threads that ask the bucket cannot be started")]
    Threads(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_aws_writes_them_and_never_shown() {
        let file = "# mine\n[other]\naws_access_key_id = x\n[default]\naws_access_key_id=AKIA\naws_secret_access_key = s3cr3t=\n";
        let keys = Keys::from_file(file).unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.expose().as_str(), keys.token.is_none()), ("AKIA", "s3cr3t=", true));
        assert!(!format!("{keys:?}").contains("s3cr3t"));
        let only = "[ci]\naws_access_key_id=a\naws_secret_access_key=b\naws_session_token=c\n";
        assert_eq!(Keys::from_file(only).unwrap().token.unwrap().expose(), "c");
        for (bad, why) in [
            ("", "it has no [default]"),
            ("aws_access_key_id=a", "it begins with no [default]"),
            ("[default]\nwhat", "it has a line that is neither [profile] nor key = value"),
            ("[default]\naws_access_key_id=a", "it has no aws_secret_access_key"),
            ("[a]\nx=1\n[b]\nx=1\n", "it has no [default]"),
        ] {
            assert_eq!(Keys::from_file(bad).unwrap_err(), why);
        }
    }
}
