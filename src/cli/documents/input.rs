//! The files, folders and stdin that `-f` names.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::args::FileArgs;
use super::object::GROUP;
use crate::cli::exit::Error;
use crate::cli::output::text::Clean;

/// The largest file, in bytes. It is many times the size of an ImageAttachment with all objects that it references.
const MAX_BYTES: u64 = 16 << 20;

/// The text of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Input {
    /// The name of the file in messages.
    pub name: String,
    /// The content.
    pub text: String,
    /// True if the file was found in a folder, not named by the user.
    pub from_folder: bool,
    /// The file, or `None` for stdin.
    pub path: Option<PathBuf>,
    /// The reason for which a file of a folder is skipped. Its text is empty then.
    pub skipped: Option<String>,
}

/// Reads all paths of `args`: files, `-` for stdin, and folders. Of a folder it reads each `.yaml`, `.yml` and `.json` file in the order of
/// names; subfolders only with `-R`.
///
/// # Errors
/// Bad input, for each path that cannot be read.
pub(in crate::cli) fn read(args: &FileArgs) -> Result<Vec<Input>, Error> {
    let mut inputs = Vec::new();
    let mut errors = Vec::new();
    for path in &args.files {
        match read_path(path, args.scope.recursive) {
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

fn read_path(path: &Path, recursive: bool) -> Result<Vec<Input>, String> {
    if path.as_os_str() == "-" {
        return Ok(vec![read_text("stdin", std::io::stdin().lock(), false)?]);
    }
    if !path.is_dir() {
        return Ok(vec![read_file(path, false)?]);
    }
    let mut files = Vec::new();
    list_folder(path, recursive, &mut files)?;
    files.sort();
    if files.is_empty() {
        let hint = if recursive {
            ""
        } else {
            "; -R reads its subfolders, too"
        };
        return Err(format!(
            "{}: the folder contains no .yaml, .yml or .json file{hint}",
            display(path)
        ));
    }
    files.iter().map(|path| read_file(path, true)).collect()
}

/// Adds the files of a folder with documents. Folders whose names begin with a dot, and links to folders, are left out.
fn list_folder(folder: &Path, recursive: bool, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let unreadable = |error: std::io::Error| format!("{}: {error}", display(folder));
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        let is_document = path
            .extension()
            .is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if entry.file_type().map_err(unreadable)?.is_dir() {
            if recursive && !is_hidden {
                list_folder(&path, recursive, files)?;
            }
        } else if is_document && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

fn read_file(path: &Path, from_folder: bool) -> Result<Input, String> {
    let open = std::fs::File::open(path).map_err(|error| format!("{}: {error}", display(path)))?;
    Ok(Input {
        path: Some(path.to_owned()),
        ..read_text(&display(path), open, from_folder)?
    })
}

fn read_text(name: &str, from: impl std::io::Read, from_folder: bool) -> Result<Input, String> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{name}: {error}"))?;
    let input = |text, skipped| Input {
        name: name.to_owned(),
        text,
        from_folder,
        path: None,
        skipped,
    };
    let unusable = if bytes.len() as u64 > MAX_BYTES {
        format!("{name}: the file is larger than {MAX_BYTES} bytes: split it")
    } else {
        match String::from_utf8(bytes) {
            Ok(text) => return Ok(input(text, None)),
            Err(error) => {
                bytes = error.into_bytes();
                format!("{name}: the text is not UTF-8: save it as UTF-8")
            }
        }
    };
    // A folder also has files of other programs. A file that mentions affix is never skipped.
    if from_folder && !mentions_affix(&bytes) {
        Ok(input(String::new(), Some(unusable)))
    } else {
        Err(unusable)
    }
}

/// Returns whether bytes contain the group of affix, in UTF-8 or UTF-16.
fn mentions_affix(bytes: &[u8]) -> bool {
    let contains = |bytes: &[u8]| {
        let mut windows = bytes.windows(GROUP.len());
        windows.any(|window| window == GROUP.as_bytes())
    };
    let narrow: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).collect();
    contains(bytes) || contains(&narrow)
}

fn display(path: &Path) -> String {
    Clean(&path.to_string_lossy()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_another_encoding_is_refused() {
        let refused = read_text("x.yaml", b"\xff\xfea\0".as_slice(), false);
        assert_eq!(
            refused,
            Err("x.yaml: the text is not UTF-8: save it as UTF-8".to_owned())
        );
    }

    #[test]
    fn a_file_of_a_folder_in_another_encoding_is_skipped_unless_it_mentions_affix() {
        let read = |bytes: &[u8]| read_text("x.yaml", bytes, true);
        let skipped = read(b"a: \xe9").map(|input| input.skipped);
        assert!(skipped.is_ok_and(|why| why.is_some_and(|why| why.contains("not UTF-8"))));
        assert!(read(b"apiVersion: affix.dev/v1alpha1 # \xe9").is_err());
        let utf16: Vec<u8> = "apiVersion: affix.dev/v1alpha1"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert!(read(&[b"\xff\xfe", utf16.as_slice()].concat()).is_err());
        let large = std::io::repeat(b' ').take(MAX_BYTES + 1);
        assert!(read_text("x.yaml", large, true).is_ok_and(|input| input.skipped.is_some()));
    }
}
