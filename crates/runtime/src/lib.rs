//! Settings, telemetry, lifecycle, and the health and metrics listener.
