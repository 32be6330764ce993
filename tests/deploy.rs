//! Placeholder until the deployment test lands.
