//! What `-f` names: files, folders, stdin, read into memory with a limit.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::cli::exit::Error;
use crate::cli::text::Clean;

/// The most that is read of one file, in bytes; an ImageAttachment with all that it names fits many times.
const MOST_BYTES: u64 = 16 << 20;

/// One file's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Input {
    /// As messages name it.
    pub name: String,
    /// Its content.
    pub text: String,
    /// Whether a folder led to it, rather than the user naming it.
    pub found: bool,
}

/// Reads everything that `paths` name: a file, `-` for stdin, or a folder, of which each `.yaml`, `.yml` and `.json` file is
/// read, in the order of names and without going deeper.
///
/// # Errors
/// Bad input, for each path that cannot be read.
pub(in crate::cli) fn read(paths: &[PathBuf]) -> Result<Vec<Input>, Error> {
    let mut inputs = Vec::new();
    let mut errors = Vec::new();
    for path in paths {
        match read_path(path) {
            Ok(read) => inputs.extend(read),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(inputs)
    } else {
        Err(Error::BadInput(errors))
    }
}

fn read_path(path: &Path) -> Result<Vec<Input>, String> {
    if path.as_os_str() == "-" {
        return Ok(vec![text(
            "stdin".to_owned(),
            std::io::stdin().lock(),
            false,
        )?]);
    }
    if !path.is_dir() {
        return Ok(vec![file(path, false)?]);
    }
    let unreadable = |error: std::io::Error| format!("{}: {error}", shown(path));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_document = path
            .extension()
            .is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        if is_document && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(format!(
            "{}: the folder holds no .yaml, .yml or .json file",
            shown(path)
        ));
    }
    files.iter().map(|path| file(path, true)).collect()
}

fn file(path: &Path, found: bool) -> Result<Input, String> {
    let open = std::fs::File::open(path).map_err(|error| format!("{}: {error}", shown(path)))?;
    text(shown(path), open, found)
}

fn text(name: String, from: impl std::io::Read, found: bool) -> Result<Input, String> {
    let mut text = String::new();
    match from.take(MOST_BYTES + 1).read_to_string(&mut text) {
        Ok(read) if read as u64 > MOST_BYTES => Err(format!(
            "{name}: more than {MOST_BYTES} bytes are not read: split the file"
        )),
        Ok(_) => Ok(Input { name, text, found }),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(format!("{name}: it is no text in UTF-8: save it as UTF-8"))
        }
        Err(error) => Err(format!("{name}: {error}")),
    }
}

fn shown(path: &Path) -> String {
    Clean(&path.to_string_lossy()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_another_encoding_is_refused_with_the_way_out() {
        let refused = text("x.yaml".to_owned(), b"\xff\xfea\0".as_slice(), false);
        assert_eq!(
            refused,
            Err("x.yaml: it is no text in UTF-8: save it as UTF-8".to_owned())
        );
    }
}
