//! Configuration: values that the operator of the host granted to the plugin.
//! For what differs from place to place and is no secret, such as a region or
//! the address of a service.
//!
//! A plugin that reads any is refused by the host until some are granted:
//! `exosphere grant add PLUGIN --config KEY=VALUE`.

use std::collections::BTreeMap;

use crate::imports::config as host;

/// The value of a key; nothing if it was not granted.
pub fn get(key: &str) -> Option<String> {
    host::get(key)
}

/// Every key that was granted, with its value.
pub fn all() -> BTreeMap<String, String> {
    host::all().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use crate::testing::Host;

    #[test]
    fn what_was_granted_and_no_more() {
        let mut host = Host::new().config("region", "eu").config("tier", "free");
        let found = host.within(|| {
            Ok((super::get("region"), super::get("other"), super::all().into_keys().collect()))
        });
        let keys: Vec<String> = vec!["region".into(), "tier".into()];
        assert_eq!(found.ok(), Some((Some("eu".into()), None, keys)));
    }
}
