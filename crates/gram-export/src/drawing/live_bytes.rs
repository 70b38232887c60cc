//! Live bytes over the steps of two orders as one SVG chart.

use std::fmt::Write;

use super::svg::escape;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 460.0;
/// Left, top, right and bottom of the axes.
const FRAME: [f64; 4] = [92.0, 112.0, WIDTH - 28.0, HEIGHT - 62.0];
const PLAIN: &str = "#c2701c";
const LEAST: &str = "#2f6cb5";

const STYLE: &str = "text{font-family:Helvetica,Arial,'DejaVu Sans',sans-serif;fill:#24303c}\
.title{font-size:20px;font-weight:bold}.line{font-size:13px;fill:#52606d}.entry{font-size:13px}\
.x{font-size:12px;fill:#52606d;text-anchor:middle}.y{font-size:12px;fill:#52606d;text-anchor:end}";

/// What a chart of live bytes shows.
#[derive(Clone, Copy, Debug)]
pub struct LiveBytes<'a> {
    /// Name of the network.
    pub title: &'a str,
    /// What the bytes are of: element type, how concatenations are joined.
    pub subtitle: &'a str,
    /// Bytes that are alive while each step of the network's own order runs.
    pub plain: &'a [u64],
    /// The same for the scheduled order.
    pub scheduled: &'a [u64],
}

/// A chart of both orders, one column per step, with a dashed line at each peak.
///
/// The picture has a light background, needs no font but a sans-serif one, and depends on its arguments alone.
/// # Complexity
/// Linear in the number of steps.
pub fn live_bytes_to_svg(chart: &LiveBytes<'_>) -> String {
    let peak = |live: &[u64]| live.iter().copied().max().unwrap_or(0);
    let (plain_peak, least_peak) = (peak(chart.plain), peak(chart.scheduled));
    let axes = Axes::new(plain_peak.max(least_peak), chart.plain.len().max(chart.scheduled.len()));
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH:.0}\" height=\"{HEIGHT:.0}\" viewBox=\"0 0 {WIDTH:.0} {HEIGHT:.0}\">"
    );
    let _ = writeln!(svg, "<style>{STYLE}</style>");
    let _ = writeln!(svg, "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>");
    text(&mut svg, [FRAME[0], 34.0], "title", chart.title);
    text(&mut svg, [FRAME[0], 56.0], "line", chart.subtitle);
    axes.draw(&mut svg);
    // The wider one behind, so that both are seen where they agree.
    axes.curve(&mut svg, chart.plain, PLAIN, 4.0, false);
    axes.curve(&mut svg, chart.scheduled, LEAST, 1.8, true);
    let entries = [(PLAIN, "own order", plain_peak), (LEAST, "least peak", least_peak)];
    for (i, (colour, name, peak)) in entries.into_iter().enumerate() {
        axes.peak_line(&mut svg, peak, colour);
        let x = FRAME[0] + 300.0 * i as f64;
        let _ = writeln!(svg, "<rect x=\"{x:.1}\" y=\"76.0\" width=\"22\" height=\"4\" fill=\"{colour}\"/>");
        let entry = format!("{name}: peak {} bytes", gram_ir::grouped(peak));
        text(&mut svg, [x + 30.0, 83.0], "entry", &entry);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Scales of both axes.
struct Axes {
    /// Bytes of one unit of the vertical axis, and its name.
    unit: (f64, &'static str),
    /// Between two ticks, in units.
    tick: f64,
    /// Top of the vertical axis, in units.
    top: f64,
    n_steps: usize,
}

impl Axes {
    fn new(peak: u64, n_steps: usize) -> Self {
        const UNITS: [(f64, &str); 4] = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes")];
        let peak = peak.max(1) as f64;
        let unit = UNITS.into_iter().find(|(bytes, _)| peak >= 2.0 * bytes).unwrap_or((1.0, "bytes"));
        let most = peak / unit.0;
        let tick = nice(most / 5.0);
        Self { unit, tick, top: (most * 1.02 / tick).ceil() * tick, n_steps: n_steps.max(1) }
    }

    fn x(&self, step: usize) -> f64 {
        FRAME[0] + (FRAME[2] - FRAME[0]) * step as f64 / self.n_steps as f64
    }

    fn y(&self, bytes: f64) -> f64 {
        FRAME[3] - (FRAME[3] - FRAME[1]) * bytes / (self.unit.0 * self.top)
    }

    fn draw(&self, svg: &mut String) {
        let [left, top, right, bottom] = FRAME;
        for i in 0..=(self.top / self.tick).round() as usize {
            let value = i as f64 * self.tick;
            let y = self.y(value * self.unit.0);
            let colour = if i == 0 { "#77818c" } else { "#e3e8ed" };
            let _ = writeln!(svg, "<path d=\"M{left:.1} {y:.1}H{right:.1}\" stroke=\"{colour}\"/>");
            // Ticks below one are tenths: no peak of two units or more has finer ones.
            let label = if self.tick < 1.0 { format!("{value:.1}") } else { format!("{value:.0}") };
            text(svg, [left - 8.0, y + 4.0], "y", &label);
        }
        let step = (nice(self.n_steps as f64 / 10.0) as usize).max(1);
        for tick in (0..=self.n_steps).step_by(step) {
            let x = self.x(tick);
            let _ = writeln!(svg, "<path d=\"M{x:.1} {bottom:.1}v5\" stroke=\"#77818c\"/>");
            text(svg, [x, bottom + 19.0], "x", &tick.to_string());
        }
        text(svg, [(left + right) / 2.0, bottom + 44.0], "x", "steps executed");
        let (x, y) = (24.0, (top + bottom) / 2.0);
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"x\" transform=\"rotate(-90 {x:.1} {y:.1})\">live during the step ({})</text>",
            self.unit.1
        );
    }

    /// A stair with one step of the stair per step of the order.
    fn curve(&self, svg: &mut String, live: &[u64], colour: &str, line: f64, is_filled: bool) {
        let Some(&first) = live.first() else { return };
        let mut stair = format!("M{:.1} {:.1}", self.x(0), self.y(first as f64));
        for (step, &bytes) in live.iter().enumerate() {
            let _ = write!(stair, "V{:.1}H{:.1}", self.y(bytes as f64), self.x(step + 1));
        }
        if is_filled {
            let bottom = FRAME[3];
            let _ = writeln!(
                svg,
                "<path d=\"{stair}V{bottom:.1}H{:.1}z\" fill=\"{colour}\" fill-opacity=\"0.14\" stroke=\"none\"/>",
                self.x(0)
            );
        }
        let _ = writeln!(svg, "<path d=\"{stair}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{line}\"/>");
    }

    fn peak_line(&self, svg: &mut String, peak: u64, colour: &str) {
        let [left, _, right, _] = FRAME;
        let y = self.y(peak as f64);
        let _ = writeln!(
            svg,
            "<path d=\"M{left:.1} {y:.1}H{right:.1}\" stroke=\"{colour}\" stroke-width=\"1.2\" stroke-dasharray=\"6 4\"/>"
        );
    }
}

/// 1, 2 or 5 times a power of ten, `least` or the next above.
fn nice(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|factor| factor * power).find(|&nice| nice >= least).unwrap_or(10.0 * power)
}

fn text(svg: &mut String, [x, y]: [f64; 2], class: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escape(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        for (least, expected) in [(0.4, 0.5), (1.0, 1.0), (1.1, 2.0), (40.0, 50.0), (51.0, 100.0)] {
            assert!((nice(least) - expected).abs() < 1e-9, "{least}");
        }
    }
}
