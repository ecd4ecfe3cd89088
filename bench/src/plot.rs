//! Pictures of a report, as SVG files: latency by percentile, all second by second, and latency by rate.
//!
//! Times are on a logarithmic axis, percentiles on one where each step is another nine, so that tails are as wide as the middle.
//! A picture shows what the JSON report has, and nothing else.

use std::fs;
use std::io;
use std::path::Path;

use plotters::coord::Shift;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::*;

use crate::error::BenchError;
use crate::progress::note;
use crate::report::text::{about, rate};
use crate::report::{Report, SeriesPoint};

const WIDTH: u32 = 960;
/// Of one panel.
const HEIGHT: u32 = 480;
const FONT: &str = "sans-serif";
const TITLE_PX: u32 = 15;
const LABEL_PX: u32 = 13;
const LEFT_PX: u32 = 80;
const BELOW_PX: u32 = 45;
const TICKS: usize = 11;
/// The palette of Okabe and Ito, which colour-blind people can tell apart.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// Draws a run: `latency.svg`, `seconds.svg`.
///
/// # Errors
/// [`BenchError`] if a file cannot be written.
pub(crate) fn of_run(directory: &Path, report: &Report) -> Result<(), BenchError> {
    save(directory, "latency.svg", &about(report), &[by_percentile(report)])?;
    save(directory, "seconds.svg", &about(report), &by_second(&report.series))
}

/// Draws a sweep: `rates.svg`.
///
/// # Errors
/// [`BenchError`] if a file cannot be written.
pub(crate) fn of_sweep(directory: &Path, reports: &[Report]) -> Result<(), BenchError> {
    let title = reports.first().map(about).unwrap_or_default();
    save(directory, "rates.svg", &title, &[by_rate(reports)])
}

/// How numbers of an axis are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scale {
    /// As they are.
    Linear,
    /// Microseconds by their logarithm to ten.
    LogMicros,
    /// Quantiles by how many nines they have.
    Nines,
}

impl Scale {
    fn label(self, at: f64) -> String {
        match self {
            Self::Linear | Self::Nines if (at - at.round()).abs() > 1e-6 => String::new(),
            Self::Linear => rate(at.max(0.0)),
            Self::LogMicros => time(10_f64.powf(at)),
            Self::Nines => {
                let nines = at.round();
                let decimals = format!("{:.0}", (nines - 2.0).max(0.0)).parse().unwrap_or_default();
                format!("{:.decimals$}%", 100.0 - 10_f64.powf(2.0 - nines))
            }
        }
    }

    /// What an axis has to reach from and to.
    fn bounds(self, values: impl Iterator<Item = f64>) -> (f64, f64) {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return (0.0, 1.0);
        }
        match self {
            Self::Linear => (0.0, (1.05 * high).max(1.0)),
            Self::LogMicros => (low.floor(), high.ceil().max(low.floor() + 1.0)),
            Self::Nines => (0.0, high.ceil().max(1.0)),
        }
    }
}

/// A time in the unit that suits it, from microseconds.
fn time(micros: f64) -> String {
    let (value, unit) = match micros {
        micros if micros < 1e3 => (micros, "us"),
        micros if micros < 1e6 => (micros / 1e3, "ms"),
        micros => (micros / 1e6, "s"),
    };
    if value < 9.95 { format!("{value:.1} {unit}").replace(".0 ", " ") } else { format!("{value:.0} {unit}") }
}

/// Something that is drawn over an axis.
#[derive(Debug)]
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Line {
    fn new(name: &str, points: impl Iterator<Item = (f64, f64)>) -> Self {
        Self { name: name.to_owned(), points: points.collect() }
    }
}

