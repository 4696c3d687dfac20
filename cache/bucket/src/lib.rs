//! An S3 bucket behind a blob store: [`windlass_cache::Remote`] by way of `object_store`.
//!
//! | module | owns |
//! | --- | --- |
//! | [`settings`] | which bucket, and who asks |
//! | `runtime` | the threads on which requests are made, for callers that have none |
//!
//! A crate of its own, so that only what has a bucket builds it.

pub mod settings;

mod runtime;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::path::Path;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, Error, GetOptions, MultipartUpload, ObjectStore as _,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, RetryConfig,
};
use windlass_cache::{Remote, RemoteError, RemoteObject};
use windlass_protocol::limits::{
    ORIGIN_CONNECT_MS, ORIGIN_DEADLINE_MS, ORIGIN_LIST_MAX, ORIGIN_PART_BYTES, ORIGIN_REQUEST_MS, ORIGIN_RETRIES,
    ORIGIN_WHY_MAX_BYTES,
};

use runtime::Requests;
pub use settings::{BadBucket, Keys, Settings};

/// A bucket, or what of it lies below a prefix.
#[derive(Debug)]
pub struct Bucket {
    store: Arc<AmazonS3>,
    prefix: Path,
    requests: Requests,
}

impl Bucket {
    /// Makes ready to ask a bucket; asks nothing yet.
    ///
    /// # Errors
    /// [`BadBucket`], where it cannot be asked as it is described.
    pub fn new(settings: &Settings) -> Result<Self, BadBucket> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Whoever was quicker installed the same.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let prefix = Path::parse(&settings.prefix).map_err(|e| BadBucket::Prefix(e.to_string()))?;
        let mut client = ClientOptions::new()
            .with_connect_timeout(Duration::from_millis(ORIGIN_CONNECT_MS))
            .with_timeout(Duration::from_millis(ORIGIN_REQUEST_MS));
        if let Some(pem) = &settings.ca_pem {
            let certificates = Certificate::from_pem_bundle(pem).map_err(|e| BadBucket::Ca(e.to_string()))?;
            client = certificates.into_iter().fold(client, ClientOptions::with_root_certificate);
        }
        let retry = RetryConfig {
            // The pauses grow, and are drawn at random between the least and three times the last.
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(5),
                base: 2.0,
            },
            max_retries: ORIGIN_RETRIES,
            retry_timeout: Duration::from_millis(ORIGIN_DEADLINE_MS / 2),
        };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&settings.name)
            .with_client_options(client)
            .with_retry(retry)
            .with_checksum_algorithm(Checksum::SHA256)
            .with_disable_bulk_delete(true)
            .with_allow_http(settings.insecure_http)
            .with_virtual_hosted_style_request(!settings.path_style);
        if let Some(region) = &settings.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(keys) = &settings.keys {
            builder = builder.with_access_key_id(&keys.id).with_secret_access_key(keys.secret.expose());
            if let Some(token) = &keys.token {
                builder = builder.with_token(token.expose());
            }
        }
        let store = builder.build().map_err(|e| BadBucket::Settings(e.to_string()))?;
        let requests = Requests::new().map_err(BadBucket::Threads)?;
        Ok(Self { store: Arc::new(store), prefix, requests })
    }

    fn path(&self, key: &str) -> Path {
        key.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    fn key<'a>(&self, path: &'a Path) -> Option<&'a str> {
        if self.prefix.as_ref().is_empty() {
            return Some(path.as_ref());
        }
        path.as_ref().strip_prefix(self.prefix.as_ref())?.strip_prefix('/')
    }

    /// Sends the parts; whatever happens to one, the upload is to be given up then.
    fn put_parts(
        &self,
        mut upload: Box<dyn MultipartUpload>,
        (key, bytes): (&str, u64),
        next: &mut dyn FnMut() -> io::Result<Vec<u8>>,
    ) -> Result<(), (Option<Box<dyn MultipartUpload>>, RemoteError)> {
        let mut sent = 0;
        while sent < bytes {
            let part = match next() {
                Ok(part) => part,
                Err(e) => return Err((Some(upload), RemoteError::Unavailable { why: e.to_string() })),
            };
            sent += part.len() as u64;
            let put = async move {
                let sent = upload.put_part(PutPayload::from_bytes(Bytes::from(part))).await;
                Ok((upload, sent))
            };
            let (back, put) = self.requests.wait(put).map_err(|e| (None, told(e, key)))?;
            upload = back;
            if let Err(e) = put {
                return Err((Some(upload), told(Failed::Store(e), key)));
            }
        }
        let complete = async move {
            let complete = upload.complete().await;
            Ok((upload, complete))
        };
        let (upload, complete) = self.requests.wait(complete).map_err(|e| (None, told(e, key)))?;
        complete.map(|_| ()).map_err(|e| (Some(upload), told(Failed::Store(e), key)))
    }
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Failed {
    Store(Error),
    /// Nothing was heard within the time that a caller waits.
    Late,
}

