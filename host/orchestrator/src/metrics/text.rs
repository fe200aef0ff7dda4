//! Writes metrics in the text format of Prometheus (version 0.0.4).
//!
//! Not here: which metrics a host has (`families`), and those of its API (`exosphere-api`).

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::histogram::Histogram;

/// The media type of the text.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// The labels of a series. They never hold a run, a state, or any text of a user.
pub type Labels<'l> = &'l [(&'static str, &'l str)];

/// The families of a text under way. A family has a name, a help text, and its series.
pub struct Families<'f, 'e>(&'f mut DescriptorEncoder<'e>);

impl Families<'_, '_> {
    /// Writes a family of counters. Its name is given without `_total`.
    pub fn counters(
        &mut self,
        name: &str,
        help: &str,
        add: impl FnOnce(&mut Series<'_>) -> fmt::Result,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, add)
    }

    /// Writes a counter.
    pub fn counter(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        self.counters(name, help, |series| series.count(&[], count))
    }

    /// Writes a gauge.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let add = |series: &mut Series<'_>| series.0.encode_gauge(&value);
        self.family(name, help, MetricType::Gauge, add)
    }

    /// Writes a gauge that is always 1, for its labels.
    pub fn info(&mut self, name: &str, help: &str, labels: Labels<'_>) -> fmt::Result {
        let add = |series: &mut Series<'_>| series.0.encode_family(&labels)?.encode_gauge(&1i64);
        self.family(name, help, MetricType::Gauge, add)
    }

    /// Writes a family of histograms.
    pub fn histograms(
        &mut self,
        name: &str,
        help: &str,
        add: impl FnOnce(&mut Series<'_>) -> fmt::Result,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Histogram, add)
    }

    /// Writes a histogram.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        self.histograms(name, help, |series| series.histogram(&[], histogram))
    }

    fn family(
        &mut self,
        name: &str,
        help: &str,
        metric_type: MetricType,
        add: impl FnOnce(&mut Series<'_>) -> fmt::Result,
    ) -> fmt::Result {
        add(&mut Series(self.0.encode_descriptor(name, help, None, metric_type)?))
    }
}

/// The series of a family.
pub struct Series<'e>(MetricEncoder<'e>);

impl Series<'_> {
    /// Adds a series of a family of counters.
    pub fn count(&mut self, labels: Labels<'_>, count: u64) -> fmt::Result {
        self.0.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)
    }

    /// Adds a series of a family of counters of seconds.
    pub fn seconds(&mut self, labels: Labels<'_>, seconds: f64) -> fmt::Result {
        self.0.encode_family(&labels)?.encode_counter::<NoLabelSet, f64, f64>(&seconds, None)
    }

    /// Adds a series of a family of histograms.
    pub fn histogram(&mut self, labels: Labels<'_>, histogram: &Histogram) -> fmt::Result {
        let (sum, count, buckets) = histogram.read();
        let mut series = self.0.encode_family(&labels)?;
        series.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

/// A writer of families, in the form that the library takes.
struct Writer<W>(W);

impl<W> fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

impl<W> Collector for Writer<W>
where
    W: Fn(&mut Families<'_, '_>) -> fmt::Result + Send + Sync + 'static,
{
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        (self.0)(&mut Families(&mut encoder))
    }
}

/// Returns the text of some families.
pub fn encode(
    write: impl Fn(&mut Families<'_, '_>) -> fmt::Result + Send + Sync + 'static,
) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Arc::new(Writer(write))));
    let mut text = String::new();
    // A write to a string cannot fail.
    let _ = prometheus_text::encode(&mut text, &registry);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_help_type_and_series() {
        static SECONDS: &[f64] = &[0.5, 1.0];
        let text = encode(|families| {
            families.counters("a", "Counted things.", |series| {
                series.count(&[("kind", "x\"\n")], 2)?;
                series.count(&[], 3)
            })?;
            families.gauge("b", "A size.", 1.5)?;
            families.info("c", "About it.", &[("version", "1")])?;
            let histogram = Histogram::new(SECONDS);
            histogram.observe(0.7);
            families.histogram("d_seconds", "Times.", &histogram)
        });
        let expected = "# HELP a_total Counted things.\n# TYPE a_total counter\n\
                        a_total{kind=\"x\\\"\\n\"} 2\na_total 3\n\
                        # HELP b A size.\n# TYPE b gauge\nb 1.5\n\
                        # HELP c About it.\n# TYPE c gauge\nc{version=\"1\"} 1\n\
                        # HELP d_seconds Times.\n# TYPE d_seconds histogram\n\
                        d_seconds_bucket{le=\"0.5\"} 0\nd_seconds_bucket{le=\"1\"} 1\n\
                        d_seconds_bucket{le=\"+Inf\"} 1\nd_seconds_sum 0.7\nd_seconds_count 1\n";
        assert_eq!(text, expected);
    }
}
