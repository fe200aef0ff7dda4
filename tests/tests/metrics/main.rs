//! Metrics: they equal the database, their series are bounded, the documents name those that
//! there are, and each alert rule fires when its cause is brought about.

mod scrape;
mod promtool;
mod truth;
mod series;
mod documents;
mod alerts;
mod probes;
