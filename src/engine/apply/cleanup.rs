//! Cleanup: removes the unwanted attachments of the current image once the desired ones are attached.

use std::convert::identity;
use std::time::Duration;

use futures::future::join_all;

use crate::api::{SignatureFormat, truncate_message};
use crate::engine::claims::Claims;
use crate::engine::context::Context;
use crate::engine::observe::candidates::exists;
use crate::engine::records::leftover::LeftoverRecord;
use crate::engine::report::outcome::Report;
use affix_registry::oci::Digest;

use super::remove::remove_all;
use super::unwanted::Unwanted;

/// The result of a cleanup.
pub(in crate::engine) struct CleanedUp {
    /// Attachments that stay.
    pub(in crate::engine) leftovers: Vec<LeftoverRecord>,
    /// Attachments that the registry does not have anymore.
    pub(in crate::engine) gone: Vec<Digest>,
    /// The delay that the registry asked for.
    pub(in crate::engine) retry_after: Option<Duration>,
}

/// Removes the unwanted attachments and reports events and changes.
pub(in crate::engine) async fn clean_up(
    context: &Context<'_>,
    report: &mut Report,
    unwanted: Unwanted,
    claims: &impl Claims,
) -> CleanedUp {
    let Unwanted {
        mut remove,
        unlisted,
        kept,
    } = unwanted;
    let mut done = CleanedUp {
        leftovers: kept,
        gone: Vec::new(),
        retry_after: None,
    };
    // An unlisted attachment was probably never pushed. If the registry has it, it could appear in a later listing.
    let checks = unlisted.iter().map(|(_, owned)| async {
        match owned.format {
            SignatureFormat::Bundle => context
                .in_time(exists(context, &owned.attachment))
                .await
                .and_then(identity),
            // The tag was read, and it is the only place of its signatures.
            SignatureFormat::Tag => Ok(false),
        }
    });
    for ((subject, owned), exists) in unlisted.iter().zip(join_all(checks).await) {
        match exists {
            Ok(true) => remove.push((subject.clone(), owned.clone())),
            Ok(false) => done.gone.push(owned.attachment.clone()),
            Err(failure) => {
                done.retry_after = done.retry_after.max(failure.retry_after);
                let leftover = LeftoverRecord::of(&subject.digest, owned, failure.problem.reason);
                done.leftovers
                    .push(leftover.with_message(truncate_message(&failure.problem.message)));
            }
        }
    }
    for removal in remove_all(context.session, remove, claims, context.deadline).await {
        let is_reported = || {
            let previous = &context.request.previous.leftovers;
            previous
                .iter()
                .any(|before| before.attachment == removal.attachment && before.message.is_some())
        };
        if removal.leftover.is_none() || !is_reported() {
            report.events.extend(removal.event);
        }
        report.changes.extend(removal.change);
        done.retry_after = done.retry_after.max(removal.retry_after);
        match removal.leftover {
            None => done.gone.push(removal.attachment),
            Some(leftover) => done.leftovers.push(leftover),
        }
    }
    done
}
