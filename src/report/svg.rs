//! Just enough SVG for the report's pictures.

/// Text as it may stand between tags and in attributes.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number with three digits that mean something.
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{value:.2e}"),
        v if v >= 100.0 || v == 0.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        v if v >= 0.001 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

/// A mark on an axis: no digits that say nothing.
pub(crate) fn tick(value: f64) -> String {
    if (0.001..1e6).contains(&value) || value == 0.0 { value.to_string() } else { format!("{value:e}") }
}

/// Width of a text in pixels, rather too wide than too narrow, for fonts like Helvetica.
pub(crate) fn width(text: &str, size: f64) -> f64 {
    0.58 * size * text.chars().count() as f64
}

/// A picture under way. Classes are those of the report's style sheet.
pub(crate) struct Svg(String);

impl Svg {
    /// A picture of `w` x `h` pixels that shrinks with the page.
    pub(crate) fn new(w: f64, h: f64, title: &str) -> Self {
        Svg(format!(
            "<svg viewBox=\"0 0 {w:.0} {h:.0}\" width=\"{w:.0}\" role=\"img\" aria-label=\"{0}\" xmlns=\"http://www.w3.org/2000/svg\">\n",
            escape(title)
        ))
    }

    pub(crate) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.0 += &format!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>\n");
    }

    pub(crate) fn rect(&mut self, class: &str, (x, y): (f64, f64), w: f64, h: f64) {
        self.0 += &format!("<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{h:.1}\"/>\n", w.max(0.0));
    }

    /// `class` says where the text is anchored: `middle`, `end`, or at its start.
    pub(crate) fn text(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        self.0 += &format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>\n", escape(text));
    }

    /// Text that is turned about its anchor, degrees clockwise.
    pub(crate) fn turned(&mut self, class: &str, (x, y): (f64, f64), degrees: f64, text: &str) {
        let text = escape(text);
        self.0 += &format!("<text class=\"{class}\" transform=\"translate({x:.1} {y:.1}) rotate({degrees:.2})\">{text}</text>\n");
    }

    /// A point, round or square, that says `title` under the pointer.
    pub(crate) fn point(&mut self, class: &str, (x, y): (f64, f64), round: bool, title: &str) {
        let title = escape(title);
        self.0 += &if round {
            format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"><title>{title}</title></circle>\n")
        } else {
            format!(
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\"><title>{title}</title></rect>\n",
                x - 4.0,
                y - 4.0
            )
        };
    }

    /// A line through points.
    pub(crate) fn path(&mut self, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.0 += &format!("<polyline class=\"{class}\" points=\"{}\"/>\n", points.join(" "));
    }

    /// A small point that says `title` under the pointer.
    pub(crate) fn spot(&mut self, class: &str, (x, y): (f64, f64), title: &str) {
        self.0 += &format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.2\"><title>{}</title></circle>\n", escape(title));
    }

    pub(crate) fn finish(self) -> String {
        self.0 + "</svg>\n"
    }
}

/// A logarithmic axis from `low` to `high`, drawn from `from` to `to`.
#[derive(Clone, Copy)]
pub(crate) struct Axis {
    pub low: f64,
    pub high: f64,
    pub from: f64,
    pub to: f64,
}

impl Axis {
    pub(crate) fn at(&self, value: f64) -> f64 {
        let share = (value.max(1e-30) / self.low).ln() / (self.high / self.low).ln();
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Powers of ten on the axis.
    pub(crate) fn decades(&self) -> impl Iterator<Item = f64> {
        let (first, last) = ((self.low.log10() - 1e-9).ceil() as i32, (self.high.log10() + 1e-9).floor() as i32);
        (first..=last).map(|power| 10f64.powi(power))
    }
}

/// A rectangle that no other label may touch.
#[derive(Clone, Copy)]
pub(crate) struct Area {
    pub x: f64,
    pub y: f64,
    pub w: f64,
    pub h: f64,
}

impl Area {
    pub(crate) fn touches(&self, other: &Area) -> bool {
        self.x < other.x + other.w && other.x < self.x + self.w && self.y < other.y + other.h && other.y < self.y + self.h
    }

    pub(crate) fn holds(&self, other: &Area) -> bool {
        other.x >= self.x && other.y >= self.y && other.x + other.w <= self.x + self.w && other.y + other.h <= self.y + self.h
    }
}
