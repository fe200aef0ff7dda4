//! Access control: each request to a route needs a key with the route's role, and is served on
//! behalf of that key. A namespace that the key is not valid for does not exist for it.
//!
//! Not here: the requirements of routes (`route`), the verification of keys
//! (`exosphere-orchestrator`), and payloads that an answer leaves out (`withhold`).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use exosphere_orchestrator::domain::access::{Access, Actor};
use exosphere_orchestrator::domain::role::Needs;
use exosphere_orchestrator::{AccessError, Caller, Host};

use crate::metrics::MatchedRoute;
use crate::problem::Problem;
use crate::problem_kind::Kind;
use crate::route::Requirement;

/// The knowledge of a connection about a request, as an extension of the request.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    /// The address of the peer.
    pub address: IpAddr,
    pub route: MatchedRoute,
}

/// Seconds after which to retry when many wrong keys came from an address.
const RETRY_AFTER_WRONG_KEYS_S: u64 = 2;

/// The decision on a request.
pub(crate) enum Decision {
    /// The request is served by this handle, on behalf of its caller.
    Admitted(Host),
    /// The request is refused.
    Refused(Problem),
    /// The cache of keys does not tell.
    Pending(Box<PendingDecision>),
}

/// A request whose key must be looked up in the database.
pub(crate) struct PendingDecision {
    key: String,
    address: IpAddr,
    requirement: Requirement,
    namespace: Option<String>,
}

/// Decides on a request without waiting, if the cache of keys suffices.
pub(crate) fn decide(
    host: &Host,
    asks_for_keys: bool,
    requirement: Requirement,
    request: &Request,
) -> Decision {
    let context = request.extensions().get::<RequestContext>();
    // Only tests of the router have requests without a connection.
    let address = context.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |context| context.address);
    if requirement.needs == Needs::Nothing {
        return Decision::Admitted(host.clone());
    }
    if !asks_for_keys {
        let actor = Arc::new(Actor { key: None, address: Some(address) });
        let access = Arc::new(Access::full());
        return Decision::Admitted(host.on_behalf_of(Caller { actor, access }));
    }
    let key = match bearer(request.headers()) {
        Ok(key) => key,
        Err(problem) => return Decision::Refused(problem),
    };
    let namespace = namespace_of(request.uri().path());
    let cached = host.verify_cached(key, address);
    let in_outage = || requirement.in_outages.then(|| host.verify_in_outage(key, address))?;
    match cached.or_else(in_outage) {
        Some(verified) => match admit(host, verified, requirement, namespace) {
            Ok(host) => Decision::Admitted(host),
            Err(problem) => Decision::Refused(problem),
        },
        None => Decision::Pending(Box::new(PendingDecision {
            key: key.to_owned(),
            address,
            requirement,
            namespace: namespace.map(str::to_owned),
        })),
    }
}

impl PendingDecision {
    /// Looks the key up, and returns the handle that serves the request.
    pub(crate) async fn resolve(self, host: &Host) -> Result<Host, Problem> {
        let verified = if self.requirement.in_outages {
            host.verify_soon(&self.key, self.address).await
        } else {
            host.verify(&self.key, self.address).await
        };
        admit(host, verified, self.requirement, self.namespace.as_deref())
    }
}

/// Checks that a caller has what a route needs.
fn admit(
    host: &Host,
    verified: Result<Caller, AccessError>,
    requirement: Requirement,
    namespace: Option<&str>,
) -> Result<Host, Problem> {
    let caller = verified?;
    authorize(&caller.access, requirement, namespace)?;
    Ok(host.on_behalf_of(caller))
}

fn authorize(
    access: &Access,
    requirement: Requirement,
    namespace: Option<&str>,
) -> Result<(), Problem> {
    // First, so that a key learns nothing of another namespace: not even which of its routes exist.
    if let Some(namespace) = namespace
        && !access.namespaces.contains(namespace)
    {
        let message = format!("there is no namespace {namespace:?} here");
        return Err(Problem::new(Kind::NotFound, message));
    }
    if !requirement.needs.are_met_by(access.role) {
        let message = format!(
            "this request needs the role {}, and the key has the role {}; ask an admin for another \
             key: `exosphere key create --role {}`",
            requirement.needs.as_str(),
            access.role,
            requirement.needs.as_str(),
        );
        return Err(Problem::new(Kind::Forbidden, message));
    }
    if (namespace.is_none() || requirement.all_namespaces) && !access.namespaces.is_all() {
        let message = "this request needs a key that is valid for all namespaces, and this one is \
                       valid for some of them; ask an admin for another key: \
                       `exosphere key create --all-namespaces`";
        return Err(Problem::new(Kind::Forbidden, message));
    }
    Ok(())
}

