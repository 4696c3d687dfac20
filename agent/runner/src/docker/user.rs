//! Who an image's commands run as. The workspace is that user's while the job runs: programs such as git trust no files
//! of another one, and one that is not root could write nowhere.

use bollard::Docker;
use bollard::errors::Error as EngineError;
use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use futures_util::TryStreamExt;
use windlass_protocol::limits::PASSWD_MAX_BYTES;

use crate::launch::User;

/// The size of a tar's header, and of the blocks behind it.
const TAR_BLOCK: usize = 512;

/// The user of a container that exists, by what its image says (`""`, `1000`, `1000:100`, `node`, `node:staff`).
/// `None` where the image does not have that user: then the engine refuses to start it, and says so.
pub(super) async fn of(docker: &Docker, container: &str, configured: &str) -> Result<Option<User>, EngineError> {
    let (name, group) = configured.split_once(':').unwrap_or((configured, ""));
    let numbered = if name.is_empty() { Some(0) } else { name.parse().ok() };
    let found = match numbered {
        Some(uid) => Some(User { uid, gid: 0 }),
        None => in_passwd(&passwd(docker, container).await?, name),
    };
    Ok(found.map(|user| User { gid: group.parse().unwrap_or(user.gid), ..user }))
}

/// The container's `/etc/passwd`; empty where it has none.
async fn passwd(docker: &Docker, container: &str) -> Result<String, EngineError> {
    let options = DownloadFromContainerOptionsBuilder::default().path("/etc/passwd").build();
    let mut stream = Box::pin(docker.download_from_container(container, Some(options)));
    let mut archive = Vec::new();
    loop {
        match stream.try_next().await {
            Ok(Some(bytes)) if archive.len() + bytes.len() <= PASSWD_MAX_BYTES => archive.extend_from_slice(&bytes),
            Ok(_) => return Ok(String::from_utf8_lossy(first_file(&archive)).into_owned()),
            Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => return Ok(String::new()),
            Err(error) => return Err(error),
        }
    }
}

/// What the first entry of a tar holds, as far as it is there (POSIX ustar: the size is octal, at 124).
fn first_file(archive: &[u8]) -> &[u8] {
    let size = archive.get(124..136).and_then(|field| std::str::from_utf8(field).ok());
    let size = size.and_then(|text| usize::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()).unwrap_or(0);
    let rest = archive.get(TAR_BLOCK..).unwrap_or_default();
    rest.get(..size.min(rest.len())).unwrap_or_default()
}

fn in_passwd(passwd: &str, name: &str) -> Option<User> {
    let mut lines = passwd.lines().map(|line| line.split(':'));
    let mut fields = lines.find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    Some(User { uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_whole_and_in_the_right_columns() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nnodes:x:1:2:::\nnode:x:1000:1001:Node:/home:/bin/sh\nbad:x:a:b\n";
        assert_eq!(in_passwd(passwd, "node"), Some(User { uid: 1_000, gid: 1_001 }));
        for name in ["nod", "bad", "x", ""] {
            assert_eq!(in_passwd(passwd, name), None, "{name}");
        }
    }

    #[test]
    fn an_archive_that_is_cut_or_none_at_all_is_read_as_far_as_it_goes() {
        let mut archive = vec![0; TAR_BLOCK];
        archive[124..135].copy_from_slice(b"00000000005");
        archive.extend_from_slice(b"root:\0\0");
        assert_eq!(first_file(&archive), b"root:");
        assert_eq!(first_file(&archive[..TAR_BLOCK + 2]), b"ro");
        for bytes in [&b""[..], &archive[..130], &[0xff; 600]] {
            assert_eq!(first_file(bytes), b"");
        }
    }
}
