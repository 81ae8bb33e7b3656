//! `affix detach`: removes the attachments that equal the files, after a confirmation.

use std::io::{IsTerminal as _, Write as _};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::oneshot;

use crate::cli::documents::{Documents, FileArgs};
use crate::cli::exit::{Error, Exit, message, print};
use crate::cli::interrupt::interrupted;
use crate::cli::local::sets::{self, PlannedSet};
use crate::cli::local::{self, Finished};
use crate::cli::output::report::{self, Format, View};
use crate::engine::Mode;

/// Remove the attachments of ImageAttachments, after a confirmation
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "The command removes mistakes, and the attachments that remain after the deletion of a resource with deletionPolicy: Retain. From \
each selected target it removes all attachments that equal the file, no matter which tool created them. Of signatures, it removes those that the \
key verifies. A resource in a cluster that still wants an attachment pushes it again: delete or change that resource first.

Of an ImageAttachmentSet without lifecycle, the images of all selected tags are inspected. The marks of a set with lifecycle have their dates in \
its ImageAttachments: give those instead of the set.

The command lists the attachments first and asks for confirmation. --yes confirms in advance. The list has one line for each manifest of the \
image, and its column ACTION is
  remove   an equal attachment exists and would be removed
  none     no equal attachment exists
  skip     the manifest is not a target of the resource
  fail     the attachments cannot be listed

Examples:
  # List the attachments of a file, ask, and remove them
  affix detach -f end-of-life.yaml

  # Remove them without asking
  affix detach -f end-of-life.yaml --yes

  # Print the resources; status.leftovers lists the attachments that could not be removed
  affix detach -f config/ --yes -o json

Exit codes: 0 no equal attachment is left, 1 one is left or may be left, 2 the input is invalid and no request was sent."
)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    files: FileArgs,

    /// Remove without asking for confirmation
    #[arg(short, long)]
    yes: bool,

    /// Print the resources with their status, instead of tables
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Runs the command.
pub(in crate::cli) async fn run(args: Args) -> Result<Exit, Error> {
    let mut documents = Documents::load(&args.files)?;
    local::show_notices(&documents);
    let engine = local::engine(Vec::new());
    let planned = sets::expand(&mut documents, &engine, Mode::Detach).await?;
    let jobs = local::prepare(&documents, Mode::Detach).await?;
    let (mut all, mut stopped) = local::run(&engine, &jobs, "inspecting").await;
    let plan = crate::cli::output::sets::tables(&planned, Mode::Detach)
        + &report::tables(&all, View::RemovalPlan);
    match args.output {
        None => print(&plan)?,
        Some(_) => message(plan.trim_end()),
    }
    let count = local::removable(&all);
    let mut confirmed = true;
    if count > 0 && !stopped {
        match if args.yes {
            Answer::Yes
        } else {
            ask(count).await
        } {
            Answer::Yes => {
                stopped = local::detach(&engine, &jobs, &mut all).await;
                if args.output.is_none() {
                    print(&format!("\n{}", report::tables(&all, View::Removed)))?;
                }
            }
            Answer::No => {
                message("nothing was removed");
                confirmed = false;
            }
            Answer::NoTerminal => {
                message(
                    "nothing was removed, because there is no terminal to ask on: use --yes to remove the attachments above",
                );
                confirmed = false;
            }
            Answer::Interrupted => stopped = true,
        }
    }
    if let Some(format) = args.output {
        print(&report::resources(&all, format, Timestamp::now())?)?;
    }
    let succeeded = |finished: &Finished<'_>| {
        finished
            .outcome
            .as_ref()
            .is_some_and(|outcome| report::is_success(outcome, View::Removed))
    };
    Ok(
        match (
            stopped,
            confirmed && all.iter().all(succeeded) && planned.iter().all(PlannedSet::is_complete),
        ) {
            (true, _) => Exit::Interrupted,
            (false, true) => Exit::Done,
            (false, false) => Exit::Incomplete,
        },
    )
}

/// The answer to the question for confirmation.
enum Answer {
    Yes,
    No,
    NoTerminal,
    Interrupted,
}

async fn ask(count: usize) -> Answer {
    if !std::io::stdin().is_terminal() {
        return Answer::NoTerminal;
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
    // The read blocks until the user presses Enter, so it runs in a thread that does not keep the process alive.
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
