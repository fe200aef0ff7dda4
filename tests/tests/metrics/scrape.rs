//! A scrape: what a host serves at `/metrics`, read as a monitoring system reads it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use exosphere_tests::Host;

/// The labels of a series.
pub type Labels = BTreeMap<String, String>;

/// A family of series.
#[derive(Debug, Default)]
pub struct Family {
    pub metric_type: String,
    pub help: String,
}

/// The metrics of a host at one moment.
#[derive(Debug, Default)]
pub struct Scrape {
    pub text: String,
    pub families: BTreeMap<String, Family>,
    /// The value of each series, by name and labels.
    pub series: BTreeMap<(String, Labels), f64>,
}

impl Scrape {
    /// Asks a host for its metrics.
    pub fn of(host: &Host) -> Result<Scrape> {
        let answer = host.request("GET", "//metrics")?.send()?;
        let (status, media_type) = (answer.status(), answer.headers().get("content-type").cloned());
        let text = answer.text()?;
        ensure!(status == 200, "{status}: {text}");
        let expected = "text/plain; version=0.0.4; charset=utf-8";
        ensure!(media_type.as_ref().is_some_and(|it| it == expected), "{media_type:?}");
        Scrape::parse(text)
    }

    pub fn parse(text: String) -> Result<Scrape> {
        let mut scrape = Scrape::default();
        for line in text.lines() {
            let bad = || format!("not a line of the text format: {line}");
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').with_context(bad)?;
                scrape.families.entry(name.to_owned()).or_default().help = help.to_owned();
            } else if let Some(metric_type) = line.strip_prefix("# TYPE ") {
                let (name, metric_type) = metric_type.split_once(' ').with_context(bad)?;
                let family = scrape.families.entry(name.to_owned()).or_default();
                family.metric_type = metric_type.to_owned();
            } else {
                let (series, value) = line.rsplit_once(' ').with_context(bad)?;
                let earlier = scrape.series.insert(parse_series(series)?, value.parse()?);
                ensure!(earlier.is_none(), "two series are the same: {line}");
            }
        }
        scrape.text = text;
        Ok(scrape)
    }

    /// Returns the sum of the series with a name and some labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matches = |of: &Labels| {
            labels.iter().all(|(label, value)| of.get(*label).is_some_and(|it| it == value))
        };
        let found = self.series.iter().filter(|((of, with), _)| of == name && matches(with));
        found.map(|(_, value)| value).sum()
    }

    /// Returns the value of the series without labels.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.series.get(&(name.to_owned(), Labels::new())).copied()
    }

    /// Returns the values of a label of a family.
    pub fn label_values(&self, name: &str, label: &str) -> BTreeSet<&str> {
        let of_family = self.series.keys().filter(|(of, _)| of == name);
        of_family.filter_map(|(_, labels)| labels.get(label).map(String::as_str)).collect()
    }

    /// Returns the family to which a series, or a name in a query, belongs.
    pub fn family_of<'n>(&self, name: &'n str) -> Option<&'n str> {
        let parts = ["_bucket", "_sum", "_count"].into_iter();
        let mut candidates =
            std::iter::once(name).chain(parts.filter_map(|part| name.strip_suffix(part)));
        candidates.find(|name| self.families.contains_key(*name))
    }
}

/// Parses the name and the labels of a series. No value here has an escaped character.
fn parse_series(text: &str) -> Result<(String, Labels)> {
    let Some((name, rest)) = text.split_once('{') else {
        return Ok((text.to_owned(), Labels::new()));
    };
    let rest = rest.strip_suffix('}').with_context(|| text.to_owned())?;
    let pair = |pair: &str| {
        let (label, value) = pair.split_once("=\"")?;
        Some((label.to_owned(), value.to_owned()))
    };
    let pairs = rest.strip_suffix('"').with_context(|| text.to_owned())?.split("\",");
    let labels = pairs.map(pair).collect::<Option<Labels>>().with_context(|| text.to_owned())?;
    Ok((name.to_owned(), labels))
}
