//! Reads the files that entries and clients name. The names come from outside, so what is opened
//! is a regular file (a pipe would wait for ever) and no more than a cap is read.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

/// Largest file an entry may refer to: an environment or a secret.
const LARGEST: u64 = 1 << 20;

/// Why a file could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is not there.
    Absent,
    /// It is there, but.
    Because(String),
}

/// The text of a file an entry refers to.
pub(crate) fn read_capped(path: &Path) -> Result<String, String> {
    let bytes = read(path, LARGEST).map_err(|unread| match unread {
        Unread::Absent => "there is no such file".to_owned(),
        Unread::Because(why) => why,
    })?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
}

/// The bytes of a regular file of at most `largest` bytes.
pub(crate) fn read(path: &Path, largest: u64) -> Result<Vec<u8>, Unread> {
    let unread = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Unread::Absent,
        _ => Unread::Because(error.to_string()),
    };
    let metadata = std::fs::metadata(path).map_err(unread)?;
    if !metadata.is_file() {
        return Err(Unread::Because("it is not a regular file".to_owned()));
    }
    let too_large = || Unread::Because(format!("it is larger than {} MB", largest >> 20));
    if metadata.len() > largest {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let mut limited = File::open(path).map_err(unread)?.take(largest + 1);
    limited.read_to_end(&mut bytes).map_err(unread)?;
    // It may have grown since it was measured.
    if bytes.len() as u64 > largest {
        return Err(too_large());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_up_to_the_cap_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![b'x'; 3 << 20]).unwrap();
        assert_eq!(read(&path, 3 << 20).unwrap().len(), 3 << 20);
        let too_large = Unread::Because("it is larger than 2 MB".to_owned());
        assert_eq!(read(&path, 2 << 20), Err(too_large));
        assert_eq!(read(&dir.path().join("no"), 9), Err(Unread::Absent));
        assert_eq!(read(&path.join("below"), 9), Err(Unread::Absent));
        assert!(matches!(read(dir.path(), 9), Err(Unread::Because(_))));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(read_capped(&path).unwrap_err().contains("UTF-8"));
    }

    #[cfg(unix)]
    #[test]
    fn a_device_or_pipe_is_refused_before_it_is_opened() {
        let refused = read(Path::new("/dev/zero"), 9).unwrap_err();
        assert_eq!(refused, Unread::Because("it is not a regular file".to_owned()));
    }
}
