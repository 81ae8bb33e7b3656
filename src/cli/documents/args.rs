//! The flags that name documents.

use std::path::PathBuf;

use crate::api::is_object_name;

/// The flags of a command that reads documents.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct FileArgs {
    /// File, folder (its .yaml, .yml and .json files) or - for stdin with ImageAttachments, ImageAttachmentSets and the
    /// ConfigMaps, Secrets and ServiceAccounts that they reference; may be repeated
    #[arg(short = 'f', long = "filename", required = true, num_args = 1.., value_name = "FILE", value_hint = clap::ValueHint::AnyPath)]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    pub scope: ScopeArgs,
}

/// The flags that say how documents are read.
#[derive(Debug, Default, clap::Args)]
pub(in crate::cli) struct ScopeArgs {
    /// Read the subfolders of folders, too
    #[arg(short = 'R', long)]
    pub recursive: bool,

    /// Namespace of objects that name none; by default "default"
    #[arg(short, long, value_name = "NAMESPACE", value_parser = namespace)]
    pub namespace: Option<String>,
}

/// Parses the name of a namespace.
fn namespace(text: &str) -> Result<String, String> {
    if is_object_name(text) {
        Ok(text.to_owned())
    } else {
        Err("it is not a name of a namespace: write lower-case letters, digits and -".to_owned())
    }
}

impl ScopeArgs {
    /// Returns the namespace of objects that name none.
    pub(in crate::cli) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }
}
