//! Curves of top-1 against the four costs, as one SVG.

use std::fmt::Write;

use super::compare::{Cost, Variant};
use super::plan::{OURS, RANDOM};

const PANEL: (f64, f64) = (380.0, 250.0);
const MARGIN: (f64, f64) = (56.0, 34.0);

/// Colours that people with colour-blindness tell apart (Okabe and Ito).
const COLOURS: [&str; 7] = ["#d55e00", "#56b4e9", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#000000"];

/// Four panels, one per cost, on a logarithmic axis; a line for each family.
pub(super) fn svg(title: &str, variants: &[Variant<'_>]) -> String {
    let mut families: Vec<&str> = variants.iter().map(|variant| variant.family).collect();
    families.sort_by_key(|family| (*family != OURS, *family != RANDOM, *family));
    families.dedup();
    let (width, height) = (2.0 * (PANEL.0 + MARGIN.0) + 16.0, 2.0 * (PANEL.1 + MARGIN.1 + 24.0) + 56.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut svg, (16.0, 20.0), "start", &format!("{title}: test top-1 (%) against four costs"));
    for (index, family) in families.iter().enumerate() {
        let x = 16.0 + 122.0 * index as f64;
        element(
            &mut svg,
            format_args!("<rect x=\"{x}\" y=\"30\" width=\"12\" height=\"4\" fill=\"{}\"/>", colour(index)),
        );
        text(&mut svg, (x + 16.0, 37.0), "start", family);
    }
    for (index, cost) in Cost::ALL.into_iter().enumerate() {
        let column = (index % 2) as f64;
        let row = (index / 2) as f64;
        let origin = (MARGIN.0 + column * (PANEL.0 + MARGIN.0), 52.0 + row * (PANEL.1 + MARGIN.1 + 24.0));
        panel(&mut svg, origin, cost, variants, &families);
    }
    svg + "</svg>\n"
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

/// A network of which this cost was not measured is left out.
fn panel(svg: &mut String, (x0, y0): (f64, f64), cost: Cost, variants: &[Variant<'_>], families: &[&str]) {
    let point = |variant: &Variant<'_>| Some((cost.in_unit(variant.cost(cost)?), 100.0 * variant.top1().0));
    let all: Vec<(f64, f64)> = variants.iter().filter_map(point).collect();
    if all.is_empty() {
        return;
    }
    let (low, high) = range(all.iter().map(|point| point.0));
    let (bottom, top) = range(all.iter().map(|point| point.1));
    let (low, high) = (low.ln() - 0.1, high.ln() + 0.1);
    let (bottom, top) = ((bottom - 1.0).floor(), (top + 1.0).ceil());
    let x = |value: f64| x0 + PANEL.0 * (value.ln() - low) / (high - low);
    let y = |percent: f64| y0 + PANEL.1 * (top - percent) / (top - bottom);
    let (width, height) = PANEL;
    element(
        svg,
        format_args!(
            "<rect x=\"{x0}\" y=\"{y0}\" width=\"{width}\" height=\"{height}\" fill=\"none\" stroke=\"#999\"/>"
        ),
    );
    for tick in ticks(low.exp(), high.exp()) {
        let at = x(tick);
        element(
            svg,
            format_args!("<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{y0}\" y2=\"{:.1}\" stroke=\"#ddd\"/>", y0 + height),
        );
        text(svg, (at, y0 + height + 14.0), "middle", &format!("{tick}"));
    }
    let step = if top - bottom > 16.0 { 5.0 } else { 2.0 };
    let mut percent = (bottom / step).ceil() * step;
    while percent <= top {
        let at = y(percent);
        element(
            svg,
            format_args!("<line x1=\"{x0}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>", x0 + width),
        );
        text(svg, (x0 - 6.0, at + 4.0), "end", &format!("{percent}"));
        percent += step;
    }
    text(svg, (x0 + width / 2.0, y0 + height + 30.0), "middle", cost.title());
    for (index, family) in families.iter().enumerate() {
        let mut own: Vec<(f64, f64)> =
            variants.iter().filter(|variant| variant.family == *family).filter_map(point).collect();
        own.sort_by(|a, b| a.0.total_cmp(&b.0));
        let points: Vec<(f64, f64)> = own.into_iter().map(|(value, top1)| (x(value), y(top1))).collect();
        let line: String = points.iter().fold(String::new(), |mut line, (x, y)| {
            let _ = write!(line, "{x:.1},{y:.1} ");
            line
        });
        let (colour, weight) = (colour(index), if *family == OURS { 2.5 } else { 1.3 });
        element(
            svg,
            format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{weight}\"/>",
                line.trim()
            ),
        );
        for (x, y) in points {
            element(svg, format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"));
        }
    }
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// 1, 2 and 5 times powers of ten between the ends.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let powers = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
    let all = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)));
    // What powers of ten below one round to is not what a person would write.
    all.map(|tick| (tick * 1e6).round() / 1e6).filter(|tick| (low..=high).contains(tick)).collect()
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    element(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"));
}

fn element(svg: &mut String, element: std::fmt::Arguments<'_>) {
    let _ = writeln!(svg, "{element}");
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn every_family_is_drawn_in_every_panel() {
        let records = [record("gram", 1, 1e6, 0.7), record("dsconv", 1, 2e6, 0.6), record("dsconv", 1, 4e6, 0.8)];
        let drawn = svg("test", &Variant::all(&records));
        assert_eq!((drawn.matches("<polyline").count(), drawn.matches("<circle").count()), (8, 12));
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"));
    }

    #[test]
    fn ticks_by_hand() {
        assert_eq!(ticks(0.03, 1.2), [0.05, 0.1, 0.2, 0.5, 1.0]);
    }
}