/// What it means; never with more of the server's words than fit a line of a log.
fn told(failed: Failed, key: &str) -> RemoteError {
    let error = match failed {
        Failed::Store(error) => error,
        Failed::Late => {
            return RemoteError::Unavailable { why: format!("no answer of {key} within {ORIGIN_DEADLINE_MS} ms") };
        }
    };
    let mut why = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        let said = error.to_string();
        if !why.contains(&said) {
            why = format!("{why}: {said}");
        }
        cause = error.source();
    }
    why.truncate(why.floor_char_boundary(ORIGIN_WHY_MAX_BYTES));
    match error {
        Error::NotFound { .. } => RemoteError::Missing { key: key.to_owned() },
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => RemoteError::Refused { why },
        _ => RemoteError::Unavailable { why },
    }
}

impl Remote for Bucket {
    fn put(&self, key: &str, bytes: u64, next: &mut dyn FnMut() -> io::Result<Vec<u8>>) -> Result<(), RemoteError> {
        let (store, path) = (Arc::clone(&self.store), self.path(key));
        if bytes <= ORIGIN_PART_BYTES as u64 {
            let part = if bytes == 0 {
                Vec::new()
            } else {
                next().map_err(|e| RemoteError::Unavailable { why: e.to_string() })?
            };
            let put = async move {
                store.put_opts(&path, PutPayload::from_bytes(Bytes::from(part)), PutOptions::default()).await
            };
            return self.requests.wait(put).map(|_| ()).map_err(|e| told(e, key));
        }
        let begin = async move { store.put_multipart_opts(&path, PutMultipartOptions::default()).await };
        let upload = self.requests.wait(begin).map_err(|e| told(e, key))?;
        self.put_parts(upload, (key, bytes), next).map_err(|(upload, error)| {
            if let Some(mut upload) = upload {
                // What is not given up is a rule of the bucket's to tidy.
                let aborted = self.requests.wait(async move { upload.abort().await });
                if let Err(failed) = aborted {
                    tracing::warn!(key, error = %told(failed, key), "origin_upload_left_behind");
                }
            }
            error
        })
    }

    fn get(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, RemoteError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let (store, path) = (Arc::clone(&self.store), self.path(key));
        let wanted = range.clone();
        let get = async move {
            let options = GetOptions { range: Some(wanted.into()), ..GetOptions::default() };
            store.get_opts(&path, options).await?.bytes().await
        };
        let bytes = self.requests.wait(get).map_err(|e| told(e, key))?;
        if bytes.len() as u64 != range.end - range.start {
            return Err(RemoteError::Unavailable { why: format!("{} of {key} came, and not {range:?}", bytes.len()) });
        }
        Ok(bytes.into())
    }

    fn delete(&self, key: &str) -> Result<(), RemoteError> {
        let (store, path) = (Arc::clone(&self.store), self.path(key));
        match self.requests.wait(async move { store.delete(&path).await }) {
            Ok(()) | Err(Failed::Store(Error::NotFound { .. })) => Ok(()),
            Err(e) => Err(told(e, key)),
        }
    }

    fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<RemoteObject>, RemoteError> {
        let store = Arc::clone(&self.store);
        let folder = self.path(prefix.trim_end_matches('/'));
        let after = after.map(|after| self.path(after));
        let list = async move {
            let listed = match &after {
                Some(after) => store.list_with_offset(Some(&folder), after),
                None => store.list(Some(&folder)),
            };
            listed.take(ORIGIN_LIST_MAX).try_collect::<Vec<_>>().await
        };
        let mut listed = self.requests.wait(list).map_err(|e| told(e, prefix))?;
        listed.sort_by(|a, b| a.location.cmp(&b.location));
        let object = |meta: &object_store::ObjectMeta| {
            Some(RemoteObject { key: self.key(&meta.location)?.to_owned(), bytes: meta.size })
        };
        Ok(listed.iter().filter_map(object).collect())
    }
}
