//! Keeps what the coordinator's servers show current: its own certificates are made anew in time, an operator's files
//! are read again when they change, or when somebody says so (SIGHUP). Nothing is restarted and no connection ends.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use windlass_protocol::host::now;
use windlass_protocol::identity::{IdentityError, Shown};
use windlass_protocol::limits::{SERVER_CERT_CHECK_MS, TLS_FILES_CHECK_MS};
use windlass_protocol::{Secret, WallMs};

use crate::authority::Authority;
use crate::run::StartError;

/// At least this long between two looks, also after a failure.
const LOOK_MIN_MS: u64 = 100;

/// An operator's certificate, in files that other programs renew.
#[derive(Debug)]
pub(crate) struct Files {
    cert: PathBuf,
    key: PathBuf,
    shown: Arc<Shown>,
    /// As they were when they were last read, whatever came of it.
    read: Option<Stamps>,
}

/// By which a file is seen to have changed: renewing programs rename, and hosts of mounted secrets turn links.
type Stamp = (u64, i64, i64, u64);
type Stamps = (Stamp, Stamp);

impl Files {
    /// Reads them for the first time.
    ///
    /// # Errors
    /// Where they cannot be read, or do not fit each other.
    pub(crate) async fn open(cert: &Path, key: &Path) -> Result<Self, StartError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StartError::File { doing: "cannot read", path, source }
        };
        let read = stamps(cert, key).await.ok();
        let chain = tokio::fs::read_to_string(cert).await.map_err(failed(cert))?;
        let secret = Secret::new(tokio::fs::read_to_string(key).await.map_err(failed(key))?);
        let shown = Shown::from_pem(&chain, &secret)?;
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), shown, read })
    }

    /// What they hold, as it is shown.
    pub(crate) fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown)
    }

    /// Reads them again if they have changed since, or if it must. What cannot be used is not shown: the earlier
    /// certificate stays, and half of a pair that is being replaced is read again when the other half is there.
    async fn look(&mut self, must: bool) {
        let stamps = match stamps(&self.cert, &self.key).await {
            Ok(stamps) => stamps,
            // In the middle of being replaced, most often.
            Err(error) if !must => return tracing::debug!(%error, "certificate_files_missing"),
            Err(error) => return tracing::error!(%error, cert = %self.cert.display(), "certificate_not_reloaded"),
        };
        if !must && self.read == Some(stamps) {
            return;
        }
        self.read = Some(stamps);
        match self.load().await {
            Ok(()) => tracing::info!(cert = %self.cert.display(), "certificate_reloaded"),
            Err(error) => tracing::error!(%error, cert = %self.cert.display(), "certificate_not_reloaded"),
        }
    }

    async fn load(&self) -> Result<(), Unusable> {
        let chain = tokio::fs::read_to_string(&self.cert).await?;
        let key = Secret::new(tokio::fs::read_to_string(&self.key).await?);
        Ok(self.shown.replace_pem(&chain, &key)?)
    }
}

/// Why what the files hold is not shown.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it cannot be read: {0}")]
    File(#[from] io::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

async fn stamps(cert: &Path, key: &Path) -> io::Result<Stamps> {
    let of = async |path: &Path| {
        let found = tokio::fs::metadata(path).await?;
        Ok::<_, io::Error>((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
    };
    Ok((of(cert).await?, of(key).await?))
}

/// Runs until `stop` turns true.
pub(crate) async fn run(
    authority: Arc<Authority>,
    mut files: Option<Files>,
    reload: Arc<Notify>,
    mut stop: watch::Receiver<bool>,
) {
    let mut made = now().wall;
    loop {
        let due = authority.renew_servers_at(made);
        let longest = if files.is_some() { TLS_FILES_CHECK_MS } else { SERVER_CERT_CHECK_MS };
        let wait = due.0.saturating_sub(now().wall.0).clamp(LOOK_MIN_MS, longest);
        let told = tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(wait)) => false,
            () = reload.notified() => true,
            () = crate::http::stopped(&mut stop) => return,
        };
        let at = now().wall;
        if is_due(at, made, due) {
            match authority.renew_servers(at) {
                Ok(()) => {
                    made = at;
                    tracing::info!("server_certificates_renewed");
                }
                Err(error) => tracing::error!(%error, "server_certificates_not_renewed"),
            }
        }
        if let Some(files) = &mut files {
            files.look(told).await;
        }
    }
}

/// At its time, and also if the clock was set back to before they were made: nobody with the right time believes those.
const fn is_due(at: WallMs, made: WallMs, due: WallMs) -> bool {
    at.0 >= due.0 || at.0 < made.0
}

#[cfg(test)]
mod tests {
    use windlass_protocol::identity::{Ca, ServerCertificate};

    use super::*;

    fn issue(ca: &Ca) -> ServerCertificate {
        ca.issue_web_server(&["ci.example".to_owned()], &[], now().wall, 60_000).unwrap()
    }

    #[tokio::test]
    async fn changed_files_are_read_again_and_half_a_pair_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        let ca = Ca::create_p256(now().wall).unwrap();
        let (first, second) = (issue(&ca), issue(&ca));
        // As careful programs do it: beside, then renamed.
        let put = |path: &Path, text: &str| {
            let beside = path.with_extension("new");
            std::fs::write(&beside, text).unwrap();
            std::fs::rename(beside, path).unwrap();
        };
        put(&cert, first.chain_pem());
        put(&key, first.key_pem().expose());
        let mut files = Files::open(&cert, &key).await.unwrap();
        let shown = files.shown();
        let leaf = || shown.leaf().unwrap().to_vec();
        assert_eq!(leaf(), first.chain[0]);
        put(&cert, second.chain_pem());
        files.look(false).await;
        assert_eq!(leaf(), first.chain[0], "the key is still the old one");
        put(&key, second.key_pem().expose());
        files.look(false).await;
        assert_eq!(leaf(), second.chain[0]);
        std::fs::remove_file(&cert).unwrap();
        files.look(false).await;
        files.look(true).await;
        assert_eq!(leaf(), second.chain[0], "files that are gone change nothing");
        put(&cert, "no certificate");
        files.look(true).await;
        assert_eq!(leaf(), second.chain[0]);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_new_certificates_due() {
        let (made, due) = (WallMs(1_000), WallMs(2_000));
        assert_eq!([999, 1_000, 1_999, 2_000].map(|at| is_due(WallMs(at), made, due)), [true, false, false, true]);
    }
}
