//! Roles of callers, and what a request needs of them.
//!
//! Not here: who has which role (keys), and which route needs which (the API).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The role of a caller. Each role may do what the roles before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Role {
    /// Reads.
    Viewer,
    /// Starts, cancels, pauses, retries and redrives runs.
    Operator,
    /// Uploads plugins and applies graphs.
    Deployer,
    /// Sets limits and grants, and gives roles to others.
    Admin,
}

impl Role {
    /// Every role, from the weakest to the strongest.
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Operator, Role::Deployer, Role::Admin];

    /// Returns the role's name in the API, the CLI and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Deployer => "deployer",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is not a valid role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a role is `viewer`, `operator`, `deployer` or `admin`")]
pub struct BadRole;

impl FromStr for Role {
    type Err = BadRole;

    fn from_str(text: &str) -> Result<Self, BadRole> {
        Role::ALL.into_iter().find(|role| role.as_str() == text).ok_or(BadRole)
    }
}

/// The rights that a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Needs {
    /// None: anyone may send the request.
    Nothing,
    /// At least this role.
    Role(Role),
}

impl From<Role> for Needs {
    fn from(role: Role) -> Self {
        Needs::Role(role)
    }
}

impl Needs {
    /// Returns whether a role suffices.
    pub fn are_met_by(self, role: Role) -> bool {
        match self {
            Needs::Nothing => true,
            Needs::Role(least) => role >= least,
        }
    }

    /// Returns the name of the least role, or `public`.
    pub fn as_str(self) -> &'static str {
        match self {
            Needs::Nothing => "public",
            Needs::Role(role) => role.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_includes_the_weaker_ones() {
        for (place, role) in Role::ALL.into_iter().enumerate() {
            assert_eq!(role.as_str().parse(), Ok(role));
            for (least, other) in Role::ALL.into_iter().enumerate() {
                assert_eq!(Needs::Role(other).are_met_by(role), place >= least, "{role} {other}");
            }
            assert!(Needs::Nothing.are_met_by(role));
        }
        assert_eq!("Admin".parse::<Role>(), Err(BadRole));
    }
}