/// Lines over the same axes.
#[derive(Debug)]
struct Panel {
    x: (&'static str, Scale),
    y: (&'static str, Scale),
    lines: Vec<Line>,
}

const LATENCY: (&str, Scale) = ("latency", Scale::LogMicros);

/// Latencies are at least a nanosecond.
fn log_micros(micros: f64) -> f64 {
    micros.max(0.001).log10()
}

fn by_percentile(report: &Report) -> Panel {
    let curve = |(name, latency): (String, &crate::report::Latency)| {
        // The last point is the longest time, at quantile 1, which is no place on this axis.
        let points = latency.curve.iter().filter(|&&(quantile, _)| quantile < 1.0);
        Line::new(&name, points.map(|&(quantile, micros)| (-(1.0 - quantile).log10(), log_micros(micros))))
    };
    let responses = report.latency_us.iter().map(|(name, latency)| ((*name).to_owned(), latency));
    let services = report.service_us.iter().map(|(name, latency)| (format!("{name}, from sending"), latency));
    Panel {
        x: ("percentile", Scale::Nines),
        y: LATENCY,
        lines: responses.chain(services).map(curve).collect(),
    }
}

fn by_second(series: &[SeriesPoint]) -> [Panel; 2] {
    #[allow(clippy::cast_precision_loss, reason = "seconds and counts of a run are far below 2^53")]
    let line = |name: &str, of: fn(&SeriesPoint) -> f64| {
        Line::new(name, series.iter().map(|point| (point.second as f64, of(point))))
    };
    #[allow(clippy::cast_precision_loss, reason = "counts of a second are far below 2^53")]
    let operations = |point: &SeriesPoint| point.operations as f64;
    let seconds = ("seconds", Scale::Linear);
    let latencies = vec![
        line("p50", |point| log_micros(point.p50_us)),
        line("p99", |point| log_micros(point.p99_us)),
        line("p99.9", |point| log_micros(point.p99_9_us)),
        line("longest", |point| log_micros(point.max_us)),
    ];
    [
        Panel {
            x: seconds,
            y: ("operations in a second", Scale::Linear),
            lines: vec![line("operations", operations)],
        },
        Panel { x: seconds, y: LATENCY, lines: latencies },
    ]
}

fn by_rate(reports: &[Report]) -> Panel {
    let line = |name: &str, of: fn(&Report) -> f64| {
        let offered = |report: &Report| report.load.offered_per_second.unwrap_or_default();
        Line::new(name, reports.iter().map(|report| (offered(report), log_micros(of(report)))))
    };
    let lines = vec![
        line("p50", |report| report.all_us.p50),
        line("p99", |report| report.all_us.p99),
        line("p99.9", |report| report.all_us.p99_9),
        line("longest", |report| report.all_us.max),
    ];
    Panel { x: ("requests due in a second", Scale::Linear), y: LATENCY, lines }
}

fn save(directory: &Path, name: &str, title: &str, panels: &[Panel]) -> Result<(), BenchError> {
    let picture = svg(title, panels).map_err(|error| io::Error::other(error.to_string()))?;
    fs::create_dir_all(directory)?;
    let path = directory.join(name);
    fs::write(&path, picture)?;
    note(&format!("drew {}", path.display()));
    Ok(())
}

type DrawError = DrawingAreaErrorKind<io::Error>;

/// One above the other.
fn svg(title: &str, panels: &[Panel]) -> Result<String, DrawError> {
    let mut picture = String::new();
    let count = panels.len().max(1);
    let height = HEIGHT * u32::try_from(count).unwrap_or(1);
    {
        let root = SVGBackend::with_string(&mut picture, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let root = root.titled(title, (FONT, TITLE_PX))?;
        for (panel, area) in panels.iter().zip(root.split_evenly((count, 1))) {
            draw(panel, &area)?;
        }
        root.present()?;
    }
    Ok(picture)
}

fn draw(panel: &Panel, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), DrawError> {
    let points = || panel.lines.iter().flat_map(|line| &line.points);
    let (left, right) = panel.x.1.bounds(points().map(|point| point.0));
    let (low, high) = panel.y.1.bounds(points().map(|point| point.1));
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .margin_right(25)
        .x_label_area_size(BELOW_PX)
        .y_label_area_size(LEFT_PX)
        .build_cartesian_2d(left..right, low..high)?;
    chart
        .configure_mesh()
        .x_desc(panel.x.0)
        .y_desc(panel.y.0)
        .x_labels(TICKS)
        .y_labels(TICKS)
        .x_label_formatter(&|at| panel.x.1.label(*at))
        .y_label_formatter(&|at| panel.y.1.label(*at))
        .label_style((FONT, LABEL_PX))
        .light_line_style(WHITE)
        .draw()?;
    for (line, colour) in panel.lines.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), style))?
            .label(line.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .label_font((FONT, LABEL_PX))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_labelled_as_people_say_them() {
        let nines: Vec<_> = [0.0, 1.0, 1.5, 2.0, 3.0, 4.0].map(|at| Scale::Nines.label(at)).into();
        assert_eq!(nines, ["0%", "90%", "", "99%", "99.9%", "99.99%"]);
        let times: Vec<_> = [0.0, 1.5, 2.0, 3.0, 4.5, 6.0].map(|at| Scale::LogMicros.label(at)).into();
        assert_eq!(times, ["1 us", "32 us", "100 us", "1 ms", "32 ms", "1 s"]);
        assert_eq!(Scale::Linear.label(20_000.0), "20,000");
    }

    #[test]
    fn a_picture_has_its_lines_and_their_names() {
        let line = |name: &str| Line::new(name, [(0.0, 1.0), (1.0, 2.5)].into_iter());
        let panel =
            Panel { x: ("percentile", Scale::Nines), y: LATENCY, lines: vec![line("reads"), line("writes")] };
        let picture = svg("a <title>", &[panel]).unwrap();
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
        assert!(picture.contains("reads") && picture.contains("writes") && picture.contains("90%"));
        assert!(picture.contains("a &lt;title&gt;"));
    }

    #[test]
    fn a_picture_of_nothing_is_empty_axes() {
        let nothing = Panel { x: ("seconds", Scale::Linear), y: LATENCY, lines: Vec::new() };
        assert!(svg("nothing", &[nothing]).is_ok());
    }
}
