//! An architecture's cells as one SVG picture.

use std::fmt::Write;

use gram_ir::{Architecture, CellNodeId, CellOutput, Downsample, Network, Stage, StemLayer, grouped};

use super::layout::{Layout, Sizes, Vertex, layout};
use super::palette::{Colours, KINDS, TERMINAL, colours};

const SIZES: Sizes = Sizes { box_width: BOX.0, wire_width: 4.0, gap: 10.0 };
/// Width and height of a node.
const BOX: (f64, f64) = (78.0, 32.0);
/// Free height between rows.
const ROW_GAP: f64 = 28.0;
/// Between the frame of a stage and what is in it.
const PADDING: f64 = 18.0;
/// Height of a stage's title.
const TITLE: f64 = 46.0;
/// Between two stages, and around everything.
const MARGIN: f64 = 24.0;
/// Name, input and costs, stem and head.
const HEADER: f64 = 104.0;
const LEGEND: f64 = 36.0;
/// Widest row of stages that is not wrapped.
const MAX_ROW: f64 = 1240.0;

/// A drawing of all stages' cells, side by side: nodes in their operators' colours, leaves with a heavy outline, dead nodes left out.
///
/// The picture has a light background, needs no font but a sans-serif one, and depends on the architecture alone.
/// # Complexity
/// About `n²` in the nodes of a cell.
pub fn architecture_to_svg(architecture: &Architecture) -> String {
    let network = architecture.lower().ok();
    let panels: Vec<Panel> =
        architecture.stages.iter().enumerate().map(|(i, stage)| Panel::new(i, stage, network.as_ref())).collect();
    let rows = rows(&panels);
    let lines = header_lines(architecture, network.as_ref());
    let legend = legend(architecture);
    let text_width = lines.iter().map(|line| line.chars().count() as f64 * 6.6).fold(0.0, f64::max);
    let inner = rows.iter().map(|row| row_width(row)).fold(text_width.max(LEGEND_STEP * legend.len() as f64), f64::max);
    let height = rows.iter().map(|row| row_height(row) + MARGIN).sum::<f64>();
    let mut svg = Svg::new(inner + 2.0 * MARGIN, HEADER + height + LEGEND);
    svg.text(MARGIN, MARGIN + 16.0, "title", &architecture.name);
    for (i, line) in lines.iter().enumerate() {
        svg.text(MARGIN, MARGIN + 38.0 + 18.0 * i as f64, "line", line);
    }
    let mut y = HEADER;
    for (i, row) in rows.iter().enumerate() {
        draw_row(&mut svg, row, y, inner, i > 0);
        y += row_height(row) + MARGIN;
    }
    for (i, (name, colours)) in legend.into_iter().enumerate() {
        let x = MARGIN + i as f64 * LEGEND_STEP;
        svg.swatch(x, y, colours, name == LEAF.0);
        svg.text(x + 24.0, y + 10.0, "note", name);
    }
    svg.finish()
}

/// Stages side by side as far as they fit, like words in a line.
fn rows(panels: &[Panel]) -> Vec<&[Panel]> {
    let mut rows: Vec<&[Panel]> = Vec::new();
    let mut start = 0;
    for end in 1..=panels.len() {
        if end == panels.len() || row_width(&panels[start..=end]) > MAX_ROW {
            rows.push(&panels[start..end]);
            start = end;
        }
    }
    rows
}

fn row_width(row: &[Panel]) -> f64 {
    row.iter().map(|panel| panel.width + MARGIN).sum::<f64>() - MARGIN
}

fn row_height(row: &[Panel]) -> f64 {
    row.iter().map(|panel| panel.height).fold(0.0, f64::max)
}

/// Draws a row over the whole `width`. Chevrons lead from each stage to the next, also to the first of a row from the row above.
fn draw_row(svg: &mut Svg, row: &[Panel], y: f64, width: f64, has_row_above: bool) {
    let mut x = MARGIN;
    let spare = (width - row_width(row)) / row.len() as f64;
    for (i, panel) in row.iter().enumerate() {
        if i > 0 || has_row_above {
            svg.chevron(x - MARGIN / 2.0, y + TITLE / 2.0);
        }
        panel.draw(svg, (x, y), panel.width + spare, row_height(row));
        x += panel.width + spare + MARGIN;
    }
}

/// Input and costs, then stem and head.
fn header_lines(architecture: &Architecture, network: Option<&Network>) -> [String; 2] {
    let mut first = format!("input {}, {} classes", architecture.input, architecture.num_classes);
    if let Some(network) = network {
        let cost = network.cost();
        let _ = write!(first, " · {} MACs · {} params", grouped(cost.macs.0), grouped(cost.params.0));
    }
    let stem: Vec<String> = architecture.stem.iter().map(stem_layer).collect();
    let stem = if stem.is_empty() { "none".into() } else { stem.join(", ") };
    let conv = architecture.head.conv.map(|channels| format!("conv1x1 to {channels}, ")).unwrap_or_default();
    [first, format!("stem: {stem} · head: {conv}global average pool, linear · {}", architecture.activation)]
}

