//! What probing found: a figure for each protocol, number of labels, source of features and draw.

use std::fmt::{Display, Formatter};

use serde_json::{Value, json};

/// How features are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A linear classifier, on augmented test images.
    Linear,
    /// Weighted nearest neighbours, on augmented test images.
    Neighbours,
    /// A linear classifier, on clean test images.
    LinearClean,
    /// The whole network trained on, on augmented test images; of [`Source::Random`]: trained from
    /// scratch.
    Finetune,
    /// The other view of the same image is the closest.
    InstanceRetrieval,
    /// The closest view of another image is of the same class.
    ClassRetrieval,
    /// How far views of an image are apart.
    Alignment,
    /// How evenly images are spread.
    Uniformity,
}

impl Protocol {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 8] = [
        Self::Linear,
        Self::Neighbours,
        Self::LinearClean,
        Self::Finetune,
        Self::InstanceRetrieval,
        Self::ClassRetrieval,
        Self::Alignment,
        Self::Uniformity,
    ];

    /// Whether its figures are parts of a whole.
    pub fn is_accuracy(self) -> bool {
        !matches!(self, Self::Alignment | Self::Uniformity)
    }
}

impl Display for Protocol {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Linear => "linear",
            Self::Neighbours => "nearest neighbours",
            Self::LinearClean => "linear, clean images",
            Self::Finetune => "fine-tuned",
            Self::InstanceRetrieval => "instance retrieval@1",
            Self::ClassRetrieval => "class retrieval@1",
            Self::Alignment => "alignment",
            Self::Uniformity => "uniformity",
        })
    }
}

/// Where features come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The encoder in question.
    Trained,
    /// The same network with other initial values, untrained.
    Random,
    /// The image's own values.
    Pixels,
}

impl Source {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 3] = [Self::Trained, Self::Random, Self::Pixels];
}

impl Display for Source {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Trained => "trained encoder",
            Self::Random => "random encoder",
            Self::Pixels => "raw pixels",
        })
    }
}

/// Figures of one protocol and source, one a draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// How it was judged.
    pub protocol: Protocol,
    /// Labels a class, 0 for all; `None` where none are needed.
    pub labels: Option<usize>,
    /// What was judged.
    pub source: Source,
    /// A figure a draw; accuracies lie in 0..=1.
    pub draws: Vec<f64>,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// In the order in which they were found.
    pub rows: Vec<Row>,
    /// How many images one is retrieved from.
    pub gallery: usize,
}

/// The mean and the standard deviation of a sample.
pub fn mean_and_spread(values: &[f64]) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, variance.sqrt())
}

impl Report {
    /// The figures of one row, where it was asked for.
    pub fn draws(&self, protocol: Protocol, labels: Option<usize>, source: Source) -> Option<&[f64]> {
        let row = self.rows.iter().find(|row| (row.protocol, row.labels, row.source) == (protocol, labels, source));
        row.map(|row| row.draws.as_slice())
    }

    /// What the trained encoder is ahead of another source, draw by draw: draws and views are the
    /// same.
    pub fn ahead(&self, protocol: Protocol, labels: Option<usize>, of: Source) -> Option<Vec<f64>> {
        let (trained, other) = (self.draws(protocol, labels, Source::Trained)?, self.draws(protocol, labels, of)?);
        Some(trained.iter().zip(other).map(|(a, b)| a - b).collect())
    }

    /// How many times as often as another source's the trained encoder's retrieval of instances is
    /// right.
    pub fn retrieval_ratio(&self, of: Source) -> Option<f64> {
        let mean = |source| self.draws(Protocol::InstanceRetrieval, None, source).map(|draws| mean_and_spread(draws).0);
        Some(mean(Source::Trained)? / mean(of)?)
    }

    /// Protocols and labels that there are rows of, in the order of tables.
    pub fn protocols(&self) -> Vec<(Protocol, Option<usize>)> {
        let rows = |protocol| self.rows.iter().filter(move |row| row.protocol == protocol && row.source == Source::Trained);
        Protocol::ALL.into_iter().flat_map(rows).map(|row| (row.protocol, row.labels)).collect()
    }

    /// All rows, and the paired differences, with means and spreads.
    pub fn to_json(&self) -> Value {
        let with = |protocol: Protocol, labels: Option<usize>, key: &str, source: Source, draws: &[f64]| {
            let (mean, spread) = mean_and_spread(draws);
            let labels = labels.map(|n| if n == 0 { json!("all") } else { json!(n) });
            json!({ "protocol": protocol.to_string(), "labels": labels, key: source.to_string(), "mean": mean, "spread": spread, "draws": draws })
        };
        let rows: Vec<Value> = self.rows.iter().map(|r| with(r.protocol, r.labels, "features", r.source, &r.draws)).collect();
        let pairs = self.protocols().into_iter().flat_map(|of| [Source::Random, Source::Pixels].map(|other| (of, other)));
        let ahead = |((protocol, labels), other)| Some(with(protocol, labels, "over", other, &self.ahead(protocol, labels, other)?));
        let ratio = |source: Source| self.retrieval_ratio(source).filter(|ratio| ratio.is_finite());
        json!({
            "rows": rows,
            "differences": pairs.filter_map(ahead).collect::<Vec<_>>(),
            "retrieval_ratio": { Source::Random.to_string(): ratio(Source::Random), Source::Pixels.to_string(): ratio(Source::Pixels) },
            "gallery": self.gallery,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_paired() {
        let row = |source, draws: [f64; 2]| Row { protocol: Protocol::Linear, labels: Some(10), source, draws: draws.to_vec() };
        let rows = vec![row(Source::Trained, [0.5, 0.75]), row(Source::Random, [0.25, 0.5]), row(Source::Pixels, [0.5, 0.25])];
        let report = Report { rows, gallery: 7 };
        assert_eq!(report.protocols(), [(Protocol::Linear, Some(10))]);
        assert_eq!(report.ahead(Protocol::Linear, Some(10), Source::Random).unwrap(), [0.25, 0.25]);
        assert_eq!(report.ahead(Protocol::Linear, Some(20), Source::Random), None);
        let json = report.to_json();
        assert_eq!(json["rows"][2]["features"], "raw pixels");
        // Both sources spread, their difference does not.
        assert_eq!((json["rows"][0]["spread"].as_f64().unwrap() > 0.1, json["differences"][0]["spread"].as_f64()), (true, Some(0.0)));
        assert_eq!((&json["differences"][1]["over"], json["differences"][1]["mean"].as_f64()), (&json!("raw pixels"), Some(0.25)));
    }
}
