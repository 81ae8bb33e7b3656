//! The `Retry-After` header (RFC 9110, section 10.2.3): seconds, or a date.

use std::time::{Duration, SystemTime};

/// The longest wait that is returned: 136 years. It can be added to any clock.
const MAX_WAIT: Duration = Duration::from_secs(u32::MAX as u64);

/// Returns the wait that the header asks for at `now`, or `None` for a malformed value. A date in the past is a wait of zero.
pub(crate) fn parse(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(
            value
                .parse()
                .map_or(MAX_WAIT, Duration::from_secs)
                .min(MAX_WAIT),
        );
    }
    let until = httpdate::parse_http_date(value).ok()?;
    Some(
        until
            .duration_since(now)
            .unwrap_or(Duration::ZERO)
            .min(MAX_WAIT),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_all_three_date_forms_are_read() {
        // 784111777 is Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 30);
        for value in [
            "30",
            " 30 ",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(value, now), Some(Duration::from_secs(30)), "{value}");
        }
        let later = now + Duration::from_hours(1);
        assert_eq!(
            parse("Sun, 06 Nov 1994 08:49:37 GMT", later),
            Some(Duration::ZERO)
        );
        for value in ["9999999999999999999", "99999999999999999999999"] {
            assert_eq!(parse(value, now), Some(MAX_WAIT), "{value}");
        }
    }

    #[test]
    fn a_malformed_value_is_none() {
        for value in ["", "soon", "-1", "1.5", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(parse(value, SystemTime::UNIX_EPOCH), None, "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_value_is_a_wait_or_none_and_never_a_panic(value in "[0-9]{0,30}|[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT|\\PC{0,40}", now in 0..4_000_000_000_u64) {
            let _ = parse(&value, SystemTime::UNIX_EPOCH + Duration::from_secs(now));
        }
    }
}
