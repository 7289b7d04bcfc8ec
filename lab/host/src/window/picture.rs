// SPDX-License-Identifier: MIT OR Apache-2.0

//! The picture of the window: a line of time for each machine, and the numbers.

use svg::Document;
use svg::node::Comment;
use svg::node::element::Rectangle;
use svg::node::element::Text;

use super::CLONES;
use super::Row;
use super::STAGES;
use super::Scene;
use super::cell;

// In pixels.
const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 20.0;
/// Where the lines of time begin.
const LEFT: f64 = 130.0;
const TOP: f64 = 70.0;
const BAR: f64 = 26.0;
const BAR_PITCH: f64 = 38.0;
const ROW_PITCH: f64 = 22.0;
const COLUMN: f64 = 105.0;
const SQUARE: f64 = 12.0;
const FONT: f64 = 14.0;

fn text(x: f64, y: f64, anchor: &str, content: impl Into<String>) -> Text {
    Text::new(content)
        .set("x", x)
        .set("y", y)
        .set("text-anchor", anchor)
}

fn rectangle(x: f64, y: f64, width: f64, height: f64, colour: &str) -> Rectangle {
    Rectangle::new()
        .set("x", format!("{x:.1}"))
        .set("y", y)
        .set("width", format!("{width:.1}"))
        .set("height", height)
        .set("fill", colour)
}

/// A distance of marks on a line of time of that length: 1, 2 or 5, and zeros; at most ten fit.
fn distance(length: i64) -> i64 {
    let mut distances = (0..).flat_map(|power| [1, 2, 5].map(|factor| factor * 10_i64.pow(power)));
    distances
        .find(|distance| length / distance <= 10)
        .unwrap_or(length)
}

/// Draws a line of time for each scene, and the table below, which is the legend.
#[expect(clippy::cast_precision_loss, reason = "pixels need no 52 bits")]
pub fn draw(scenes: &[Scene], rows: &[Row], setting: &str) -> Document {
    let stages = || rows.iter().filter_map(|row| Some((row.stage?, row)));
    let total = |scene: usize| -> i64 { stages().filter_map(|(_, row)| row.medians[scene]).sum() };
    let longest = (0..scenes.len()).map(total).max().unwrap_or(0).max(1);
    let scale = (WIDTH - MARGIN - LEFT) / longest as f64;
    let bars = TOP + BAR_PITCH * scenes.len() as f64;
    let legend = bars + 60.0;
    let height = legend + ROW_PITCH * (rows.len() as f64 + 1.5) + MARGIN;
    let mut document = Document::new()
        .set("viewBox", (0.0, 0.0, WIDTH, height))
        .set("font-family", "sans-serif")
        .set("font-size", FONT)
        .add(Comment::new(concat!(
            "SPDX-License",
            "-Identifier: MIT OR Apache-2.0"
        )))
        .add(Comment::new("Drawn by lab/lab window"))
        .add(rectangle(0.0, 0.0, WIDTH, height, "white"))
        .add(
            text(
                MARGIN,
                28.0,
                "start",
                "From the interrupt after a resume to the change of the generation",
            )
            .set("font-weight", "bold"),
        )
        .add(text(
            MARGIN,
            50.0,
            "start",
            format!("{setting}; medians of {CLONES} clones"),
        ));
    for (number, scene) in scenes.iter().enumerate() {
        let y = TOP + BAR_PITCH * number as f64;
        document = document.add(text(LEFT - 10.0, y + BAR - 8.0, "end", &scene.name));
        let mut at = 0;
        for (stage, row) in stages() {
            let took = row.medians[number].unwrap_or(0);
            let x = LEFT + at as f64 * scale;
            let width = (took as f64 * scale).max(1.0);
            document = document.add(rectangle(x, y, width, BAR, STAGES[stage].colour));
            at += took;
        }
    }
    let step = distance(longest);
    for mark in (0..=longest / step).map(|number| number * step) {
        let x = LEFT + mark as f64 * scale;
        document = document
            .add(rectangle(x, bars, 1.0, 6.0, "black"))
            .add(text(
                x,
                bars + 22.0,
                "middle",
                format!("{} ms", mark as f64 / 1000.0),
            ));
    }
    let column = |number: usize| WIDTH - MARGIN - COLUMN * (scenes.len() - 1 - number) as f64;
    for (number, scene) in scenes.iter().enumerate() {
        document = document.add(text(column(number), legend, "end", &scene.name));
    }
    document = document.add(text(MARGIN, legend, "start", "µs of guest time"));
    for (number, row) in rows.iter().enumerate() {
        let y = legend + ROW_PITCH * (number as f64 + 1.0);
        if let Some(stage) = row.stage {
            let colour = STAGES[stage].colour;
            document = document.add(rectangle(MARGIN, y - SQUARE + 1.0, SQUARE, SQUARE, colour));
        }
        document = document.add(text(MARGIN + 20.0, y, "start", row.what));
        for (scene, median) in row.medians.iter().enumerate() {
            document = document.add(text(column(scene), y, "end", cell(*median)));
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use super::super::rows;
    use super::super::tests::scene;
    use super::*;

    #[test]
    fn marks_are_round() {
        for (length, expected) in [(1, 1), (11, 2), (48_000, 5_000), (120_000, 20_000)] {
            assert_eq!(distance(length), expected);
        }
    }

    #[test]
    fn the_picture_has_a_bar_for_each_stage() {
        let scenes = [scene(&[3])];
        let picture = draw(&scenes, &rows(&scenes), "here").to_string();
        for stage in &STAGES {
            // One in the bar, one in the legend.
            assert_eq!(picture.matches(stage.colour).count(), 2);
        }
        // Where the licence is looked for.
        let head: Vec<_> = picture.lines().take(3).collect();
        assert!(head.join("\n").contains("MIT OR Apache-2.0"), "{head:?}");
    }
}
