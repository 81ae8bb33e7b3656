//! The page that measurements are saved in. Owns the text between its markers; what people wrote around them stays.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// A page with parts, each between `<!-- bench: NAME -->` and `<!-- /bench -->`.
pub(super) struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            text,
        })
    }

    /// Puts a measured text in the place of an earlier one.
    pub(super) fn replace(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        self.text = replaced(&self.text, name, text)
            .with_context(|| format!("{} has no part {name}", self.path.display()))?;
        Ok(())
    }

    pub(super) fn write(&self) -> anyhow::Result<()> {
        std::fs::write(&self.path, &self.text)
            .with_context(|| format!("{} cannot be written", self.path.display()))
    }
}

fn replaced(page: &str, name: &str, text: &str) -> Option<String> {
    const END: &str = "<!-- /bench -->";
    let begin = format!("<!-- bench: {name} -->");
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!(
        "{before}{begin}\n\n{}\n\n{END}{after}",
        text.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::replaced;

    #[test]
    fn only_the_named_part_is_replaced() {
        let page = "# A\n<!-- bench: one -->\nold\n<!-- /bench -->\nwords\n<!-- bench: two -->\n<!-- /bench -->\n";
        let new = replaced(page, "two", "new\n");
        assert_eq!(
            new.as_deref(),
            Some(
                "# A\n<!-- bench: one -->\nold\n<!-- /bench -->\nwords\n<!-- bench: two -->\n\nnew\n\n<!-- /bench -->\n"
            )
        );
        assert_eq!(replaced(page, "three", "new"), None);
    }
}
