//! A plot of a few curves as SVG, over a logarithmic axis.

use std::fmt::Write as _;

use super::Effort;

/// Points of one colour.
pub(super) struct Curve {
    pub(super) title: &'static str,
    pub(super) points: Vec<(usize, f64)>,
}

/// Curves over one axis.
pub(super) struct Plot {
    pub(super) across: &'static str,
    pub(super) up: &'static str,
    pub(super) curves: Vec<Curve>,
}

const COLOURS: [&str; 2] = ["#1f6feb", "#d1480b"];
/// Where the page is.
const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const EDGE: f64 = 48.0;

impl Plot {
    /// Saves the picture beside the page; answers with the line that shows it there. What a smoke test plots is not worth keeping.
    pub(super) fn save(&self, name: &str, effort: &Effort) -> anyhow::Result<String> {
        if effort.smoke {
            return Ok(String::new());
        }
        std::fs::write(format!("{DOCS}/benchmarks-{name}.svg"), self.svg())?;
        Ok(format!(
            "\n![{} and {}](benchmarks-{name}.svg)\n",
            self.across, self.up
        ))
    }

    /// The picture.
    fn svg(&self) -> String {
        let points = || self.curves.iter().flat_map(|curve| curve.points.iter());
        let widest = points()
            .map(|(across, _)| place(*across))
            .fold(1.0, f64::max);
        let highest = points().map(|(_, up)| *up).fold(1.0, f64::max);
        let x = |across: usize| EDGE + place(across) / widest * (WIDTH - 2.0 * EDGE);
        let y = |up: f64| HEIGHT - EDGE - up / highest * (HEIGHT - 2.0 * EDGE);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
             <path d=\"M{EDGE} {EDGE}V{bottom}H{right}\" fill=\"none\" stroke=\"#666\"/>\n\
             <text x=\"{EDGE}\" y=\"{top}\">{}: {highest:.0}</text>\n<text x=\"{right}\" y=\"{below}\" text-anchor=\"end\">{}</text>\n",
            self.up,
            self.across,
            bottom = HEIGHT - EDGE,
            right = WIDTH - EDGE,
            top = EDGE - 8.0,
            below = HEIGHT - 8.0,
        );
        for ((curve, colour), nth) in self.curves.iter().zip(COLOURS).zip(0_u8..) {
            let line: Vec<String> = curve
                .points
                .iter()
                .map(|(across, up)| format!("{:.1},{:.1}", x(*across), y(*up)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                line.join(" ")
            );
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" fill=\"{colour}\">{}</text>",
                EDGE + 120.0 + 140.0 * f64::from(nth),
                EDGE - 8.0,
                curve.title
            );
        }
        for (across, _) in self.curves.iter().take(1).flat_map(|curve| &curve.points) {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{across}</text>",
                x(*across),
                HEIGHT - EDGE + 16.0
            );
        }
        svg + "</svg>\n"
    }
}

/// Where a count stands on the axis; nothing is at its beginning.
fn place(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)).ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_curve_is_a_line_within_the_picture() {
        let curve = |title, points: &[(usize, f64)]| Curve {
            title,
            points: points.to_vec(),
        };
        let plot = Plot {
            across: "targets",
            up: "ms",
            curves: vec![
                curve("a", &[(0, 1.0), (10, 4.0)]),
                curve("b", &[(0, 2.0), (10, 2.0)]),
            ],
        };
        let svg = plot.svg();
        assert_eq!(svg.matches("<polyline").count(), 2, "{svg}");
        assert!(svg.contains("points=\"48.0,216.0 592.0,48.0\""), "{svg}");
    }
}
