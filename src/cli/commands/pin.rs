//! `affix pin`: replaces tags by `tag@digest` in the text of the files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use futures::StreamExt as _;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::api::Pinned;
use crate::cli::documents::{
    Attachment, Documents, FileArgs, Input, Location, options, parse, read,
};
use crate::cli::exit::{Error, Exit, message, print};
use crate::cli::local;
use crate::cli::output::text::{self, Clean};
use crate::engine::{Mode, access};
use affix_registry::oci::Reference;
use affix_registry::{Keychain, Locator, Registries};

/// The number of tags that are resolved at once.
const MAX_CONCURRENT: usize = 16;

/// Print ImageAttachments with each tag replaced by tag@digest
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Only the image changes; the rest of the text stays, including comments. Sets and images with a digest stay, and so do images of \
resources with spec.endOfLife.whenSuperseded, which follow a tag. --update also changes images with a tag and a digest: they get the digest \
that the tag names now.

The result is printed as one stream of documents. --in-place writes the files instead, and only those whose images change. Every other byte of \
a file stays, also in its other documents.

The pull secret of a resource is not needed: if it is not among the files, your own login is used.

Examples:
  # Pin the image of a file
  affix pin -f end-of-life.yaml > pinned.yaml

  # Write the files of a folder and of its subfolders
  affix pin -f config/ -R --in-place

  # Move the digests to the present images of the tags, and see the difference
  affix pin -f config/ --update --in-place && git diff

  # Pin, then attach or apply
  affix pin -f end-of-life.yaml | affix attach -f -
  affix pin -f config/ | kubectl apply -f -

Exit codes: 0 all tags are pinned, 1 a tag could not be resolved, 2 the input is invalid."
)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    files: FileArgs,

    /// Move existing digests to the image that the tag names now
    #[arg(long)]
    update: bool,

    /// Write the files, instead of printing the documents
    #[arg(short, long)]
    in_place: bool,
}

/// Runs the command.
pub(in crate::cli) async fn run(args: Args) -> Result<Exit, Error> {
    if args.in_place && args.files.files.iter().any(|file| file.as_os_str() == "-") {
        return Err(Error::bad_input(
            "--in-place cannot write stdin: leave out --in-place, or name a file with -f",
        ));
    }
    let inputs = read(&args.files)?;
    let namespace = args.files.scope.namespace();
    let documents = Documents::from_inputs(&inputs, Pinned::Later, namespace)?;
    documents.require_attachments()?;
    local::show_notices(&documents);
    for set in &documents.sets {
        message(&format!(
            "notice: {}: the set {} stays, because it selects tags",
            set.location,
            set.label()
        ));
    }
    let logins = local::logins(&documents, Mode::Plan).await;
    let registries = local::registries();
    let answers: Vec<Result<Option<Pin>, Error>> = futures::stream::iter(&documents.attachments)
        .map(|attachment| resolve(&registries, &documents, attachment, &logins, args.update))
        .buffered(MAX_CONCURRENT)
        .collect()
        .await;
    let mut pins = Vec::new();
    let (mut wrong, mut failed) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            Ok(pin) => pins.extend(pin),
            Err(Error::BadInput(errors)) => wrong.extend(errors),
            Err(error) => failed.push(error.to_string()),
        }
    }
    if !wrong.is_empty() {
        return Err(Error::BadInput(wrong));
    }
    if !failed.is_empty() {
        return Err(Error::Failed(failed.join("\nerror: ")));
    }
    let kept = inputs
        .iter()
        .filter(|input| documents.files.contains(&input.name));
    let texts: Result<Vec<(&Input, String)>, Error> = kept
        .map(|input| Ok((input, rewrite(input, &pins)?)))
        .collect();
    let texts = texts?;
    if args.in_place {
        return write_files(&texts);
    }
    let texts: Vec<String> = texts.into_iter().map(|(_, text)| text).collect();
    print(&join(&texts))?;
    Ok(Exit::Done)
}

/// Writes the files whose text changed.
fn write_files(texts: &[(&Input, String)]) -> Result<Exit, Error> {
    let mut written = 0;
    for (input, text) in texts.iter().filter(|(input, text)| input.text != *text) {
        if let Some(path) = &input.path {
            replace(path, text)
                .map_err(|error| Error::Failed(format!("{}: {error}", input.name)))?;
            message(&format!("{}: pinned", input.name));
            written += 1;
        }
    }
    if written == 0 {
        message("nothing to do: every image is pinned already");
    }
    Ok(Exit::Done)
}

/// Replaces the content of a file. The file has either the old content or the new one at any time, and keeps its permissions.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    // A link stays a link.
    let path = path.canonicalize()?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".affix-pin");
    let fresh = path.with_file_name(name);
    let permissions = std::fs::metadata(&path)?.permissions();
    let done = std::fs::write(&fresh, text)
        .and_then(|()| std::fs::set_permissions(&fresh, permissions))
        .and_then(|()| std::fs::rename(&fresh, &path));
    if done.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    done
}

