// SPDX-License-Identifier: MIT OR Apache-2.0

//! Plots: the same one as SVG and as PNG.

use std::error::Error;
use std::io::Cursor;
use std::ops::Range;
use std::sync::Once;

use anyhow::Result;
use anyhow::anyhow;
use plotters::backend::BitMapBackend;
use plotters::backend::DrawingBackend;
use plotters::backend::SVGBackend;
use plotters::chart::ChartBuilder;
use plotters::chart::SeriesLabelPosition;
use plotters::coord::Shift;
use plotters::drawing::DrawingArea;
use plotters::drawing::IntoDrawingArea;
use plotters::element::Circle;
use plotters::element::PathElement;
use plotters::element::Rectangle;
use plotters::element::Text;
use plotters::prelude::IntoLogRange;
use plotters::series::LineSeries;
use plotters::style::BLACK;
use plotters::style::Color;
use plotters::style::FontStyle;
use plotters::style::IntoFont;
use plotters::style::RGBColor;
use plotters::style::ShapeStyle;
use plotters::style::TextStyle;
use plotters::style::WHITE;
use plotters::style::register_font;
use plotters::style::text_anchor::HPos;
use plotters::style::text_anchor::Pos;
use plotters::style::text_anchor::VPos;

// In pixels.
const WIDTH: u32 = 1000;
const HEIGHT: u32 = 520;
const MARGIN: i32 = 20;
const BAR: i32 = 18;
const BAR_PITCH: i32 = 26;
const BARS_TOP: i32 = 70;
/// Where bars begin.
const BARS_LEFT: i32 = 330;
/// What is left to the right of the longest bar, for its value.
const BARS_RIGHT: i32 = 110;

const FONT: &str = "sans-serif";
const FONT_SIZE: i32 = 14;

/// Ours, and what it is compared with.
const OURS: RGBColor = RGBColor(0xe6, 0x55, 0x0d);
const OTHERS: RGBColor = RGBColor(0x96, 0x96, 0x96);
/// Of lines, which can be told apart by everybody (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];

/// A plot.
#[derive(Debug)]
pub struct Chart {
    /// What its files are called.
    pub name: &'static str,
    pub title: String,
    /// What was measured, in which unit, and where.
    pub subtitle: String,
    pub kind: Kind,
}

#[derive(Debug)]
pub enum Kind {
    /// One value for each of several things.
    Bars(Vec<Bar>),
    /// Values that depend on another one; both axes are logarithmic.
    Lines(Lines),
}

#[derive(Debug)]
pub struct Bar {
    pub label: String,
    pub value: f64,
    /// What the value is called, where the number alone would say less than is known.
    pub shown: String,
    /// Or what it is compared with.
    pub ours: bool,
}

#[derive(Debug)]
pub struct Lines {
    pub x: String,
    pub y: String,
    pub series: Vec<Series>,
}

#[derive(Debug)]
pub struct Series {
    pub label: String,
    pub points: Vec<(f64, f64)>,
}

impl Chart {
    /// As SVG, with the licence where it is looked for.
    pub fn svg(&self) -> Result<String> {
        let mut text = String::new();
        self.draw(&SVGBackend::with_string(&mut text, self.size()).into_drawing_area())?;
        let (head, rest) = text
            .split_once('\n')
            .ok_or_else(|| anyhow!("the SVG has one line"))?;
        let licence = concat!("<!-- SPDX-License", "-Identifier: MIT OR Apache-2.0 -->");
        Ok(format!(
            "{head}\n{licence}\n<!-- Drawn by lab/lab bench -->\n{}\n",
            rest.trim_end()
        ))
    }