fn stem_layer(layer: &StemLayer) -> String {
    let stride = |stride: usize| if stride == 1 { String::new() } else { format!(" stride {stride}") };
    match *layer {
        StemLayer::Conv { channels, kernel, stride: s } => format!("conv{kernel}x{kernel}{} to {channels}", stride(s)),
        StemLayer::Sep { channels, kernel, stride: s } => format!("sep{kernel}x{kernel}{} to {channels}", stride(s)),
        StemLayer::Maxpool2 => "maxpool2x2".into(),
    }
}

/// One stage: its cell laid out in a frame.
struct Panel {
    title: String,
    subtitle: String,
    nodes: Vec<Drawn>,
    layout: Layout,
    width: f64,
    height: f64,
}

/// A node of the picture.
struct Drawn {
    label: String,
    /// The node's id, if it is one of the cell's.
    id: Option<CellNodeId>,
    colours: Colours,
    is_leaf: bool,
}

impl Panel {
    fn new(index: usize, stage: &Stage, network: Option<&Network>) -> Self {
        let leaves = stage.cell.leaves();
        let terminal = |label: String| Drawn { label, id: None, colours: TERMINAL, is_leaf: false };
        let mut nodes = vec![terminal("input".into())];
        let mut ids = vec![CellNodeId::INPUT];
        let mut edges = Vec::new();
        for (id, op, inputs) in stage.cell.live_inputs() {
            edges.extend((0..ids.len()).filter(|&from| inputs.contains(&ids[from])).map(|from| (from, ids.len())));
            nodes.push(Drawn {
                label: op.to_string(),
                id: Some(id),
                colours: colours(op),
                is_leaf: leaves.contains(&id),
            });
            ids.push(id);
        }
        edges.extend((0..ids.len()).filter(|&from| leaves.contains(&ids[from])).map(|from| (from, ids.len())));
        nodes.push(terminal("output".into()));
        let layout = layout(nodes.len(), &edges, SIZES);
        let (title, subtitle) = (title(index, stage, network), subtitle(stage, leaves.len()));
        let text = (title.chars().count() as f64 * 7.8).max(subtitle.chars().count() as f64 * 6.2);
        let width = layout.width.max(text) + 2.0 * PADDING;
        let height = TITLE + layout.n_rows as f64 * (BOX.1 + ROW_GAP) - ROW_GAP + PADDING;
        Self { title, subtitle, nodes, layout, width, height }
    }

    fn draw(&self, svg: &mut Svg, (x, y): (f64, f64), width: f64, height: f64) {
        svg.frame(x, y, width, height);
        svg.text(x + PADDING, y + 20.0, "stage", &self.title);
        svg.text(x + PADDING, y + 36.0, "note", &self.subtitle);
        let left = x + (width - self.layout.width) / 2.0;
        let top = y + TITLE;
        let place = |vertex: &Vertex| (left + vertex.x, top + vertex.row as f64 * (BOX.1 + ROW_GAP));
        let vertices = &self.layout.vertices;
        for vertex in vertices.iter().filter(|vertex| vertex.is_wire) {
            let (x, y) = place(vertex);
            svg.path(&format!("M{x:.1} {y:.1}V{:.1}", y + BOX.1), self.nodes[vertex.node].colours.line, false);
        }
        for (&(upper, lower), port) in self.layout.segments.iter().zip(self.ports()) {
            let ((x1, y1), (x2, y2)) = (place(&vertices[upper]), place(&vertices[lower]));
            let (x2, y1, middle) = (x2 + port, y1 + BOX.1, (y1 + BOX.1 + y2) / 2.0);
            let is_arrow = !vertices[lower].is_wire;
            let y2 = if is_arrow { y2 - 2.0 } else { y2 };
            let curve = format!("M{x1:.1} {y1:.1}C{x1:.1} {middle:.1} {x2:.1} {middle:.1} {x2:.1} {y2:.1}");
            svg.path(&curve, self.nodes[vertices[upper].node].colours.line, is_arrow);
        }
        for vertex in vertices.iter().filter(|vertex| !vertex.is_wire) {
            let (x, y) = place(vertex);
            svg.node(x, y, &self.nodes[vertex.node]);
        }
    }

    /// For each segment how far from the middle of its lower end it arrives: arrows into one node side by side, as their sources are.
    fn ports(&self) -> Vec<f64> {
        let Layout { vertices, segments, .. } = &self.layout;
        let port = |&(upper, lower): &(usize, usize)| {
            let arrivals: Vec<f64> =
                segments.iter().filter(|other| other.1 == lower).map(|other| vertices[other.0].x).collect();
            let rank = arrivals.iter().filter(|&&x| x < vertices[upper].x).count() as f64;
            let step = (0.7 * BOX.0 / arrivals.len() as f64).min(16.0);
            (rank - (arrivals.len() as f64 - 1.0) / 2.0) * step
        };
        segments.iter().map(port).collect()
    }
}