/// An image, and its replacement.
#[derive(Debug, Clone)]
struct Pin {
    location: Location,
    from: String,
    to: String,
}

async fn resolve(
    registries: &Registries,
    documents: &Documents,
    attachment: &Attachment,
    logins: &Keychain,
    update: bool,
) -> Result<Option<Pin>, Error> {
    // A digest is public: neither the signing key nor the pull secret is needed for it.
    let spec = &*local::readable_spec(documents, attachment, Mode::Plan);
    let location = &attachment.location;
    let reference: Reference = spec.image.parse().map_err(|error| {
        Error::bad_input(format_args!(
            "{location}: spec.image: {}",
            Clean(&format!("{error}"))
        ))
    })?;
    let tag = match (&reference.digest, &reference.tag) {
        (None, Some(tag)) => tag,
        (Some(_), Some(tag)) if update => tag,
        (Some(digest), None) if update => {
            message(&format!(
                "notice: {location}: spec.image stays, because it has the digest {} and no tag",
                text::short(digest)
            ));
            return Ok(None);
        }
        _ => return Ok(None),
    };
    if spec
        .end_of_life
        .as_ref()
        .is_some_and(|mark| mark.when_superseded.is_some())
    {
        message(&format!(
            "notice: {location}: spec.image stays, because spec.endOfLife.whenSuperseded follows the tag {tag}"
        ));
        return Ok(None);
    }
    let access = access(
        spec,
        [&reference.host],
        &documents.sources(attachment, logins.clone()),
    )
    .map_err(|problem| {
        Error::bad_input(format_args!("{location}: {}", local::explain(&problem)))
    })?;
    let failed = |error: affix_registry::RegistryError| {
        Error::Failed(format!(
            "{location}: spec.image: {}: {}",
            Clean(&spec.image),
            Clean(&error.to_string())
        ))
    };
    let session = registries
        .open(&reference.host, &reference.repository, access)
        .map_err(failed)?;
    let head = local::announced(
        || format!("waiting for {}", reference.host),
        session.head(&Locator::Tag(tag.clone())),
    )
    .await
    .map_err(failed)?;
    if reference.digest.as_ref() == Some(&head.digest) {
        return Ok(None);
    }
    let pinned = Reference {
        digest: Some(head.digest),
        ..reference
    };
    Ok(Some(Pin {
        location: location.clone(),
        from: spec.image.clone(),
        to: pinned.to_string(),
    }))
}

/// Returns the text of a file with its images pinned. The result is parsed again, because nothing but the images may differ.
fn rewrite(input: &Input, pins: &[Pin]) -> Result<String, Error> {
    let pins: Vec<&Pin> = pins
        .iter()
        .filter(|pin| pin.location.file == input.name)
        .collect();
    if pins.is_empty() {
        return Ok(input.text.clone());
    }
    let by_hand = || {
        let mut text = format!(
            "{}: cannot change the text in place; edit it by hand",
            input.name
        );
        for pin in &pins {
            let _ = write!(text, "\n  {}: image: {}", pin.location, pin.to);
        }
        Error::Failed(text)
    };
    let documents: Vec<Spanned<Node>> =
        serde_saphyr::from_multiple_with_options(&input.text, options()).map_err(|_| by_hand())?;
    let mut changes: BTreeMap<usize, (usize, String)> = BTreeMap::new();
    for pin in &pins {
        let (start, end) = documents
            .get(pin.location.document - 1)
            .and_then(|root| image(root, pin.location.item))
            .ok_or_else(by_hand)?;
        let old = input.text.get(start..end).ok_or_else(by_hand)?;
        let new = if old.matches(&pin.from).count() == 1 {
            old.replacen(&pin.from, &pin.to, 1)
        } else {
            format!("{:?}", pin.to)
        };
        changes.insert(start, (end, new));
    }
    let mut text = input.text.clone();
    for (start, (end, new)) in changes.into_iter().rev() {
        text.replace_range(start..end, &new);
    }
    if differs_in_pins_only(input, &text, &pins) {
        Ok(text)
    } else {
        Err(by_hand())
    }
}

/// Returns whether `text` is `input` with the pins and no other change.
fn differs_in_pins_only(input: &Input, text: &str, pins: &[&Pin]) -> bool {
    let (Ok(mut before), Ok(after)) = (
        parse(input),
        parse(&Input {
            text: text.to_owned(),
            ..input.clone()
        }),
    ) else {
        return false;
    };
    for pin in pins {
        let Some(document) = before.get_mut(pin.location.document - 1) else {
            return false;
        };
        let object = match pin.location.item {
            Some(item) => document
                .value
                .get_mut("items")
                .and_then(|items| items.get_mut(item - 1)),
            None => Some(&mut document.value),
        };
        match object.and_then(|object| object.get_mut("spec")?.get_mut("image")) {
            Some(image) => *image = pin.to.as_str().into(),
            None => return false,
        }
    }
    before
        .into_iter()
        .map(|document| document.value)
        .eq(after.into_iter().map(|document| document.value))
}

