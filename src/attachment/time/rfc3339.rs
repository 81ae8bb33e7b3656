//! The RFC 3339 grammar of times in specs.
//!
//! The grammar is narrower than that of jiff, which also reads spaces, weeks and zones in brackets.

use k8s_openapi::jiff::{SignedDuration, civil};

/// Returns the time since 1970-01-01T00:00:00Z.
pub(super) fn since_epoch(local: civil::DateTime) -> SignedDuration {
    local.duration_since(civil::DateTime::constant(1970, 1, 1, 0, 0, 0, 0))
}

/// Parses an RFC 3339 `date-time` (section 5.6) into the time since 1970-01-01T00:00:00Z.
///
/// `T` and `Z` must be in upper case, because Go's `time.Parse` reads no others. Leap seconds are refused, because libraries
/// disagree on them. Digits beyond nanoseconds are ignored.
pub(super) fn date_time(text: &str) -> Option<SignedDuration> {
    const NANOSECONDS: usize = 9;
    let (seconds, rest) = text.split_at_checked(19)?;
    if !has_form(seconds, "dddd-dd-ddTdd:dd:dd") || seconds.ends_with(":60") {
        return None;
    }
    let digits = rest.strip_prefix('.').map_or(0, |fraction| {
        fraction.bytes().take_while(u8::is_ascii_digit).count()
    });
    let (fraction, offset) = if digits == 0 {
        ("", rest)
    } else {
        rest.split_at_checked(digits + 1)?
    };
    let fraction = fraction.get(..=NANOSECONDS).unwrap_or(fraction);
    let local: civil::DateTime = format!("{seconds}{fraction}").parse().ok()?;
    Some(since_epoch(local) - offset_of(offset)?)
}

fn offset_of(text: &str) -> Option<SignedDuration> {
    if text == "Z" {
        return Some(SignedDuration::ZERO);
    }
    if !has_form(text, "+dd:dd") && !has_form(text, "-dd:dd") {
        return None;
    }
    let (hours, minutes): (i64, i64) =
        (text.get(1..3)?.parse().ok()?, text.get(4..6)?.parse().ok()?);
    let seconds = hours * 3600 + minutes * 60;
    (hours < 24 && minutes < 60).then(|| {
        SignedDuration::from_secs(if text.starts_with('-') {
            -seconds
        } else {
            seconds
        })
    })
}

/// Returns true if `text` has the characters of `form`, in which `d` stands for a digit.
pub(super) fn has_form(text: &str, form: &str) -> bool {
    text.len() == form.len()
        && text.bytes().zip(form.bytes()).all(|(b, form)| {
            if form == b'd' {
                b.is_ascii_digit()
            } else {
                b == form
            }
        })
}