    /// As PNG.
    pub fn png(&self) -> Result<Vec<u8>> {
        let (width, height) = self.size();
        let mut pixels = vec![0; 3 * width as usize * height as usize];
        {
            let backend = BitMapBackend::with_buffer(&mut pixels, (width, height));
            self.draw(&backend.into_drawing_area())?;
        }
        let image = image::RgbImage::from_raw(width, height, pixels)
            .ok_or_else(|| anyhow!("the picture has another size"))?;
        let mut png = Cursor::new(Vec::new());
        image.write_to(&mut png, image::ImageOutputFormat::Png)?;
        Ok(png.into_inner())
    }

    fn size(&self) -> (u32, u32) {
        match &self.kind {
            Kind::Bars(bars) => {
                let bars = i32::try_from(bars.len()).unwrap_or(i32::MAX / BAR_PITCH);
                let height = BARS_TOP + bars.saturating_mul(BAR_PITCH) + MARGIN;
                (WIDTH, height.unsigned_abs())
            }
            Kind::Lines(_) => (WIDTH, HEIGHT),
        }
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<()>
    where
        B::ErrorType: 'static,
    {
        static FONTS: Once = Once::new();
        FONTS.call_once(|| {
            // It fails for what is no font.
            register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).ok();
            register_font(FONT, FontStyle::Bold, dejavu::sans::bold()).ok();
        });
        let drawn = || -> Result<(), Box<dyn Error + Send + Sync>> {
            area.fill(&WHITE)?;
            let bold = (FONT, FONT_SIZE + 2, FontStyle::Bold).into_font();
            write(area, &self.title, (MARGIN, 26), HPos::Left, &bold.into())?;
            write(area, &self.subtitle, (MARGIN, 48), HPos::Left, &plain())?;
            match &self.kind {
                Kind::Bars(bars) => draw_bars(area, bars)?,
                Kind::Lines(lines) => draw_lines(area, lines)?,
            }
            area.present()?;
            Ok(())
        };
        drawn().map_err(|error| anyhow!("cannot draw “{}”: {error}", self.name))
    }
}

type Drawn = Result<(), Box<dyn Error + Send + Sync>>;

fn plain() -> TextStyle<'static> {
    (FONT, FONT_SIZE).into_font().color(&BLACK)
}

/// Writes a line that begins or ends there, in the middle of its height.
fn write<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    text: &str,
    at: (i32, i32),
    side: HPos,
    style: &TextStyle<'_>,
) -> Drawn
where
    B::ErrorType: 'static,
{
    let style = style.clone().pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}

fn draw_bars<B: DrawingBackend>(area: &DrawingArea<B, Shift>, bars: &[Bar]) -> Drawn
where
    B::ErrorType: 'static,
{
    let greatest = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let room = f64::from(WIDTH) - f64::from(BARS_LEFT + BARS_RIGHT);
    for (bar, top) in bars.iter().zip((BARS_TOP..).step_by(BAR_PITCH as usize)) {
        let middle = top + BAR / 2;
        let label_end = (BARS_LEFT - 10, middle);
        write(area, &bar.label, label_end, HPos::Right, &plain())?;
        #[expect(clippy::cast_possible_truncation, reason = "pixels")]
        let length = (bar.value / greatest * room).max(1.0) as i32;
        let colour = if bar.ours { OURS } else { OTHERS };
        let corners = [(BARS_LEFT, top), (BARS_LEFT + length, top + BAR)];
        area.draw(&Rectangle::new(corners, colour.filled()))?;
        let value = (BARS_LEFT + length + 8, middle);
        write(area, &bar.shown, value, HPos::Left, &plain())?;
    }
    Ok(())
}

/// From a power of ten to a power of ten.
fn decades(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let greatest = values.fold(least, f64::max);
    let low = 10_f64.powf(least.log10().floor());
    let high = 10_f64.powf(greatest.log10().ceil());
    low..high.max(low * 10.0)
}

/// A number on an axis.
fn tick(value: f64) -> String {
    match value {
        value if value >= 1e9 => format!("{} G", value / 1e9),
        value if value >= 1e6 => format!("{} M", value / 1e6),
        value if value >= 1e3 => format!("{} k", value / 1e3),
        value => format!("{value}"),
    }
}

