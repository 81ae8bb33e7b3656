//! `affix detach`: takes away what equals the files, after showing it.

use std::io::{IsTerminal as _, Write as _};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::oneshot;

use super::desk;
use super::documents::{Documents, FileArgs};
use super::exit::{Error, Exit, print, tell};
use super::interrupt::interrupted;
use super::report::{self, Format, Tense};
use crate::engine::Mode;

/// Remove the attachments that equal what ImageAttachments say, after showing them
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "For mistakes, and for what stays where a resource of deletionPolicy: Retain was deleted. What equals the file is removed \
from each target that it selects, whoever made it and however often it is there; of signatures, what verifies under the key. A resource in a cluster \
that still wants it puts it back: delete or change that resource first.

Nothing is removed before the list was shown and you agreed, on the terminal or with --yes.

Examples:
  affix detach -f end-of-life.yaml             shows what would go, and asks
  affix detach -f end-of-life.yaml --yes       shows it, and goes on
  affix detach -f config/ --yes -o json        what could not be removed is in status.leftovers

Exit codes: 0 nothing that equals the files is left, 1 something is or may be, 2 the input is wrong and nothing was asked of a registry."
)]
pub(super) struct Args {
    #[command(flatten)]
    files: FileArgs,

    /// Remove without asking
    #[arg(short, long)]
    yes: bool,

    /// Print the resources with their status instead of tables
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Detaches.
pub(super) async fn run(args: Args) -> Result<Exit, Error> {
    let documents = Documents::load(&args.files)?;
    for notice in &documents.notices {
        tell(&format!("notice: {notice}"));
    }
    let jobs = desk::prepare(&documents, Mode::Detach)?;
    let engine = desk::engine();
    let (mut done, mut stopped) = desk::run(&engine, &jobs, "looking at").await;
    let plan = report::tables(&done, Tense::Removal);
    match args.output {
        None => print(&plan)?,
        Some(_) => tell(plan.trim_end()),
    }
    let count = desk::removable(&done);
    let mut agreed = true;
    if count > 0 && !stopped {
        match if args.yes {
            Answer::Yes
        } else {
            ask(count).await
        } {
            Answer::Yes => {
                stopped = desk::detach(&engine, &jobs, &mut done).await;
                if args.output.is_none() {
                    print(&format!("\n{}", report::tables(&done, Tense::Removed)))?;
                }
            }
            Answer::No => {
                tell("nothing was removed");
                agreed = false;
            }
            Answer::Nobody => {
                tell(
                    "nothing was removed: there is no terminal to ask on; say --yes to remove what is listed above",
                );
                agreed = false;
            }
            Answer::Interrupted => stopped = true,
        }
    }
    if let Some(format) = args.output {
        print(&report::resources(&done, format, Timestamp::now())?)?;
    }
    let good = |done: &desk::Done<'_>| {
        done.outcome
            .as_ref()
            .is_some_and(|outcome| report::is_good(outcome, Tense::Removed))
    };
    Ok(match (stopped, agreed && done.iter().all(good)) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Done,
        (false, false) => Exit::Incomplete,
    })
}

enum Answer {
    Yes,
    No,
    Nobody,
    Interrupted,
}

async fn ask(count: usize) -> Answer {
    if !std::io::stdin().is_terminal() {
        return Answer::Nobody;
    }
    let question = if count == 1 {
        "Remove this attachment?".to_owned()
    } else {
        format!("Remove these {count} attachments?")
    };
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "{question} [y/N] ");
    let _ = stderr.flush();
    drop(stderr);
    let (send, answer) = oneshot::channel();
    // A thread of its own: a read that nobody waits for any more must not keep the process.
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = std::io::stdin().read_line(&mut line);
        let _ = send.send(line);
    });
    tokio::select! {
        () = interrupted() => Answer::Interrupted,
        line = answer => match line.unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Answer::Yes,
            _ => Answer::No,
        },
    }
}