/// Returns the position of the image of a document, or of an item of a List, in the text.
fn image(root: &Spanned<Node>, item: Option<usize>) -> Option<(usize, usize)> {
    let object = match item {
        Some(item) => root.value.field("items")?.value.item(item - 1)?,
        None => root,
    };
    let span = object
        .value
        .field("spec")?
        .value
        .field("image")?
        .referenced
        .span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    Some((start, start + usize::try_from(span.byte_len()?).ok()?))
}

/// A document with the positions of its values, without their content.
enum Node {
    Map(BTreeMap<String, Spanned<Node>>),
    List(Vec<Spanned<Node>>),
    Scalar,
}

impl Node {
    fn field(&self, name: &str) -> Option<&Spanned<Self>> {
        if let Self::Map(fields) = self {
            fields.get(name)
        } else {
            None
        }
    }

    fn item(&self, nth: usize) -> Option<&Spanned<Self>> {
        if let Self::List(items) = self {
            items.get(nth)
        } else {
            None
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NodeVisitor;

        impl<'de> Visitor<'de> for NodeVisitor {
            type Value = Node;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a document")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    fields.insert(key, value);
                }
                Ok(Node::Map(fields))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
                IgnoredAny::deserialize(deserializer).map(|_| Node::Scalar)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_str<E>(self, _: &str) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_bytes<E>(self, _: &[u8]) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar)
            }
        }

        deserializer.deserialize_any(NodeVisitor)
    }
}

/// Joins several files into one stream of documents.
fn join(texts: &[String]) -> String {
    let mut all = String::new();
    for text in texts {
        if !all.is_empty() {
            if !all.ends_with('\n') {
                all.push('\n');
            }
            if !text.starts_with("---") {
                all.push_str("---\n");
            }
        }
        all.push_str(text);
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "tests fail by panicking"
    )]

    use super::*;

    const PINNED: &str = "r.example.com/app:v1@sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    fn pinned(text: &str, positions: &[(usize, Option<usize>)]) -> String {
        let input = Input {
            name: "x.yaml".to_owned(),
            text: text.to_owned(),
            from_folder: false,
            path: None,
            skipped: None,
        };
        let pin = |(document, item): &(usize, Option<usize>)| Pin {
            location: Location {
                file: "x.yaml".to_owned(),
                document: *document,
                line: None,
                item: *item,
            },
            from: "r.example.com/app:v1".to_owned(),
            to: PINNED.to_owned(),
        };
        rewrite(&input, &positions.iter().map(pin).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn only_the_image_changes_and_its_quotes_and_comments_stay() {
        for image in [
            "r.example.com/app:v1",
            "'r.example.com/app:v1'",
            "\"r.example.com/app:v1\"",
        ] {
            let text = format!(
                "# head\nkind: ImageAttachment\nspec:   # über\n  image: {image}  # r.example.com/app:v1 is the good one\n  interval: '10m'\n"
            );
            let expected = text.replacen("r.example.com/app:v1", PINNED, 1);
            assert_eq!(pinned(&text, &[(1, None)]), expected);
        }
    }

    #[test]
    fn every_document_and_every_item_of_a_list_is_pinned() {
        let text = "---\nspec: {image: r.example.com/app:v1}\n---\n# empty\n---\nitems:\n- spec: {a: 1}\n- spec:\n    image: >-\n      r.example.com/app:v1\n";
        assert_eq!(
            pinned(text, &[(1, None), (2, Some(2))]),
            text.replace("r.example.com/app:v1", PINNED)
        );
    }

    #[test]
    fn an_alias_is_replaced_by_the_image() {
        let text = "x: &image r.example.com/app:v1\nspec:\n  image: *image\n";
        assert_eq!(
            pinned(text, &[(1, None)]),
            format!("x: &image r.example.com/app:v1\nspec:\n  image: \"{PINNED}\"\n")
        );
    }

    #[test]
    fn json_stays_json() {
        let text = "{\"spec\": {\"image\": \"r.example.com/app:v1\", \"n\": 1}}\n";
        assert_eq!(
            pinned(text, &[(1, None)]),
            text.replace("r.example.com/app:v1", PINNED)
        );
    }

    #[test]
    fn files_are_joined_as_documents() {
        let texts = [
            "a: 1".to_owned(),
            "---\nb: 2\n".to_owned(),
            "c: 3\n".to_owned(),
        ];
        assert_eq!(join(&texts), "a: 1\n---\nb: 2\n---\nc: 3\n");
    }
}