fn title(index: usize, stage: &Stage, network: Option<&Network>) -> String {
    let mut title = format!("stage {index} · {} channels", stage.node_channels);
    if stage.repeats > 1 {
        let _ = write!(title, " · ×{}", stage.repeats);
    }
    let prefix = format!("stages.{index}.cells.");
    let last = network.and_then(|network| network.nodes().iter().rev().find(|node| node.name.starts_with(&prefix)));
    if let Some(last) = last {
        let _ = write!(title, " · gives {}", last.shape);
    }
    title
}

fn subtitle(stage: &Stage, n_leaves: usize) -> String {
    let CellOutput { project, residual, .. } = stage.output;
    let mut parts = Vec::new();
    if stage.downsample == Downsample::Maxpool2 {
        parts.push("maxpool2x2 before".into());
    }
    parts.push(if n_leaves == 1 { "1 leaf".into() } else { format!("{n_leaves} leaves, concatenated") });
    parts.extend(project.map(|channels| format!("1x1 to {channels}")));
    if residual {
        parts.push("input added".into());
    }
    parts.join(" · ")
}

/// Room for one entry of the legend.
const LEGEND_STEP: f64 = 104.0;
const LEAF: (&str, Colours) = ("leaf", Colours { fill: "#ffffff", line: TERMINAL.line });

/// The kinds of operators that occur, and leaves.
fn legend(architecture: &Architecture) -> Vec<(&'static str, Colours)> {
    let live = architecture.stages.iter().flat_map(|stage| stage.cell.live_inputs());
    let used: Vec<Colours> = live.map(|(_, op, _)| colours(op)).collect();
    KINDS.into_iter().filter(|(_, colours)| used.contains(colours)).chain([LEAF]).collect()
}

/// SVG text in the making.
struct Svg(String);

const STYLE: &str = "text{font-family:Helvetica,Arial,'DejaVu Sans',sans-serif;fill:#24303c}\
.title{font-size:20px;font-weight:bold}.line{font-size:13px;fill:#52606d}.stage{font-size:13px;font-weight:bold}\
.note{font-size:11.5px;fill:#52606d}.op{font-size:11.5px;text-anchor:middle}.id{font-size:9px;fill:#66727e;text-anchor:middle}\
.end{font-size:12px;fill:#ffffff;text-anchor:middle}";

impl Svg {
    fn new(width: f64, height: f64) -> Self {
        let mut svg = Self(String::new());
        svg.line(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\">"
        ));
        svg.line(format_args!("<style>{STYLE}</style>"));
        // One arrow head for each colour, since markers do not take the colour of their line everywhere.
        for line in KINDS.iter().map(|(_, colours)| colours.line).chain([TERMINAL.line]) {
            let id = &line[1..];
            svg.line(format_args!(
                "<marker id=\"a{id}\" viewBox=\"0 0 6 6\" refX=\"4.5\" refY=\"3\" markerWidth=\"6\" markerHeight=\"6\" \
                 markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0L6 3L0 6z\" fill=\"{line}\"/></marker>"
            ));
        }
        svg.line(format_args!("<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"));
        svg
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{text}");
    }

    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        self.line(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escape(text)));
    }

    fn frame(&mut self, x: f64, y: f64, width: f64, height: f64) {
        self.line(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"10\" fill=\"#f7f9fb\" stroke=\"#d8dee5\"/>"
        ));
    }

    fn chevron(&mut self, x: f64, y: f64) {
        self.line(format_args!(
            "<path d=\"M{:.1} {:.1}l6 7l-6 7\" fill=\"none\" stroke=\"#77818c\" stroke-width=\"2.5\"/>",
            x - 3.0,
            y - 7.0
        ));
    }

    fn path(&mut self, d: &str, colour: &str, is_arrow: bool) {
        let marker = if is_arrow { format!(" marker-end=\"url(#a{})\"", &colour[1..]) } else { String::new() };
        self.line(format_args!(
            "<path d=\"{d}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.3\" stroke-opacity=\"0.75\"{marker}/>"
        ));
    }

    /// A node whose top centre is at `x`, `y`.
    fn node(&mut self, x: f64, y: f64, node: &Drawn) {
        let (left, middle) = (x - BOX.0 / 2.0, y + BOX.1 / 2.0);
        let Colours { fill, line } = node.colours;
        let stroke = if node.is_leaf { 3.0 } else { 1.2 };
        self.line(format_args!(
            "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"{fill}\" stroke=\"{line}\" stroke-width=\"{stroke}\"/>",
            BOX.0, BOX.1
        ));
        match node.id {
            Some(id) => {
                self.text(x, middle - 1.0, "op", &node.label);
                self.text(x, middle + 10.5, "id", &id.to_string());
            }
            None => self.text(x, middle + 4.0, "end", &node.label),
        }
    }

    fn swatch(&mut self, x: f64, y: f64, colours: Colours, is_leaf: bool) {
        let Colours { fill, line } = colours;
        let stroke = if is_leaf { 3.0 } else { 1.2 };
        self.line(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"18\" height=\"12\" rx=\"4\" fill=\"{fill}\" stroke=\"{line}\" stroke-width=\"{stroke}\"/>"
        ));
    }

    fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// Text between XML tags.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