fn draw_lines<B: DrawingBackend>(area: &DrawingArea<B, Shift>, lines: &Lines) -> Drawn
where
    B::ErrorType: 'static,
{
    let points = || lines.series.iter().flat_map(|series| &series.points);
    let (_, below) = area.split_vertically(BARS_TOP - 10);
    let mut chart = ChartBuilder::on(&below)
        .margin(MARGIN)
        .x_label_area_size(46)
        .y_label_area_size(70)
        .build_cartesian_2d(
            decades(points().map(|point| point.0)).log_scale(),
            decades(points().map(|point| point.1)).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc(&lines.x)
        .y_desc(&lines.y)
        .x_label_formatter(&|&value| tick(value))
        .y_label_formatter(&|&value| tick(value))
        .label_style(plain())
        .axis_desc_style(plain())
        .light_line_style(BLACK.mix(0.04))
        .bold_line_style(BLACK.mix(0.15))
        .draw()?;
    for (series, colour) in lines.series.iter().zip(COLOURS.into_iter().cycle()) {
        let style = ShapeStyle::from(colour).stroke_width(2);
        let line = LineSeries::new(series.points.iter().copied(), style);
        chart
            .draw_series(line)?
            .label(&series.label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        let points = series.points.iter();
        chart.draw_series(points.map(|&point| Circle::new(point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(plain())
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars() -> Chart {
        Chart {
            name: "bars",
            title: "What it costs".into(),
            subtitle: "instructions".into(),
            kind: Kind::Bars(
                [("read <4>", 10.0, true), ("another", 20.0, false)]
                    .map(|(label, value, ours)| Bar {
                        label: label.into(),
                        value,
                        shown: format!("{value} units"),
                        ours,
                    })
                    .into(),
            ),
        }
    }

    fn lines() -> Chart {
        let series = |label: &str, factor: f64| Series {
            label: label.into(),
            points: [1.0, 100.0, 20_000.0].map(|x| (x, factor * x + 3.0)).into(),
        };
        Chart {
            name: "lines",
            title: "How it grows".into(),
            subtitle: "instructions".into(),
            kind: Kind::Lines(Lines {
                x: "watchers".into(),
                y: "time".into(),
                series: vec![series("one", 1.0), series("other", 7.0)],
            }),
        }
    }

    #[test]
    fn an_svg_has_what_is_to_be_seen() {
        let svg = bars().svg().expect("it can be drawn");
        for expected in ["What it costs", "read &lt;4&gt;", "10 units", "another"] {
            assert!(svg.contains(expected), "{expected} is not in {svg}");
        }
        // Where the licence is looked for.
        let head: Vec<_> = svg.lines().take(3).collect();
        assert!(head.join("\n").contains("MIT OR Apache-2.0"), "{head:?}");
        let svg = lines().svg().expect("it can be drawn");
        for expected in ["watchers", "other", "10 k", "100 k"] {
            assert!(svg.contains(expected), "{expected} is not in {svg}");
        }
    }

    #[test]
    fn a_png_is_one_and_has_text() {
        for chart in [bars(), lines()] {
            let png = chart.png().expect("it can be drawn");
            let image = image::load_from_memory(&png)
                .expect("it is a PNG")
                .to_rgb8();
            assert_eq!(image.dimensions(), chart.size());
            // Where the title is, something is dark.
            let dark = (20..200).any(|x| (18..34).any(|y| image.get_pixel(x, y).0[0] < 60));
            assert!(dark, "{} has no title", chart.name);
        }
    }

    #[test]
    fn axes_have_whole_decades() {
        assert_eq!(decades([3.0, 250.0].into_iter()), 1.0..1000.0);
        assert_eq!(decades([1.0].into_iter()), 1.0..10.0);
    }
}
