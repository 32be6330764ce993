//! The vendor's dialect: reads pushes, verifies signatures, knows the release codes.
