//! Configuration: values that the operator of the host granted to the plugin. Use it
//! for values that differ between environments and are not secret, such as a region or
//! the address of a service.
//!
//! The host refuses a plugin that reads configuration until some is granted: `exosphere
//! grant add PLUGIN --config KEY=VALUE`.

use std::collections::BTreeMap;

use crate::imports::config as host;

/// Returns the value of a key, or `None` if it was not granted.
pub fn get(key: &str) -> Option<String> {
    host::get(key)
}

/// Returns every granted key with its value.
pub fn all() -> BTreeMap<String, String> {
    host::all().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use crate::testing::Host;

    #[test]
    fn only_granted_configuration_is_readable() {
        let mut host = Host::new().config("region", "eu").config("tier", "free");
        let found = host.within(|| {
            Ok((super::get("region"), super::get("other"), super::all().into_keys().collect()))
        });
        let keys: Vec<String> = vec!["region".into(), "tier".into()];
        assert_eq!(found.ok(), Some((Some("eu".into()), None, keys)));
    }
}
