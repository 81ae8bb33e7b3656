//! The table of figures: what was measured, against what, and what had to be reached.

use std::fmt::Write as _;
use std::time::Duration;

/// Values of one kind, one a round.
#[derive(Debug, Clone, Default)]
pub(super) struct Series(Vec<f64>);

impl Series {
    pub(super) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Every value times `factor`.
    pub(super) fn scaled(&self, factor: f64) -> Self {
        Self(self.0.iter().map(|value| value * factor).collect())
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// The value that `share` of all values do not exceed.
    pub(super) fn percentile(&self, share: f64) -> f64 {
        let sorted = self.sorted();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank of a short list"
        )]
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or(f64::NAN)
    }

    pub(super) fn median(&self) -> f64 {
        self.percentile(0.5)
    }

    fn span(&self) -> (f64, f64, f64) {
        (self.percentile(0.0), self.median(), self.percentile(1.0))
    }

    /// How many times more the other is, round by round: the two of a round ran one after the other.
    fn times(&self, other: &Self) -> Self {
        Self(
            self.0
                .iter()
                .zip(&other.0)
                .map(|(ours, theirs)| theirs / ours)
                .collect(),
        )
    }
}

/// A unit, and how its values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
    Mebibytes,
    Count,
    /// A count that may well be below ten, and is a mean.
    Few,
}

impl Unit {
    pub(super) fn write(self, value: f64) -> String {
        match self {
            Self::Seconds if value < 10.0 => format!("{value:.3} s"),
            Self::Seconds => format!("{value:.1} s"),
            Self::Milliseconds => format!("{:.1} ms", value * 1e3),
            Self::Mebibytes => format!("{:.1} MiB", value / f64::from(1 << 20)),
            Self::Count => format!("{value:.0}"),
            Self::Few => format!("{value:.1}"),
        }
    }
}

/// What has to be reached.
#[derive(Debug, Clone, Copy)]
pub(super) enum Goal {
    /// So many times less than the other.
    Times(f64),
    /// No more than this, in the figure's unit.
    Most(f64),
    /// Nothing: it is measured to be known.
    None,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Table(String);

impl Table {
    pub(super) fn new() -> Self {
        Self("| what | affix | against | ratio: min / median / max | goal | |\n| --- | --- | --- | --- | --- | --- |\n".to_owned())
    }

    /// Two that were measured side by side.
    pub(super) fn versus(
        &mut self,
        what: &str,
        ours: &Series,
        peer: &str,
        theirs: &Series,
        unit: Unit,
        goal: Goal,
    ) {
        let ratio = ours.times(theirs);
        let (least, median, most) = ratio.span();
        let theirs = format!("{peer}: {}", unit.write(theirs.median()));
        self.row(
            what,
            &unit.write(ours.median()),
            &theirs,
            &format!("{least:.1} / {median:.1} / {most:.1}"),
            goal,
            median,
            unit,
        );
    }

    /// One figure of affix alone.
    pub(super) fn figure(&mut self, what: &str, values: &Series, unit: Unit, goal: Goal) {
        let (least, median, most) = values.span();
        let text = match values.0.len() {
            1 => unit.write(median),
            _ => format!(
                "{} ({} to {})",
                unit.write(median),
                unit.write(least),
                unit.write(most)
            ),
        };
        self.row(what, &text, "", "", goal, median, unit);
    }

    /// One value.
    pub(super) fn value(&mut self, what: &str, value: f64, unit: Unit, goal: Goal) {
        self.figure(what, &Series(vec![value]), unit, goal);
    }

    #[allow(clippy::too_many_arguments, reason = "the cells of a row")]
    fn row(
        &mut self,
        what: &str,
        ours: &str,
        theirs: &str,
        ratio: &str,
        goal: Goal,
        value: f64,
        unit: Unit,
    ) {
        let (goal, reached) = match goal {
            Goal::Times(least) => (
                format!("{least:.0} ×"),
                if value >= least {
                    "reached"
                } else {
                    "**missed**"
                },
            ),
            Goal::Most(most) => (
                format!("at most {}", unit.write(most)),
                if value <= most {
                    "reached"
                } else {
                    "**missed**"
                },
            ),
            Goal::None => (String::new(), ""),
        };
        let _ = writeln!(
            self.0,
            "| {what} | {ours} | {theirs} | {ratio} | {goal} | {reached} |"
        );
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// Bytes or requests as a value.
#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(super) fn number(count: impl TryInto<u64>) -> f64 {
    count.try_into().map_or(f64::NAN, |count| count as f64)
}

/// A time as a value.
pub(super) fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Series {
        Series(values.to_vec())
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let values = series(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!(values.span(), (1.0, 2.0, 4.0));
        assert_eq!(
            series(&(1..=200).map(f64::from).collect::<Vec<_>>()).percentile(0.99),
            198.0
        );
        assert!(series(&[]).median().is_nan());
    }

    #[test]
    fn ratios_are_of_the_runs_that_were_side_by_side() {
        let mut table = Table::new();
        table.versus(
            "x",
            &series(&[1.0, 2.0, 1.0]),
            "oras",
            &series(&[8.0, 20.0, 9.0]),
            Unit::Seconds,
            Goal::Times(9.0),
        );
        table.versus(
            "y",
            &series(&[1.0]),
            "oras",
            &series(&[8.0]),
            Unit::Seconds,
            Goal::Times(9.0),
        );
        let text = table.into_text();
        assert!(
            text.contains("| x | 1.000 s | oras: 9.000 s | 8.0 / 9.0 / 10.0 | 9 × | reached |"),
            "{text}"
        );
        assert!(
            text.contains("| y | 1.000 s | oras: 8.000 s | 8.0 / 8.0 / 8.0 | 9 × | **missed** |"),
            "{text}"
        );
    }
}
