//! Regret against evaluations, drawn.

use std::fmt::Write as _;

use gram_search::tabular::{StrategyFigures, TabularReport};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 700.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 370.0;
/// Regrets below this share of the largest one are drawn there: both axes are logarithmic.
const LEAST_SHARE: f64 = 1e-3;
/// Colours that people with colour-vision deficiencies can tell apart (Okabe and Ito).
const COLOURS: [&str; 5] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"];

/// Where numbers lie on the page.
struct Axes {
    evaluations: f64,
    least: f64,
    most: f64,
}

impl Axes {
    fn x(&self, evaluations: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * evaluations.ln() / self.evaluations.max(2.0).ln()
    }

    fn y(&self, regret: f64) -> f64 {
        let share = (regret.max(self.least) / self.least).ln() / (self.most / self.least).ln();
        BOTTOM - (BOTTOM - TOP) * share
    }

    fn point(&self, index: usize, regret: f64) -> String {
        format!("{:.1},{:.1}", self.x((index + 1) as f64), self.y(regret))
    }
}

/// Medians over seeds as lines, and the middle half of the searches as bands behind them.
pub(super) fn svg(report: &TabularReport) -> String {
    let own = report.figures();
    let all: Vec<&StrategyFigures> =
        std::iter::once(&own).chain(report.comparisons.iter().map(|comparison| &comparison.versus)).collect();
    let longest = all.iter().map(|figures| figures.regret.median.len()).max().unwrap_or(1);
    let largest = all.iter().flat_map(|figures| &figures.regret.p75).fold(0.0, |most: f64, &r| most.max(r));
    // A search that finds the best at once has no regret at all.
    let most = if largest > 0.0 { largest } else { 1.0 };
    let axes = Axes { evaluations: longest as f64, least: most * LEAST_SHARE, most };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let title = format!(
        "{}: regret against evaluations, median and middle half of {} searches",
        report.config.table.name(),
        report.config.seeds
    );
    text(&mut svg, (LEFT, 22.0), "start", &title);
    draw_axes(&mut svg, &axes);
    let coloured = || all.iter().zip(COLOURS.iter().cycle());
    for (figures, colour) in coloured() {
        let upper = figures.regret.p75.iter().enumerate().map(|(i, &r)| axes.point(i, r));
        let lower = figures.regret.p25.iter().enumerate().rev().map(|(i, &r)| axes.point(i, r));
        let band: Vec<String> = upper.chain(lower).collect();
        element(&mut svg, format_args!("<polygon points=\"{}\" fill=\"{colour}\" opacity=\"0.15\"/>", band.join(" ")));
    }
    for (row, (figures, colour)) in coloured().enumerate() {
        let line: Vec<String> = figures.regret.median.iter().enumerate().map(|(i, &r)| axes.point(i, r)).collect();
        let style = format!("stroke=\"{colour}\" stroke-width=\"2\" fill=\"none\"");
        element(&mut svg, format_args!("<polyline points=\"{}\" {style}/>", line.join(" ")));
        let y = BOTTOM - 14.0 - 16.0 * row as f64;
        element(&mut svg, format_args!("<path d=\"M{} {}h18\" {style}/>", LEFT + 12.0, y - 4.0));
        text(&mut svg, (LEFT + 36.0, y), "start", figures.strategy.name());
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_axes(svg: &mut String, axes: &Axes) {
    element(svg, format_args!("<path d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\" stroke=\"#444\" fill=\"none\"/>"));
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0];
    for n in steps.into_iter().filter(|&n| n <= axes.evaluations) {
        let x = axes.x(n);
        element(svg, format_args!("<path d=\"M{x:.1} {BOTTOM}v5\" stroke=\"#444\"/>"));
        text(svg, (x, BOTTOM + 18.0), "middle", &n.to_string());
    }
    text(svg, ((LEFT + RIGHT) / 2.0, BOTTOM + 38.0), "middle", "evaluations");
    let mut tick = 10.0_f64.powf(axes.most.log10().floor());
    while tick >= axes.least {
        let y = axes.y(tick);
        element(svg, format_args!("<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#ddd\"/>"));
        let digits = (-tick.log10().round()).max(0.0) as usize;
        text(svg, (LEFT - 6.0, y + 4.0), "end", &format!("{tick:.digits$}"));
        tick /= 10.0;
    }
    let note = format!("regret in units of the test column; {:.1e} or less at the foot", axes.least);
    text(svg, (RIGHT, TOP - 4.0), "end", &note);
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    element(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#222\">{words}</text>"));
}

fn element(svg: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(svg, "{element}").expect("invariant: strings can be written to");
}