/// Returns the namespace that a path names. Up to there, a path is never percent-encoded
/// (`middleware`).
fn namespace_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v1/")?;
    let rest = rest.strip_prefix("operator/").unwrap_or(rest).strip_prefix("namespaces/")?;
    rest.split('/').next().filter(|name| !name.is_empty())
}

/// Returns the key of a request: the token of its one header `Authorization`.
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let no_key = |message: &str| {
        let remedy = "send `Authorization: Bearer exo_..`; the command line takes the key from \
                      EXOSPHERE_KEY, from --key-file, or from admin.key in the data folder of a \
                      host on the same machine";
        Err(Problem::new(Kind::NoKey, format!("{message}: {remedy}")))
    };
    let Some(value) = values.next() else { return no_key("the request has no key") };
    let token = value.to_str().ok().and_then(|text| text.split_once(' '));
    match token {
        Some((scheme, token))
            if scheme.eq_ignore_ascii_case("bearer") && values.next().is_none() =>
        {
            Ok(token.trim())
        }
        _ => no_key("the header `Authorization` has no bearer token, or occurs twice"),
    }
}

impl From<AccessError> for Problem {
    fn from(error: AccessError) -> Self {
        let message = error.to_string();
        match error {
            AccessError::Malformed(_)
            | AccessError::Wrong
            | AccessError::Revoked
            | AccessError::Expired => {
                Problem::new(Kind::WrongKey, format!("{message}; ask an admin for another"))
            }
            AccessError::TooManyWrong => {
                Problem::new(Kind::TooManyRequests, message).retry_after(RETRY_AFTER_WRONG_KEYS_S)
            }
            AccessError::TooManyRequests { wait, .. } => {
                let remedy = "wait, or ask an admin for a key with a higher \
                              `--requests-per-second`";
                Problem::new(Kind::TooManyRequests, format!("{message}; {remedy}"))
                    .retry_after(wait.as_secs() + 1)
            }
            AccessError::Failed(error) => Problem::from(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::response::IntoResponse;
    use exosphere_orchestrator::domain::access::NamespaceScope;
    use exosphere_orchestrator::domain::role::Role;

    use super::*;
    use crate::route::QuotaClass;

    fn status(problem: Problem) -> u16 {
        problem.into_response().status().as_u16()
    }

    #[test]
    fn a_path_names_its_namespace() {
        for (path, namespace) in [
            ("/v1/namespaces/a/runs", Some("a")),
            ("/v1/namespaces/a", Some("a")),
            ("/v1/operator/namespaces/b/grants/x", Some("b")),
            ("/v1/operator/namespaces", None),
            ("/v1/operator/namespaces/", None),
            ("/v1/operator/keys", None),
            ("/health", None),
        ] {
            assert_eq!(namespace_of(path), namespace, "{path}");
        }
    }

    #[test]
    fn a_key_is_one_bearer_token() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned).map_err(status)
        };
        assert_eq!(read(&["Bearer exo_1"]), Ok("exo_1".to_owned()));
        assert_eq!(read(&["bearer  exo_1"]), Ok("exo_1".to_owned()));
        for values in
            [&[][..], &["exo_1"], &["Basic exo_1"], &["Bearer a", "Bearer b"], &["Bearer"]]
        {
            assert_eq!(read(values), Err(401), "{values:?}");
        }
    }

    #[test]
    fn a_role_and_a_namespace_are_required() {
        let requirement = |role| Requirement {
            needs: Needs::Role(role),
            quota: QuotaClass::Read,
            shows_payloads: false,
            all_namespaces: false,
            in_outages: false,
        };
        for role in Role::ALL {
            let only = NamespaceScope::Only(["a".parse().unwrap()].into());
            let access = Access { role, namespaces: only, payloads: false };
            for least in Role::ALL {
                let check =
                    |namespace| authorize(&access, requirement(least), namespace).map_err(status);
                let in_scope = if role >= least { Ok(()) } else { Err(403) };
                assert_eq!(check(Some("a")), in_scope, "{role} {least}");
                assert_eq!(check(Some("b")), Err(404), "{role} {least}");
                assert_eq!(check(None), Err(403), "{role} {least}");
                let of_all = Requirement { all_namespaces: true, ..requirement(least) };
                let found = authorize(&access, of_all, Some("a")).map_err(status);
                assert_eq!(found, Err(403), "{role} {least}");
                let all = Access { namespaces: NamespaceScope::All, ..access.clone() };
                let found = authorize(&all, requirement(least), None).map_err(status);
                assert_eq!(found, in_scope, "{role} {least}");
                let found = authorize(&all, of_all, Some("a")).map_err(status);
                assert_eq!(found, in_scope, "{role} {least}");
            }
        }
    }
}
